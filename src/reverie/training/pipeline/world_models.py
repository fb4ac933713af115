"""Trains World Models (2018) from the first random step to the last evaluation, a stage at a time."""

from __future__ import annotations

import contextlib
import copy
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reverie.agents.world_models import WorldModelsConfig
from reverie.dream.dream import Dream
from reverie.dream.evolve import dreamed_returns
from reverie.envs import EnvironmentSource
from reverie.envs.episodes import episode_seed
from reverie.envs.pool import processors
from reverie.errors import ConfigError
from reverie.training.device import choose_device, choose_precision
from reverie.training.evaluation import EVALUATION_SEED, Evaluation, Playing, episode_limit, mean_numbers
from reverie.training.files import write_json
from reverie.training.interruption import Interruption
from reverie.training.memory import affordable_training, keep_freed_memory
from reverie.training.metrics import SCORES_FILE, flat_settings
from reverie.training.pipeline.frames import PROGRESS, FrameStore, collect
from reverie.training.pipeline.learning import Training, encode_frames, open_latents, train_memory, train_vision
from reverie.training.pipeline.loading import (
    CONTROLLER_FILE,
    MEMORY_FILE,
    SECONDS_FILE,
    VISION_FILE,
    first_latents,
    latents_file,
    log_step,
    memory_updates,
    open_log,
    rows_of,
    stage_seconds,
    vision_updates,
)
from reverie.training.pipeline.pictures import TEMPERATURES, evolution_curve, run_pictures
from reverie.training.pipeline.players import Episode, Players, numbers_of
from reverie.training.pipeline.policies import ControllerPolicy, Job, Policy, RandomPolicy
from reverie.training.pipeline.reuse import refuse_half_taken, reusable, take_over, vision_weights
from reverie.training.pipeline.search import ControllerSearch, read_search
from reverie.training.pipeline.settings import PipelineSettings
from reverie.training.progress import Display
from reverie.training.run_folder import RunFolder, shown
from reverie.training.settings import may_change_in_stages

CURVE_FILE = "learning_curve.png"
COLLECTING, EVOLVING = 0, 1
"""What episodes are for; kept apart by their seeds."""


