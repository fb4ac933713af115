"""Agents by name. A new agent of ours is one file beside this one, a line here, and a class in `reverie.api.learners`.

Agents of other packages come by `register_agent`, or by the entry-point group `reverie.agents`, with which the command
line finds them, too.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.agents.schedule import Schedule
from reverie.agents.setting_names import nearest_name
from reverie.errors import ConfigError
from reverie.optim.base import Optimizer
from reverie.spaces import Interface
from reverie.typed_values import plain

AGENTS = {
    "dreamer-v3": "reverie.agents.dreamer_v3:DreamerV3Config",
    "dreamer-v3-2023": "reverie.agents.dreamer_v3_2023:DreamerV3In2023Config",
    "dreamer-v2": "reverie.agents.dreamer_v2:DreamerV2Config",
    "dreamer-v1": "reverie.agents.dreamer_v1:DreamerV1Config",
    "planet": "reverie.agents.planet:PlaNetConfig",
}
"""Name on the command line -> module and configuration class."""

PIPELINES = {"world-models": "reverie.agents.world_models:WorldModelsConfig"}
"""The same for agents that are trained in stages (`reverie.training.pipeline`) instead of by the loop."""

ENTRY_POINTS = "reverie.agents"
"""Group of the entry points by which installed packages bring agents: name -> module:ConfigurationClass."""
_registered: dict[str, type[Any]] = {}

C = TypeVar("C", bound=type[Any])


class AgentConfig(Protocol):
    """What the training loop asks of every agent's configuration."""

    name: ClassVar[str]
    batch_size: int
    batch_length: int
    replay_capacity: int

    def schedule(self) -> Schedule:
        """When to learn."""

    def build(self, interface: Interface) -> ImaginationAgent:
        """Composes the agent for an environment's observations and actions."""

    def build_optimizer(self, agent: ImaginationAgent) -> Optimizer:
        """The optimizer of an agent that is on its device."""


def register_agent(config: C) -> C:
    """Makes an agent of another package known by its name; also as a decorator.

    Its module may have `PRESETS`, `BY_KIND`, `RECIPES` and `ACTION_REPEATS` as those of our agents have.

    Args:
        config: frozen dataclass as `AgentConfig` describes it.

    Raises:
        ConfigError: the class lacks something, or the name belongs to another agent.
    """
    name = getattr(config, "name", None)
    lacking = [method for method in ("schedule", "build", "build_optimizer") if not hasattr(config, method)]
    if not isinstance(name, str) or not is_dataclass(config) or lacking:
        what = f"a method {lacking[0]}" if lacking else "a name" if not isinstance(name, str) else "@dataclass"
        raise ConfigError(f"{config.__name__} cannot be registered as an agent: it lacks {what}, see AgentConfig")
    other = _registered.get(name, config)
    if name in AGENTS | PIPELINES or (other.__module__, other.__qualname__) != (config.__module__, config.__qualname__):
        raise ConfigError(f"an agent is called {name!r} already; give {config.__name__} another name")
    _registered[name] = config
    return config


def agent_names() -> list[str]:
    """All agents: ours, those that were registered, and those of installed packages."""
    brought = [point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    return list(dict.fromkeys([*AGENTS, *PIPELINES, *_registered, *brought]))


def config_class(name: str) -> type[Any]:
    """The configuration class of an agent.

    Raises:
        ConfigError: no agent has this name, or an installed package brings one that cannot be used.
    """
    if name in _registered:
        return _registered[name]
    if name in AGENTS | PIPELINES:
        module, attribute = (AGENTS | PIPELINES)[name].split(":")
        return getattr(importlib.import_module(module), attribute)
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        try:
            return register_agent(point.load())
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"the agent {name!r} of an installed package cannot be imported ({error}); install that package again"
            ) from error
    known = agent_names()
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}"
    raise ConfigError(f"no agent is called {name!r}; {hint}")


def presets(name: str) -> dict[str, dict[str, Any]]:
    """Named sets of values of an agent; `paper` is empty, for the defaults are the paper's."""
    return getattr(_module(name), "PRESETS", {"paper": {}})


def _module(name: str) -> ModuleType:
    """The file of an agent."""
    return importlib.import_module(config_class(name).__module__)


def default_preset(name: str, device: str) -> str:
    """The preset of a run that names none: `quick` on a CPU if the agent has it, else `paper`.

    Args:
        name: of the agent.
        device: kind of device, `cpu` or `cuda`.
    """
    return "quick" if device == "cpu" and "quick" in presets(name) else "paper"


def recipe(name: str, environment: str, preset: str | None, device: str = "cpu") -> tuple[str, str | None]:
    """The environment as the agent's paper saw it, and the preset; both as they are for other tasks.

    Args:
        name: of the agent.
        environment: id; the tasks of the paper go by several names.
        preset: that was asked for; with None a task of the paper brings its own, on a CPU the small one. A preset for
            other tasks leaves the environment as it is.
        device: kind of device that it is for.
    """
    known = getattr(_module(name), "RECIPES", {})
    if environment not in known:
        return environment, preset
    seen, own = known[environment]
    small = f"{own}-small"
    chosen = preset or (small if device == "cpu" and small in presets(name) else own)
    return (seen if chosen.startswith(own) else environment), chosen


def action_repeat(name: str, environment: Any) -> int:
    """Environment frames per action in the agent's paper for one of its tasks, given by its id; 1 for all others."""
    known = getattr(_module(name), "ACTION_REPEATS", {}) if isinstance(environment, str) else {}
    return next((count for start, count in known.items() if environment.startswith(start)), 1)


