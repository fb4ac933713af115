"""The world model as an environment: agents of any kind can act, and learn, in its dreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from reverie.dream.dream import Dream
from reverie.dream.pictures import dream_frame
from reverie.dream.scene import Scene
from reverie.envs import EnvironmentAdapter
from reverie.errors import ConfigError

DreamObservation = Literal["decoded", "latent"]


class _Translation:
    """Spaces and observations that both environments share.

    Args:
        dream: the lanes.
        adapter: of the real environment, whose spaces are offered and whose actions are understood.
        horizon: steps after which an episode is truncated.
        observation: `decoded`, observations of the real environment as the model draws them, or `latent`, the
            features of the state.
        render_mode: None or `rgb_array`.
    """

    def __init__(
        self,
        dream: Dream,
        adapter: EnvironmentAdapter,
        horizon: int,
        observation: DreamObservation,
        render_mode: str | None,
    ) -> None:
        if horizon < 1:
            raise ConfigError(f"horizon must be at least 1, got {horizon}")
        if observation not in ("decoded", "latent"):
            raise ConfigError(f"observation must be 'decoded' or 'latent', got {observation!r}")
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.dream, self.adapter, self.horizon, self.observation = dream, adapter, horizon, observation
        self.action_space = adapter.environment.action_space
        if observation == "latent":
            width = dream.world_model.features
            self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        else:
            self.observation_space = adapter.environment.observation_space
        self.lengths = np.zeros(dream.lanes, np.int64)
        self.render_mode = render_mode
        self._scene = Scene.of(adapter) if render_mode else Scene()
        self._seen: list[list[dict[str, NDArray[Any]]]] = [[] for _ in range(dream.lanes)]
        self._actions: list[Any] = [None] * dream.lanes
        self._closed = False

    def begin(self, mask: NDArray[np.bool_]) -> None:
        """Begins an episode in every lane where `mask` [E] is true."""
        self._refuse_if_closed()
        self.dream.begin(mask)
        self.lengths[mask] = 0
        for lane in np.flatnonzero(mask):
            self._seen[lane], self._actions[lane] = [], None

    def step(
        self, actions: Sequence[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
        """Moves all lanes: rewards, terminated, truncated and probabilities of continuing, [E] each.

        Raises:
            ConfigError: there is not one action for each lane, or the environment was closed.
        """
        self._refuse_if_closed()
        if len(actions) != self.dream.lanes:
            raise ConfigError(f"got {len(actions)} actions for {self.dream.lanes} dreams; give one for each")
        rewards, terminated, going_on = self.dream.step(
            np.stack([self.adapter.encode_action(action) for action in actions])
        )
        self.lengths += 1
        self._actions = list(actions)
        return rewards, terminated, ~terminated & (self.lengths >= self.horizon), going_on

    def observations(self) -> list[Any]:
        """The observation of every lane."""
        parts = self.dream.decode() if self.render_mode or self.observation == "decoded" else {}
        if self.render_mode:
            for lane, seen in enumerate(self._seen):
                seen.append({name: value[lane] for name, value in parts.items()})
        if self.observation == "latent":
            return list(self.dream.features().cpu().numpy())
        return [
            self.adapter.decode_observation({name: value[lane] for name, value in parts.items()})
            for lane in range(self.dream.lanes)
        ]

    def close(self) -> None:
        """Nothing can be dreamed anymore."""
        self._closed = True

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigError("this dream was closed; make another one with dream_env")

    def frame(self, lane: int) -> NDArray[np.uint8]:
        """A picture of what a lane dreams now."""
        if not self._seen[lane]:
            raise ConfigError("there is nothing to render yet: call reset first")
        if self._scene.renderer is not None:
            observation = self.adapter.decode_observation(self._seen[lane][-1])
            return self._scene.renderer.frame(observation, self._actions[lane])
        return dream_frame(self._seen[lane], self._scene.names)


class DreamEnv(gymnasium.Env[Any, Any]):
    """One dream as a Gymnasium environment; `Learner.dream_env` makes it.

    An episode begins in one of the starts. Each step imagines the next latent state, with the reward that the model
    expects. The episode is terminated with the probability that the model gives to its end, and truncated after
    `horizon` steps. `info["continue"]` is the probability with which it continued.

    Args:
        dream: with one lane.
        adapter: of the real environment, whose spaces are offered and whose actions are understood.
        horizon: steps after which an episode is truncated.
        observation: `decoded`, as the model draws the real environment's observations, or `latent`, features [F].
        render_mode: None or `rgb_array`.

    Raises:
        ConfigError: a setting is out of range, or the dream has several lanes.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}

    def __init__(
        self,
        dream: Dream,
        adapter: EnvironmentAdapter,
        *,
        horizon: int = 100,
        observation: DreamObservation = "decoded",
        render_mode: str | None = None,
    ) -> None:
        if dream.lanes != 1:
            raise ConfigError(f"a single environment dreams in one lane, got {dream.lanes}: use DreamVectorEnv")
        self._translation = _Translation(dream, adapter, horizon, observation=observation, render_mode=render_mode)
        self.observation_space, self.action_space = self._translation.observation_space, self._translation.action_space
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in a start drawn at random."""
        super().reset(seed=seed)
        self._translation.dream.random = self.np_random
        self._translation.begin(np.ones(1, np.bool_))
        return self._translation.observations()[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One imagined step."""
        rewards, terminated, truncated, going_on = self._translation.step([action])
        observation = self._translation.observations()[0]
        return (
            observation,
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {"continue": float(going_on[0])},
        )

    def render(self) -> NDArray[np.uint8] | None:
        """What is dreamed now, uint8 [H, W, 3]; None without a render mode.

        Images are enlarged. Classic tasks are drawn by their own renderers (see `StateRenderer`), and the numbers of
        all others as curves.
        """
        return self._translation.frame(0) if self.render_mode else None

    def close(self) -> None:
        """Nothing can be dreamed anymore."""
        self._translation.close()


class DreamVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Several dreams as a Gymnasium vector environment, all lanes in one batch; otherwise like `DreamEnv`.

    A lane whose episode has ended begins a new one at the next step, which ignores its action (next-step autoreset).
    The arguments are those of `DreamEnv`, but `dream` may have any number of lanes.
    """

    metadata = {
        "render_modes": ["rgb_array"],
        "render_fps": 12,
        "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        dream: Dream,
        adapter: EnvironmentAdapter,
        *,
        horizon: int = 100,
        observation: DreamObservation = "decoded",
        render_mode: str | None = None,
    ) -> None:
        self._translation = _Translation(dream, adapter, horizon, observation=observation, render_mode=render_mode)
        self.num_envs = dream.lanes
        self.single_observation_space = self._translation.observation_space
        self.single_action_space = self._translation.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.render_mode = render_mode
        self._ended = np.zeros(self.num_envs, np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in every lane; a list of seeds counts by its first entry, since lanes share one stream."""
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        self._translation.dream.random = self.np_random
        self._translation.begin(np.ones(self.num_envs, np.bool_))
        self._ended[:] = False
        return self._observations(), {}

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One imagined step of every lane."""
        begins = self._ended
        rewards, terminated, truncated, going_on = self._translation.step(list(iterate(self.action_space, actions)))
        self._translation.begin(begins)
        rewards, terminated, truncated = np.where(begins, 0, rewards), terminated & ~begins, truncated & ~begins
        self._ended = terminated | truncated
        info = {"continue": np.where(begins, 1, going_on), "_continue": np.ones(self.num_envs, np.bool_)}
        return self._observations(), rewards.astype(np.float64), terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """What every lane draws now; None without a render mode."""
        return tuple(self._translation.frame(lane) for lane in range(self.num_envs)) if self.render_mode else None

    def close_extras(self, **options: Any) -> None:
        """Nothing can be dreamed anymore; `close` calls it."""
        self._translation.close()

    def _observations(self) -> Any:
        space = self.single_observation_space
        empty: Any = create_empty_array(space, self.num_envs)
        return concatenate(space, self._translation.observations(), empty)