class WorldModelsTraining:
    """One run of all stages; the same arguments resume an interrupted run.

    Stages and their files in the run folder: frames of random play (`frames/`), V (`vision.safetensors`), latents of
    all frames (`latents.npy`), M (`memory.safetensors`), C (`controller.safetensors`) with its scores (`scores.json`).

    Args:
        config: World Models' settings.
        settings: the run's.
        source: recipe for environments.
        path: run folder.
        visible: show progress.

    Raises:
        ConfigError: the environment does not show one 64x64 color image.
        RunFolderError: the folder cannot be written, is in use, or holds another run.
    """

    def __init__(
        self,
        config: WorldModelsConfig,
        settings: PipelineSettings,
        source: EnvironmentSource,
        path: Path,
        visible: bool = True,
    ) -> None:
        self.config, self.settings, self.source, self.visible = config, settings, source, visible
        self.path = Path(path).absolute()  # an environment may change the working directory
        device = choose_device(settings.device)
        keep_freed_memory()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        adapter = source.make()
        self.interface, self._time_limit = adapter.interface, adapter.time_limit
        adapter.close()
        torch.manual_seed(settings.seed)
        self.device, self.precision = device, choose_precision(settings.precision, device)
        with affordable_training(config.name):
            self.agent = config.build(self.interface).to(device)
        self.model, self.controller = self.agent.world_model, self.agent.controller
        self.folder = RunFolder(self.path)
        try:
            self._open()
        except BaseException:
            self.folder.close()
            raise
        self._interruption = Interruption()
        self.encoded: NDArray[np.float16] | None = None
        single = settings.vectorization == "in-process" or source.kind == "object"
        processes = 0 if single else settings.threads or processors()
        self._players = Players(source, processes, settings.num_envs, info=settings.info)
        self.display = Display("", 1, visible)

    def _open(self) -> None:
        config, settings = self.config, self.settings
        borrowed = None if settings.vision is None else Path(settings.vision).resolve()
        identity = {
            "agent_config": asdict(config),
            "settings": {"seed": settings.seed, "vision": None if borrowed is None else str(borrowed)},
            "environment": self.source.identity(),
            "interface": self.interface.to_json(),
        }
        controller = self.path / CONTROLLER_FILE
        done = len(read_search(controller)[0]["history"]) if controller.exists() else 0
        if config.iterations == 1 and done > config.generations:
            raise ConfigError(
                f"{self.path} has {done} generations already, but {config.generations} are asked for; ask for as many "
                f"or more, or choose another --run"
            )
        frames = self.path / "frames"
        other = Path(settings.reuse) if settings.reuse and not (frames / PROGRESS).exists() else None
        if other is None:
            refuse_half_taken(self.path)
        taken = None if other is None else reusable(other, config, self.source)
        if not (self.path / VISION_FILE).exists():
            if borrowed is not None:
                self.model.vision.load_state_dict(vision_weights(borrowed, self.model.vision.state_dict()))
            elif not config.vision_epochs and (taken is None or "V" not in taken.stages):
                raise ConfigError(
                    "with vision_epochs 0 nothing would train V; name a run that has one with --vision, or give "
                    "vision_epochs of at least 1"
                )
        described = {"agent": config.name, "seed": settings.seed, **identity, "environment": self.source.to_json()}
        described["spaces"] = self.source.spaces
        free = may_change_in_stages(config.iterations)
        fixed = {key: value for key, value in asdict(config).items() if key not in free}
        defaults = {"agent_config": asdict(WorldModelsConfig()), "environment": EnvironmentSource("").identity()}
        claim = self.folder.claim(described, {**identity, "agent_config": fixed}, defaults)
        self.folder.refuse(claim)
        self.folder.settle(claim, described)
        self.search = ControllerSearch(controller, self.controller.count, config, seed=settings.seed)
        if other is not None and taken is not None:
            self.search.begin(taken.iterations - 1)
            self.search.save()
            take_over(other, self.path, taken.stages, link_frames=config.iterations == taken.iterations)
            if self.visible:
                print(f"reused from {other}: {', '.join(taken.stages)}")
        name, width = self.model.name, self.interface.action_width
        self.store = FrameStore(
            frames, name, width, capacity=config.episodes(config.iterations - 1) * config.collect_steps
        )
        if other is not None and not self.store.lengths:
            self.store.copy_from(FrameStore(other / "frames", name, width, capacity=None))
        self.writer = open_log(self.path, self.search, flat_settings(described))

    @property
    def _stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._interruption.requested

    def close(self) -> None:
        """Closes environments and frees the folder."""
        self._players.close()
        self.writer.close()
        self.folder.close()
        self._interruption.end()

    def run(self) -> bool:
        """All stages; returns False if Ctrl-C ended them early, with everything saved."""
        config = self.config
        stages: tuple[Callable[[int], None], ...] = (
            self._collect,
            self._learn_vision,
            self._encode,
            self._learn_memory,
            self._evolve,
        )
        with self._interruption.listen(lambda text: self.display.say(text)):
            if self.store.unchecked and (config.iterations > 1 or not self.search.generation):
                with self._stage("checking frames", self.store.unchecked, "frames") as display:
                    self.store.verify(display.update)
            for iteration in range(config.iterations):
                for stage in stages:
                    stage(iteration)
                    if self._stop:
                        return False
            self._draw()
        return not self._stop

    def _counters(self, updates: int) -> dict[str, int]:
        """The three counters; steps are those of collecting and of candidates in the real environment."""
        steps = self.store.steps + self.search.played
        return {"env_steps": steps, "frames": steps * self.source.action_repeat, "updates": updates}

    def _log(self, updates: int, metrics: dict[str, float]) -> None:
        """Writes a line that survives a power cut, since the checkpoints which follow it do."""
        counters = self._counters(updates)
        self.writer.write(counters, metrics, log_step({**counters, **metrics}))
        self.writer.flush()

    def _vision_updates(self, iteration: int) -> int:
        return vision_updates(self.config, self.store.lengths, iteration)

    @property
    def updates(self) -> int:
        """Updates of V and M at the end of the iteration in which C evolves."""
        return self._vision_updates(self.search.iteration) + memory_updates(self.config, self.search.iteration)

    @contextlib.contextmanager
    def _stage(self, name: str, total: int, unit: str) -> Iterator[Display]:
        """Shows a stage and adds its wall time to what is known of it."""
        begun = time.monotonic()
        try:
            with Display(f"{name} · {self.source.name}", total, self.visible, unit=unit) as self.display:
                yield self.display
        finally:
            seconds = stage_seconds(self.path)
            seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - begun, 1)
            write_json(self.path / SECONDS_FILE, seconds)

    def _collect(self, iteration: int) -> None:
        config, settings, store = self.config, self.settings, self.store
        wanted = config.episodes(iteration)
        if len(store.lengths) >= wanted:
            return
        policy: Policy = RandomPolicy(self.interface.actions, config.hold, config.collect_policy)
        parameters = None
        if iteration:
            policy, parameters = self._controller_policy(), self.search.evolution.mean
        with self._stage("collecting", wanted, "episodes") as display:
            most = (wanted - len(store.lengths)) * config.collect_steps * store.row_bytes
            free = shutil.disk_usage(self.path).free
            if most > free:
                display.say(
                    f"note: {free / 1e9:.1f} GB are free, and frames may take {most / 1e9:.1f} GB if no episode ends "
                    f"early; should they not fit, lower --collect-episodes"
                )
            collect(
                self._players,
                policy,
                store,
                episodes=wanted,
                longest=config.collect_steps,
                shortest=1 if iteration else config.shortest_episode,
                job=lambda number: Job(episode_seed(settings.seed, COLLECTING, number), parameters),
                progress=lambda episodes: display.update(episodes, f"{store.rows:,} frames"),
                stop=lambda: self._stop,
            )

    def _controller_policy(self) -> ControllerPolicy:
        """V and M on the CPU, where workers play, and C."""
        agent = self.agent if self.device.type == "cpu" else copy.deepcopy(self.agent).cpu()
        return ControllerPolicy(self.config, agent, self.precision)

    def _after_update(self, training: Training, display: Display, before: int) -> Callable[[int], bool]:
        """What follows an update of V or M, before which the other one had so many updates."""
        name = training.path.stem

        def done(updates: int) -> bool:
            if training.losses and training.losses[-1]["update"] == updates:
                losses = {f"loss/{name}/{key}": value for key, value in training.losses[-1].items() if key != "update"}
                self._log(before + updates, losses)
            if training.losses and (updates % 20 == 0 or training.complete):
                terms = (f"{name} {value:.4g}" for name, value in training.losses[-1].items() if name != "update")
                display.update(updates, " · ".join(terms))
            training.save_if_due(self.settings.checkpoint_minutes, force=training.complete or self._stop)
            return self._stop

        return done

    def _training(self, path: Path, module: torch.nn.Module, rate: float, *, total: int, begun: int) -> Training:
        precision, last = self.precision, self.config.anneal_to
        return Training(path, module, rate, total=total, precision=precision, begun=begun, anneal_to=last)

    def _learn_vision(self, iteration: int) -> None:
        config, total = self.config, self._vision_updates(iteration)
        path = self.path / VISION_FILE
        begun, rate = self._vision_updates(iteration - 1), config.vision_learning_rate
        training = self._training(path, self.model.vision, rate, total=total, begun=begun)
        if not config.vision_epochs:
            training.save_if_due(0, force=not path.exists())
        if not training.complete:
            with self._stage("learning to see (V)", total, "updates") as display:
                done = self._after_update(training, display, memory_updates(config, iteration - 1))
                rows, seed = rows_of(self.config, self.store.lengths, iteration), self.settings.seed
                train_vision(
                    training, self.store, rows, batch=config.vision_batch, seed=seed, device=self.device, done=done
                )

    def _encode(self, iteration: int) -> None:
        """Latents of the frames that V saw in this iteration; those of earlier ones are no longer used."""
        before, path = (self.path / latents_file(max(0, i)) for i in (iteration - 1, iteration))
        if any((self.path / latents_file(i)).exists() for i in range(iteration + 1, self.config.iterations)):
            return
        rows = rows_of(self.config, self.store.lengths, iteration)
        same = self.config.keep_vision or not self.config.vision_epochs
        known = open_latents(before, self.config.latent) if iteration and same and before.exists() else None
        with self._stage("encoding frames", rows, "frames") as display:

            def encoded_so_far(done: int) -> bool:
                display.update(done, "latents")
                return self._stop

            self.encoded = encode_frames(
                self.model, self.store, rows, path=path, done=encoded_so_far, precision=self.precision, known=known
            )
        if self.encoded is None:
            return
        self.agent.first_latents.copy_(
            first_latents(self.encoded, self.store.lengths, len(self.agent.first_latents[0]))
        )
        if iteration:
            before.unlink(missing_ok=True)

    def _learn_memory(self, iteration: int) -> None:
        config, settings, total = self.config, self.settings, memory_updates(self.config, iteration)
        path = self.path / MEMORY_FILE
        begun, rate = memory_updates(config, iteration - 1), config.memory_learning_rate
        training = self._training(path, self.model.memory, rate, total=total, begun=begun)
        if config.random_memory:
            training.save_if_due(0, force=not path.exists())
        if training.complete:
            return
        assert self.encoded is not None
        with self._stage("learning to predict (M)", total, "updates") as display:
            train_memory(
                training,
                self.store,
                self.encoded,
                batch=config.memory_batch,
                length=config.memory_length,
                clip=config.memory_clip,
                seed=settings.seed,
                device=self.device,
                done=self._after_update(training, display, self._vision_updates(iteration)),
            )

    def dream(self, temperature: float, seed: int | tuple[int, ...]) -> Dream[Any]:
        """A dream that begins in first frames of collected episodes, with newly drawn latents."""
        generator = np.random.default_rng(seed)
        starts = self.agent.first_states(len(self.agent.first_latents[0]), generator)
        dream = Dream(self.model, starts, 1, temperature=temperature, draw_ends=self.config.draw_ends)
        dream.random = generator
        return dream

    def _evolve(self, iteration: int) -> None:
        config, search = self.config, self.search
        generations = (iteration + 1) * config.generations
        if iteration < search.iteration:
            return
        search.begin(iteration)
        policy = self._controller_policy()
        saved = time.monotonic()
        with self._stage(f"evolving in the {config.evolve_in} (C)", generations, "generations") as display:
            while not self._stop:
                generation = search.generation
                due = generation % config.evaluate_every == 0 or generation == generations
                scored = any(score["generation"] == generation for score in search.scores)
                if search.evolution.generation and due and not scored:
                    self._score(display, policy)
                    search.save()
                if generation >= generations or self._stop:
                    break
                tried = self._try_candidates(generation, policy)
                if tried is None:
                    break
                returns, fitness, info = tried
                search.tell(returns, fitness)
                name = "dream/return" if config.evolve_in == "dream" else "episode/return"
                metrics = {name: returns.mean(), f"{name}_max": returns.max(), "generation": search.generation}
                metrics |= {f"info/{key}": value for key, value in mean_numbers(info).items()}
                self._log(self.updates, metrics)
                note = f"mean return in the {config.evolve_in} {returns.mean():.4g}, best {returns.max():.4g}"
                display.update(search.generation, note)
                if time.monotonic() - saved > self.settings.checkpoint_minutes * 60:
                    search.save()
                    saved = time.monotonic()
            if self._stop:
                search.save()

    def _try_candidates(
        self, generation: int, policy: ControllerPolicy
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, list[float]]] | None:
        """Mean return and fitness of this generation's candidates [P], and the numbers of the info of their episodes.

        None if Ctrl-C cut real episodes short.
        """
        config, settings = self.config, self.settings
        candidates = self.search.evolution.ask()
        if config.evolve_in == "dream":
            dream = self.dream(config.temperature, (settings.seed, 3, generation))
            parameters = torch.from_numpy(candidates).to(self.device, torch.float32)
            returns = self._dreamed(dream, parameters, config.rollouts).mean(1)
            return returns, returns, {}
        first = generation * config.rollouts
        seeds = [episode_seed(settings.seed, EVOLVING, first + r) for r in range(config.rollouts)]
        jobs = [Job(seed, parameters) for parameters in candidates for seed in seeds]
        episodes = self._play(policy, jobs, "playing")
        if len(episodes) < len(jobs):
            return None
        self.search.played += sum(episode.length for episode in episodes)
        measured = np.array([(episode.total, episode.surprise) for episode in episodes])
        returns, surprise = measured.reshape(len(candidates), config.rollouts, 2).mean(1).T
        return returns, returns + config.curiosity * surprise, numbers_of(episodes, self.settings.info)

    @property
    def _limit(self) -> int:
        """Decisions after which a real episode of C is cut off."""
        lengths = self.store.lengths
        return self._time_limit or episode_limit(max(lengths) - 1 if lengths else None)

    def _play(self, policy: ControllerPolicy, jobs: list[Job], doing: str) -> list[Episode]:
        """Real episodes of C, fewer than jobs if Ctrl-C cut them short."""
        episodes: list[Episode] = []
        decisions = 0
        with self.display.busy(doing):
            # An episode of so many decisions has one observation more.
            for episode in self._players.play(policy, jobs, longest=self._limit + 1, stop=lambda: self._stop):
                episodes.append(episode)
                decisions += episode.length
                self.display.watch(Playing(len(episodes), len(jobs), decisions, share=len(episodes) / len(jobs)))
        return episodes

    def _draw(self) -> None:
        """The pictures of the finished run."""
        self.agent.parameters_of_controller.copy_(torch.from_numpy(self.search.evolution.mean))
        assert self.encoded is not None
        seed, temperatures = self.settings.seed, () if self.config.random_memory else TEMPERATURES
        dreams = {temperature: self.dream(temperature, (seed, 4)) for temperature in temperatures}
        videos, title = self.path / "videos", f"{self.config.name} on {self.source.name}"
        pictures = run_pictures(
            self.agent,
            self.source,
            self.store,
            encoded=self.encoded,
            dreams=dreams,
            seed=seed,
            title=title,
            folder=videos,
        )
        with Display(f"drawing · {self.source.name}", len(pictures), self.visible, unit="pictures") as self.display:
            for number, (path, draw) in enumerate(pictures.items(), start=1):
                with self.display.busy(path.name):
                    draw(path)
                self.display.update(number)
                self.display.say(f"drawn: {shown(path)}")

    def _dream_episodes(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns of as many dreamed episodes as an evaluation has real ones, float64 [episodes]."""
        config = self.config
        dream = self.dream(config.temperature, (self.settings.seed, 6, self.search.generation))
        chosen = torch.from_numpy(parameters).to(self.device, torch.float32).unsqueeze(0)
        return self._dreamed(dream, chosen, config.evaluation_episodes)[0]

    def _dreamed(self, dream: Dream[Any], parameters: torch.Tensor, rollouts: int) -> NDArray[np.float64]:
        """Dreamed returns of candidates [P, n] in R rollouts each, computed in the precision of the run: [P, R]."""
        parts, horizon = self.interface.actions, self.config.dream_horizon
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return dreamed_returns(dream, self.controller, parameters, parts=parts, rollouts=rollouts, horizon=horizon)

    def _score(self, display: Display, policy: ControllerPolicy) -> None:
        """Plays real and dreamed episodes with the newest controller; nothing is kept if Ctrl-C cuts them short."""
        search, seed = self.search, self.settings.seed + EVALUATION_SEED
        mean = search.evolution.mean
        jobs = [Job(episode_seed(seed, 0, number), mean) for number in range(self.config.evaluation_episodes)]
        episodes = self._play(policy, jobs, "evaluating")
        if len(episodes) < len(jobs):
            return
        totals, lengths = [e.total for e in episodes], [e.length for e in episodes]
        cut_off = sum(episode.cut_off for episode in episodes)
        result = Evaluation(totals, lengths, deterministic=False, limit=self._limit, cut_off=cut_off)
        result.info = numbers_of(episodes, self.settings.info)
        score = {
            **self._counters(self.updates),
            "generation": search.generation,
            "tried": search.tried,
            **result.to_json(),
        }
        if self.config.evolve_in == "dream":
            values = self._dream_episodes(mean)
            score["dream"] = {"mean": round(values.mean(), 2), "std": round(values.std(), 2), "episodes": len(values)}
        search.add(score)
        self._log(self.updates, {**result.metrics(), "generation": search.generation})
        write_json(self.path / SCORES_FILE, search.scores)
        evolution_curve(search.history, search.scores, self.config.evolve_in, path=self.path / CURVE_FILE)
        display.say(f"drawn: {shown(self.path / CURVE_FILE)}")
        dreamed = f", dreamed {score['dream']['mean']:.1f} ± {score['dream']['std']:.1f}" if "dream" in score else ""
        display.say(f"generation {search.generation}: candidates {search.tried:.1f}{dreamed}, real {result.summary()}")
