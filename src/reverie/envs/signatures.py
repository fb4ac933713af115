"""What the function or class of an environment takes, and how it renders."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium


def takes_render_mode(function: Callable[..., Any]) -> bool:
    """True if the function names a parameter `render_mode`."""
    try:
        return "render_mode" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def render_modes(environment_id: str) -> list[str] | None:
    """The render modes that the class of an id declares, or None if it declares nothing."""
    entry_point = gymnasium.spec(environment_id.rpartition(":")[2]).entry_point
    creator = gymnasium.envs.registration.load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    metadata = getattr(creator, "metadata", None)
    return metadata.get("render_modes") if isinstance(metadata, dict) else None


def fitting(kwargs: Mapping[str, Any], environment: Any) -> dict[str, Any]:
    """The stored keyword arguments that an environment given in the place of the stored one can be made with."""
    if isinstance(environment, gymnasium.Env):
        return {}
    if environment is None or isinstance(environment, str):
        return dict(kwargs)
    try:
        parameters = inspect.signature(environment).parameters
    except (TypeError, ValueError):
        return dict(kwargs)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    bound = getattr(environment, "keywords", {})
    return {key: value for key, value in kwargs.items() if key not in bound and (takes_all or key in parameters)}
