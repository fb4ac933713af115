"""One Gymnasium environment, spoken to in parts."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.envs.action_codec import ActionVariable
from reverie.envs.calls import CLOSING_SECONDS, WATCH, Calls
from reverie.envs.ignored_parts import WithoutParts, without_parts
from reverie.envs.spaces import ActionCodec, ObservationCodec
from reverie.envs.wrappers import ActionRepeat, RenderedObservation, ResizeImages
from reverie.errors import EnvironmentProblem
from reverie.spaces import Interface


class EnvironmentAdapter:
    """Wraps one `gymnasium.Env`, translates to and from parts, and checks that it honors its contract.

    Args:
        environment: the environment; it must not reset itself.
        action_repeat: how many times each action is applied; rewards are summed, and the end of the episode stops it.
        name: what to call the environment in messages.
        owns_environment: whether `close` also closes the environment.
        parts: name of an observation part -> what it is, see `ObservationCodec`.
        calls: runs its code, as it did when the environment was made; by default begins with nothing known of it.

    Attributes:
        environment: the wrapped environment.
        interface: its observation and action parts.
        action_repeat: how many times each action is applied, counting `ActionRepeat` wrappers that are already there.
        time_limit: steps of this adapter after which a time limit of Gymnasium truncates episodes, None without one.

    Raises:
        SpaceError: if an observation or action space is not supported.
        EnvironmentProblem: if `environment` is not a `gymnasium.Env`.
        ConfigError: if `parts` names a part that is not there.
    """

    def __init__(
        self,
        environment: gymnasium.Env[Any, Any],
        *,
        action_repeat: int = 1,
        name: str | None = None,
        owns_environment: bool = True,
        parts: Mapping[str, str] | None = None,
        calls: Calls | None = None,
    ) -> None:
        if not isinstance(environment, gymnasium.Env):
            raise not_an_environment(environment)
        if isinstance(environment, ResizeImages):
            parts = environment.parts
        environment, notice = without_parts(environment, parts=parts)
        if notice is not None:
            warnings.warn(notice, stacklevel=2)
        if action_repeat != 1:
            environment = ActionRepeat(environment, action_repeat)
        self.environment = environment
        self.name = name or _name_of(environment)
        self._calls = calls or Calls(self.name)
        self.action_repeat = _total_repeat(environment)
        self.time_limit = _time_limit(environment)
        self._observations = ObservationCodec(environment.observation_space, parts)
        self._actions = ActionCodec(environment.action_space)
        self.interface = Interface(self._observations.parts, self._actions.parts)
        self._converters = _converters(environment)
        self._owns_environment = owns_environment
        self._episode_runs = False

    def reset(self, seed: int) -> dict[str, NDArray[Any]]:
        """Begin an episode.

        Args:
            seed: seed of the episode, 0 or more.

        Returns:
            The first observation: for each part a new array of its shape and dtype.

        Raises:
            EnvironmentProblem: if the environment raises or breaks its contract.
        """
        self._episode_runs = False
        result = self._calls.run("reset", self.environment.reset, seed=int(seed))
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            raise EnvironmentProblem(
                f"reset of {self.name} returned a {type(result).__name__}, but Gymnasium asks for (observation, info): "
                f"update the environment from the old gym interface"
            )
        observation = self._observations.encode(result[0])
        self._episode_runs = True
        return observation

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], np.float32, bool, bool, dict[str, Any]]:
        """Take one step (`action_repeat` frames).

        Args:
            action: flat action vector, float32 [A].

        Returns:
            The observation as from `reset`, the summed reward, terminated, truncated and the info of the environment.

        Raises:
            EnvironmentProblem: if no episode runs, the action is not finite or of another shape, or the environment
                raises or breaks its contract.
        """
        if not self._episode_runs:
            raise EnvironmentProblem(f"step of {self.name} was called while no episode runs: call reset first")
        decoded = self._actions.decode(action)
        result: Any = self._calls.run("step", self.environment.step, decoded)
        if not isinstance(result, tuple) or len(result) != 5:
            length = f" of {len(result)}" if isinstance(result, tuple) else ""
            raise EnvironmentProblem(
                f"step of {self.name} returned a {type(result).__name__}{length}, but Gymnasium asks for (observation, "
                f"reward, terminated, truncated, info): update the environment from the old gym interface"
            )
        raw_observation, raw_reward, terminated, truncated, info = result
        observation = self._observations.encode(raw_observation)
        reward = self._checked_reward(raw_reward)
        terminated = self._checked_flag("terminated", terminated)
        truncated = self._checked_flag("truncated", truncated)
        self._episode_runs = not (terminated or truncated)
        return observation, reward, terminated, truncated, info

    def encode_observation(self, observation: Any) -> dict[str, NDArray[Any]]:
        """Part arrays of an observation of the environment, or of a frame of `render()` where frames are observed.

        Images may have the size that the environment gives them; see `ObservationCodec.encode`.
        """
        for wrapper in self._converters:
            observation = wrapper.converted(observation)
        return self._observations.encode(observation)

    def decode_observation(self, parts: Mapping[str, NDArray[Any]]) -> Any:
        """The observation nearest to part arrays; see `ObservationCodec.decode`."""
        return self._observations.decode(parts)

    def decode_action(self, action: NDArray[np.float32]) -> Any:
        """Gymnasium action of a flat vector [A]; see `ActionCodec.decode`."""
        return self._actions.decode(action)

    @property
    def action_variables(self) -> tuple[ActionVariable, ...]:
        """Every number of an action, and where the flat vector holds it."""
        return self._actions.variables

    def encode_action(self, action: Any) -> NDArray[np.float32]:
        """Flat vector, float32 [A], of a Gymnasium action; see `ActionCodec.encode`."""
        return self._actions.encode(action)

    def render(self) -> NDArray[np.uint8] | None:
        """The current frame, uint8 [H, W, 3], or None if the environment was made without `rgb_array` rendering.

        Raises:
            EnvironmentProblem: if the environment raises.
        """
        if self.environment.render_mode != "rgb_array":
            return None
        frame: Any = self._calls.run("render", self.environment.render)
        return None if frame is None else np.array(frame)

    def close(self) -> None:
        """Release the environment; one that the caller made and handed over stays open.

        Errors are only warned about, since nothing depends on it anymore.
        """
        self._episode_runs = False
        if self._owns_environment:
            close_environment(self.environment, self._calls)

    def _checked_flag(self, name: str, flag: Any) -> bool:
        """`terminated` or `truncated` as bool."""
        if isinstance(flag, bool | np.bool_):
            return bool(flag)
        try:
            array = np.asarray(flag)
        except (TypeError, ValueError, RuntimeError):  # e.g. a tensor on a GPU
            array = np.empty(0)
        if array.dtype != np.bool_ or array.shape != ():
            raise EnvironmentProblem(
                f"{name} of {self.name} is {flag!r}, but it must be True or False (bool or numpy.bool_): correct the "
                f"environment's step"
            )
        return bool(array)

    def _checked_reward(self, reward: Any) -> np.float32:
        """The reward as a finite float32."""
        try:
            array = np.asarray(reward)
            if array.dtype.kind not in "fiub" and not isinstance(reward, numbers.Real | Decimal):
                raise self._bad_reward(reward)
            array = array.astype(np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._bad_reward(reward) from error
        with np.errstate(over="ignore"):
            cast = array.astype(np.float32).reshape(-1)
        if cast.size != 1 or not np.isfinite(cast[0]):
            raise self._bad_reward(reward)
        return cast[0]

    def _bad_reward(self, reward: Any) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"the reward of {self.name} is {reward!r}, but it must be one finite number: correct the environment's step"
        )


def close_environment(environment: gymnasium.Env[Any, Any], calls: Calls) -> None:
    """Closes an environment, within `CLOSING_SECONDS`; whatever goes wrong is a warning."""
    try:
        with WATCH.looking():
            calls.run("close", environment.close, limit=CLOSING_SECONDS)
    except EnvironmentProblem as problem:
        warnings.warn(f"{problem}; nothing else is lost by that", RuntimeWarning, stacklevel=3)


def not_an_environment(environment: Any) -> EnvironmentProblem:
    """The error for an object that is not a `gymnasium.Env`."""
    kind = f"{type(environment).__module__}.{type(environment).__qualname__}"
    if isinstance(environment, gymnasium.vector.VectorEnv):
        remedy = "pass a single environment; reverie makes the vector itself"
    elif hasattr(environment, "reset") and hasattr(environment, "step"):
        remedy = "it follows another interface such as old gym or dm_env; wrap it with shimmy or a small gymnasium.Env"
    else:
        remedy = "pass an environment id, a gymnasium.Env, or a function that returns one"
    return EnvironmentProblem(f"got an object of type {kind}, but expected a gymnasium.Env: {remedy}")


def _name_of(environment: gymnasium.Env[Any, Any]) -> str:
    """The id of the environment, or the name of its class."""
    spec = environment.spec
    return spec.id if spec is not None else type(environment.unwrapped).__name__


def _converters(environment: gymnasium.Env[Any, Any]) -> list[WithoutParts | ResizeImages | RenderedObservation]:
    """The outermost wrappers as far as they are those that change observations, in the order in which they do so."""
    found: list[WithoutParts | ResizeImages | RenderedObservation] = []
    while isinstance(environment, WithoutParts | ResizeImages | RenderedObservation):
        found.insert(0, environment)
        environment = environment.env
    return found


def _total_repeat(environment: gymnasium.Env[Any, Any]) -> int:
    """Product of the repeats of all `ActionRepeat` wrappers."""
    total = 1
    current: Any = environment
    while isinstance(current, gymnasium.Wrapper):
        if isinstance(current, ActionRepeat):
            total *= current.repeat
        current = current.env
    return total


def _time_limit(environment: gymnasium.Env[Any, Any]) -> int | None:
    """The lowest time limit among the wrappers, in steps of the outermost one."""
    lowest: int | None = None
    repeat = 1
    current: Any = environment
    while isinstance(current, gymnasium.Wrapper):
        if isinstance(current, ActionRepeat):
            repeat *= current.repeat
        elif isinstance(current, gymnasium.wrappers.TimeLimit):
            steps = math.ceil(current._max_episode_steps / repeat)
            lowest = steps if lowest is None else min(lowest, steps)
        current = current.env
    return lowest
