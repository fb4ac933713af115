"""reverie train AGENT --env ID: trains an agent, or resumes a run that was interrupted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from reverie.cli.environment import EnvironmentOptions, make_source
from reverie.cli.options import parse
from reverie.cli.run_files import CURVE_FILE, print_run_files
from reverie.errors import ConfigError
from reverie.training.settings import TrainSettings

if TYPE_CHECKING:
    from reverie.envs import EnvironmentSource


@dataclass(frozen=True)
class RunOptions(EnvironmentOptions):
    """The environment to learn in, and where the run is kept."""

    run: Path | None = None
    """Run folder; runs/<env>/<agent>/<seed> by default. The same command with the same folder resumes."""
    preset: str | None = None
    """Defaults of the other options: quick is for small tasks on a CPU within the hour, paper is the paper's protocol
    for this kind of task; without it quick on a CPU and paper on a GPU. Agents have more presets on their pages."""
    checkpoint: str | None = None
    """Continue from this checkpoint of the run instead of its newest."""
    change: bool = False
    """Continue the run with the agent's settings given here, e.g. `--change --learning-rate 1e-4`, where stored tensors
    do not depend on them; config.json notes the change. Without it a run refuses settings other than its own."""
    origin: Annotated[Path | None, tyro.conf.arg(name="from", metavar="RUN")] = None
    """Begin a new run with the weights of this run folder or saved agent, which has the same observations and actions,
    and with its settings of the agent."""
    from_checkpoint: str = "best"
    """Which weights of --from: best, latest, or the name of a checkpoint."""
    from_replay: bool = False
    """Begin with the experience of --from, too."""
    quiet: bool = False
    """Print nothing but errors and the result."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    from reverie.agents.registry import AGENTS, PIPELINES, agent_names, check_config, config_class

    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            print(_usage(agent_names()))
            return 0
        raise ConfigError(f"train needs an agent first: reverie train {next(iter(AGENTS))} --env CartPole-v1")
    agent = arguments[0]
    if agent in PIPELINES:
        return _train_in_stages(agent, arguments[1:])
    config_class(agent)
    options, source, path, preset = _read(agent, arguments[1:])
    check_config(options.agent)
    return _train(options, source, path, preset=preset)


def _usage(agents: list[str]) -> str:
    return (
        "usage: reverie train AGENT --env ID [options]\n\n"
        f"agents: {', '.join(agents)}\n\n"
        "  reverie train dreamer-v3 --env CartPole-v1\n"
        "  reverie train dreamer-v3 --help      all options of this agent"
    )


