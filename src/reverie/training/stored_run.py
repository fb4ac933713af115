"""What the run in a folder brings when it is resumed: its settings, and which of them may change."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reverie.agents.registry import AgentConfig, config_class, preset_values, presets
from reverie.errors import ConfigError, ReverieError
from reverie.spaces import Interface
from reverie.training.files import read_json
from reverie.training.run_folder import CONFIG_FILE, Claim, RunFolder
from reverie.training.settings import MAY_CHANGE


@dataclass(frozen=True)
class StoredRun:
    """What `config.json` of a run says about its settings.

    Attributes:
        preset: the preset that it began with, if the file says so.
        agent_config: settings of the agent.
        settings: settings of the run that must stay the same.
    """

    preset: str | None
    agent_config: Mapping[str, Any]
    settings: Mapping[str, Any]


def stored_run(path: Path, agent: str) -> StoredRun | None:
    """The run of an agent in a folder; None where there is none that can be read, which `RunFolder` explains."""
    try:
        config = read_json(path / CONFIG_FILE) if (path / CONFIG_FILE).is_file() else None
    except ReverieError:
        return None
    if not isinstance(config, dict) or config.get("agent") != agent:
        return None
    own, settings, preset = config.get("agent_config"), config.get("settings"), config.get("preset")
    return StoredRun(
        preset if isinstance(preset, str) else None,
        own if isinstance(own, dict) else {},
        {k: v for k, v in settings.items() if k not in MAY_CHANGE} if isinstance(settings, dict) else {},
    )


def run_defaults(
    agent: str,
    asked: str | None,
    usual: str,
    stored: StoredRun | None,
    interface: Interface | None = None,
    steps: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """The preset of a run, and the values of all settings that nobody chooses.

    A run that is there keeps the settings that it has, also where a later version has other presets; settings that its
    version did not know have their defaults, which do what that version did. Only another preset replaces them.
    In a run that is shorter than its preset's the preset's warm-up takes at most a fifth of the steps.

    Args:
        agent: its name.
        asked: the preset that was asked for.
        usual: the preset of a run that names none.
        stored: the run that is there.
        interface: of the task, whose kind brings values of its own.
        steps: of the run, where they were chosen.

    Returns:
        The preset, and settings of agent and run by name.

    Raises:
        ConfigError: the agent has no such preset, or the run has a setting that this version does not know.
    """
    preset = asked or (stored.preset if stored else None) or usual
    if stored is None or asked not in (None, stored.preset):
        values = preset_values(agent, preset, interface)
        if steps is not None and "warmup_steps" in values and steps < values.get("steps", 0):
            values["warmup_steps"] = max(1, min(values["warmup_steps"], steps // 5))
        return preset, values
    cls = config_class(agent)
    defaults = asdict(cls())
    unknown = sorted(stored.agent_config.keys() - defaults.keys())
    if unknown:
        raise ConfigError(
            f"the run has the setting {unknown[0]} = {stored.agent_config[unknown[0]]!r}, which {agent} of this "
            f"version does not know: resume it with the version that {CONFIG_FILE} names, or choose another --run"
        )
    usual_values = preset_values(agent, preset, interface) if preset in presets(agent) else {}
    own = {name: value for name, value in usual_values.items() if name not in defaults}
    return preset, {**own, **stored.settings, **defaults, **stored.agent_config}


def changed_settings(
    folder: RunFolder, claim: Claim, config: AgentConfig, interface: Interface, may_change: bool
) -> dict[str, list[Any]]:
    """The settings with which a run continues, name -> old and new value.

    Args:
        folder: of the run.
        claim: says what differs.
        config: the agent's settings as they are asked for.
        interface: of the task.
        may_change: somebody asked for other settings than those of the run.

    Raises:
        RunFolderError: a setting differs that may not change, since nobody asked or since stored tensors depend on it.
    """
    own = {name: both for (section, name), both in claim.differences.items() if section == "agent_config"}
    others = {key: both for key, both in claim.differences.items() if key[0] != "agent_config"}
    if others or not may_change:
        hint = "" if others else ", or --change (in Python run=... or change=True) to continue with the new value"
        folder.refuse(replace(claim, differences=others or claim.differences), hint)
    tied = _tied_to_tensors({name: there for name, (there, _) in own.items()}, config, interface)
    refused = {key: both for key, both in claim.differences.items() if key[1] in tied}
    folder.refuse(replace(claim, differences=refused), f"; the stored tensors depend on {', '.join(tied)}")
    for name, (there, here) in own.items():
        warnings.warn(f"{folder.path} continues with {name} {here!r} instead of {there!r}", stacklevel=4)
    return {name: [there, here] for name, (there, here) in own.items()}


def _tied_to_tensors(before: Mapping[str, Any], config: AgentConfig, interface: Interface) -> list[str]:
    """Those of the settings, with their stored values, on which weights, optimizer state or replay rows depend."""
    with torch.random.fork_rng([]):
        wanted = _tensors(config, interface)
        return [
            name
            for name, value in sorted(before.items())
            if _tensors(replace(config, **{name: value}), interface) != wanted  # type: ignore[type-var]
        ]


def _tensors(config: AgentConfig, interface: Interface) -> dict[str, Any]:
    """Name -> shape of all tensors that a checkpoint holds, and the latents beside every row of the replay."""
    try:
        agent = config.build(interface)
    except ReverieError:
        return {}
    optimizer = config.build_optimizer(agent)
    shapes: dict[str, Any] = {name: tuple(value.shape) for name, value in agent.state_dict().items()}
    shapes |= {f"optimizer {name}": tuple(value.shape) for name, value in optimizer.state_tensors().items()}
    return shapes | {f"row {name}": field for name, field in agent.latent_fields.items()}