def kinds(interface: Interface) -> set[str]:
    """What presets ask of a task.

    Returns:
        `pictures` or `vectors`; `symbols`, too, where every observation is one of some classes; and `continuous` or
        `discrete` for its actions.
    """
    pictures = any(part.kind == "image" for part in interface.observations)
    continuous = all(part.kind == "continuous" for part in interface.actions)
    symbols = all(part.kind == "discrete" for part in interface.observations)
    seen = {"pictures"} if pictures else {"vectors", "symbols"} if symbols else {"vectors"}
    return seen | {"continuous" if continuous else "discrete"}


def preset_values(name: str, preset: str, interface: Interface | None = None) -> dict[str, Any]:
    """The values of one preset: settings of the agent, and `steps` and `num_envs` of the run where it has them.

    Args:
        name: of the agent.
        preset: its name.
        interface: of the task, whose kind brings further values; without it only what holds for all tasks.

    Raises:
        ConfigError: the agent has no preset of that name.
    """
    known = presets(name)
    if preset not in known:
        raise ConfigError(f"{name} has no preset {preset!r}; choose one of {', '.join(known)}")
    values = dict(known[preset])
    if interface is not None:
        for kind, more in getattr(_module(name), "BY_KIND", {}).get(preset, {}).items():
            if set(kind.split()) <= kinds(interface):
                values |= more
    return values


def make_config(
    name: str, values: Mapping[str, Any], preset: str | None = "paper", interface: Interface | None = None
) -> Any:
    """A configuration from plain values on top of a preset, checked.

    Args:
        name: of the agent.
        values: settings by name.
        preset: whose values hold where `values` has none; None for the defaults.
        interface: of the task; see `preset_values`.

    Raises:
        ConfigError: an unknown setting (the nearest right one is named) or a value that cannot work.
    """
    cls = config_class(name)
    known = [field.name for field in fields(cls)]
    for key in values:
        if key not in known:
            meant = nearest_name(key, known)
            hint = f"did you mean {meant!r}?" if meant else f"it has {', '.join(known)}"
            raise ConfigError(f"{name} has no setting {key!r}; {hint}")
    usual = {} if preset is None else preset_values(name, preset, interface)
    own = {key: value for key, value in usual.items() if key in known}
    config = cls(**{name: plain(value) for name, value in {**own, **values}.items()})
    if name not in PIPELINES:
        check_config(config)
    return config


def agent_settings(agent: str, settings: Mapping[str, Any], own: set[str]) -> dict[str, Any]:
    """The settings that are not the run's own.

    Args:
        agent: its name.
        settings: of agent and run.
        own: names of those of the run.

    Raises:
        ConfigError: a name is neither's.
    """
    known = own | {field.name for field in fields(config_class(agent))}
    for key in settings:
        if key not in known:
            meant = nearest_name(key, known)
            hint = f"did you mean {meant!r}?" if meant else "see TrainSettings and the agent's configuration"
            raise ConfigError(f"{agent} has no setting {key!r}; {hint}")
    return {key: value for key, value in settings.items() if key not in own}


SHARES = {"uniform_mix", "actor_uniform_mix", "return_mix", "slow_critic_rate", "discount", "dynamics_share"}
SHARES |= {"kl_balance", "epsilon", "final_epsilon"}
"""Settings that lie between 0 and 1."""
MAY_BE_ZERO = {"warmup_steps", "learning_rate_warmup", "replay_context", "entropy", "free_nats", "dynamics_scale"}
MAY_BE_ZERO |= {"representation_scale", "slow_critic_weight", "replay_value_scale", *SHARES}
MAY_BE_ZERO |= {"kl_scale", "overshooting_scale", "global_prior_scale", "action_noise", "epsilon_decay", "weight_decay"}
MAY_BE_ZERO |= {"first_updates", "learning_rate_decay", "learning_rate_floor"}
"""Settings that 0 switches off; all others are greater."""
MOST = {"horizon": 10_000, "overshooting_distance": 10_000}
MOST_WHOLE = 10**12
"""Maximum values of settings for which memory is taken, and of all whole numbers."""


def check_config(config: AgentConfig) -> None:
    """Refuses values that no agent can work with.

    Raises:
        ConfigError: says which, and what was expected.
    """
    kinds = get_type_hints(type(config))
    for field in fields(config):  # type: ignore[arg-type]
        value, kind = getattr(config, field.name), kinds[field.name]
        if value is not None and str(field.type).startswith(("int", "float")):
            _check_number(field.name, value, whole=str(field.type).startswith("int"))
        elif kind is bool and not isinstance(value, bool):
            raise ConfigError(f"{field.name} must be true or false, got {value!r}")
        elif get_origin(kind) is Literal and value not in get_args(kind):
            raise ConfigError(f"{field.name} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}")
    if config.batch_length < 2:
        raise ConfigError(f"batch_length must be at least 2 to learn dynamics, got {config.batch_length}")


def _check_number(name: str, value: Any, whole: bool) -> None:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not abs(value) < math.inf:
        raise ConfigError(f"{name} must be a {'whole' if whole else 'finite'} number, got {value!r}")
    if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
        least = "not be negative" if name in MAY_BE_ZERO else "be greater than zero"
        raise ConfigError(f"{name} must {least}, got {value}")
    if name in SHARES and value > 1:
        raise ConfigError(f"{name} must lie between 0 and 1, got {value}")
    most = MOST.get(name, MOST_WHOLE)
    if whole and value > most:
        raise ConfigError(f"{name} must be at most {most:,}, got {value}")
    if name == "replay_context" and value > 1:
        raise ConfigError(f"replay_context must be 0 or 1, got {value}")
    if name == "image_bits" and value > 8:
        raise ConfigError(f"image_bits must be 1 to 8, got {value}")
    if name == "discount_horizon" and value <= 1:
        raise ConfigError(f"discount_horizon must be greater than 1 step, got {value}")