def _take_option(name: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Finds `NAME VALUE` among the words; returns the value, or None, and the other words."""
    words = list(arguments)
    for index, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2], words[:index] + words[index + 1 :]
        if word == name and index + 1 < len(words):
            return words[index + 1], words[:index] + words[index + 2 :]
    return None, words


def _read(agent: str, words: Sequence[str]) -> tuple[Any, EnvironmentSource, Path, str]:
    """All options of an agent's run, the recipe for its environment, its folder, and the preset behind the defaults.

    What a preset says depends on the kind of task, so the words are read twice: first for the environment, then with
    the defaults for it. A run that is resumed keeps its settings, and one that begins with another has those of that.
    """
    from reverie.agents.registry import default_preset, preset_values
    from reverie.training.device import choose_device
    from reverie.training.stored_run import run_defaults, stored_run

    asked, _ = _take_option("--preset", words)
    here = Path.cwd()  # making an environment may change it
    guess = asked or default_preset(agent, choose_device().type)
    options = _parse(agent, TrainSettings, preset_values(agent, guess), words=words)
    source = make_source(options.environment, agent, options.environment.quiet)
    adapter = source.make()
    adapter.close()
    path = here / _run_path(options.environment, source, agent, seed=options.settings.seed)
    usual, origin = default_preset(agent, choose_device(options.settings.device).type), options.environment.origin
    stored = stored_run(path, agent) or (stored_run(origin, agent) if origin else None)
    preset, values = run_defaults(
        agent, asked, usual, stored=stored, interface=adapter.interface, steps=options.settings.steps
    )
    return _parse(agent, TrainSettings, values, words=words), source, path, preset


def _run_path(environment: RunOptions, source: EnvironmentSource, agent: str, seed: int) -> Path:
    from reverie.training.run_folder import default_path

    return environment.run or default_path(source.name, agent, seed, code=source.code)


def _parse(agent: str, settings: type[Any], values: dict[str, Any], words: Sequence[str]) -> Any:
    """Reads the words with the values of a preset as defaults."""
    from reverie.agents.registry import config_class

    config = config_class(agent)
    own = {field.name for field in fields(config)}
    defaults = config(**{name: value for name, value in values.items() if name in own})
    run = settings(**{name: value for name, value in values.items() if name not in own})
    return parse(_options(config, defaults, run), f"train {agent}", words)


def _recipe(agent: str, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The preset and the other words; the tasks of an agent's paper bring their own environment and preset."""
    from reverie.agents.registry import default_preset, recipe
    from reverie.training.device import choose_device

    asked, words = _take_option("--preset", arguments)
    device = choose_device(_take_option("--device", words)[0] or "auto").type
    environment, others = _take_option("--env", words)
    if environment is None:
        return asked or default_preset(agent, device), words
    seen, preset = recipe(agent, environment, asked, device=device)
    if (seen, preset) != (environment, asked) and "--quiet" not in words:
        print(f"recipe            {environment}: --env {seen} --preset {preset}")
    return preset or default_preset(agent, device), ["--env", seen, *others]


def _options(config: type[Any], defaults: Any, settings: Any) -> type[Any]:
    """The options of the command as one dataclass: environment, run and the agent's own."""
    return make_dataclass(
        "Options",
        [
            ("environment", RunOptions),
            ("settings", type(settings), field(default=settings)),
            ("agent", config, field(default=defaults)),
        ],
        namespace={"__doc__": f"Train {config.name}: {(config.__doc__ or '').splitlines()[0]}"},
        frozen=True,
    )


def _train(options: Any, source: EnvironmentSource, path: Path, preset: str) -> int:
    from reverie.training.curves import plot_learning_curves
    from reverie.training.metrics import read_scores
    from reverie.training.origin import Origin
    from reverie.training.trainer import Trainer

    environment, origin = options.environment, options.environment.origin
    trainer = Trainer(
        options.agent,
        options.settings,
        source,
        path=path,
        checkpoint=environment.checkpoint,
        visible=not environment.quiet,
        preset=preset,
        change=environment.change,
        origin=Origin(origin, environment.from_checkpoint, environment.from_replay) if origin else None,
    )
    try:
        complete = trainer.run()
    finally:
        trainer.close()
    if not complete:
        print(f"stopped at step {trainer.env_steps:,}; repeat the command to continue")
        return 130
    last = read_scores(path)[-1:]
    for score in last:
        print(
            f"evaluation        mean return {score['mean']:.1f} ± {score['std']:.1f} over {score['episodes']} episodes "
            f"at step {score['env_steps']:,}"
        )
    plot_learning_curves([path], path / CURVE_FILE)
    print_run_files(path)
    return 0


def _train_in_stages(agent: str, words: Sequence[str]) -> int:
    from reverie.agents.registry import preset_values
    from reverie.training.metrics import read_scores
    from reverie.training.pipeline.settings import PipelineSettings
    from reverie.training.pipeline.world_models import WorldModelsTraining
    from reverie.training.run_folder import shown

    preset, words = _recipe(agent, words)
    options = _parse(agent, PipelineSettings, preset_values(agent, preset), words=words)
    environment, settings, config = options.environment, options.settings, options.agent
    if environment.checkpoint is not None:
        raise ConfigError(f"{config.name} continues from its newest files only; drop --checkpoint")
    if environment.change or environment.origin is not None:
        raise ConfigError(f"{config.name} takes parts of other runs by --reuse and --vision; drop --from and --change")
    source = make_source(environment, agent, environment.quiet)
    path = Path.cwd() / _run_path(environment, source, agent, seed=settings.seed)
    training = WorldModelsTraining(config, settings, source, path=path, visible=not environment.quiet)
    try:
        complete = training.run()
    finally:
        training.close()
    if not complete:
        print("stopped; repeat the command to continue")
        return 130
    for score in read_scores(path):
        print(
            f"generation {score['generation']:>5}   in the {config.evolve_in} {score['tried']:>8.1f}   real return "
            f"{score['mean']:>8.1f} ± {score['std']:.1f} over {score['episodes']} episodes"
        )
    print(f"run folder        {shown(path)}{os.sep}")
    print(f"returns           {shown(path / CURVE_FILE)}")
    print(f"what V sees       {shown(path / 'videos' / 'reconstruction.png')}")
    if not config.random_memory:
        print(f"dream video       {shown(path / 'videos' / 'temperatures.mp4')}")
    return 0
