"""Loading a trained agent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from reverie.api.learner import Environment, Learner
from reverie.api.learners import learner_class
from reverie.envs import EnvironmentSource
from reverie.errors import ConfigError
from reverie.training.device import choose_device
from reverie.training.model_files import load_model
from reverie.typed_values import checked_arguments


@checked_arguments
def load(
    path: str | Path,
    *,
    environment: Environment | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    pixels: bool | None = None,
    image_size: int | tuple[int, int] | None = None,
    action_repeat: int | None = None,
    time_limit: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
    parts: Mapping[str, str] | None = None,
    ignore: Collection[str] | None = None,
    trust_environment: bool = False,
) -> Learner:
    """A trained agent, ready to act, evaluate, dream or continue learning.

    What is given about the environment counts, and the rest comes from the folder. An `EnvironmentSource` is used as it
    is. The environment is made when it is needed: `predict` and `latents` do without it.

    Args:
        path: what `save` wrote, or a run folder.
        environment: where the agent was trained on an environment object or function, which no file can hold, or in
            a module that must be imported first, it is needed for all but `predict` and `latents`.
        checkpoint: in a run folder `best`, `latest`, or the name of a checkpoint.
        device: auto, cpu, cuda or cuda:N.
        pixels: observe rendered frames, or not.
        image_size: resize images to this side, or (height, width).
        action_repeat: environment frames per action.
        time_limit: truncate episodes after this many frames.
        kwargs: keyword arguments for the constructor or function.
        parts: name of an observation part -> what it is.
        ignore: names of observation parts to leave out.
        trust_environment: import the module that the folder names, where the environment is `module:Id`. Importing runs
            its code, so it is not done for a folder of somebody else without being asked.

    Raises:
        CheckpointError: files are missing, damaged, or do not fit each other.
        ConfigError: the environment given has other spaces, or settings were given beside an `EnvironmentSource`.
    """
    target = choose_device(device)
    agent, description = load_model(Path(path), target, checkpoint)
    stored = description["environment"]
    # A folder of an older version does not tell what the parts are, but the agent does.
    known = {"parts": {part.name: part.kind for part in agent.interface.observations}, **stored}
    source = EnvironmentSource.from_json(
        known,
        environment,
        trusted=trust_environment,
        pixels=pixels,
        image_size=image_size,
        action_repeat=action_repeat,
        time_limit=time_limit,
        kwargs=kwargs,
        parts=parts,
        ignore=ignore,
    )
    as_stored = environment is None and (pixels, image_size, kwargs, parts, ignore) == (None,) * 5
    if as_stored and isinstance(description.get("spaces"), dict):
        source.translator(description["spaces"])  # from now on the recipe knows its spaces
    cls = learner_class(description["agent"])
    own = {field.name for field in fields(cls.settings_class)} - {"seed", "device"}
    kept = {key: value for key, value in description.get("settings", {}).items() if key in own}
    learner = cls(source, seed=description["seed"], run=path, device=device, **description["agent_config"], **kept)
    if learner.interface.to_json() != agent.interface.to_json():
        raise ConfigError(
            f"the agent in {path} was trained on other observations or actions than those of {source.name}; "
            f"pass the environment it was trained on"
        )
    learner._stored_environment = stored if as_stored else None
    if "settings" in description:
        learner._code_of_run = stored.get("code") if environment is not None else None
    else:
        learner._saved_in = Path(path)
    learner.agent, learner._updates = agent, description.get("updates")
    learner._trained = True
    learner._longest_episode = description.get("longest_episode")
    if learner._vectorization == "auto":
        learner._vectorization = description.get("vectorization") or "auto"
    return learner
