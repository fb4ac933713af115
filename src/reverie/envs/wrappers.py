"""Gymnasium wrappers that `make` applies: repeated actions, rendered observations, resized images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.envs.images import ImageLayout, find_layout, part_names, said_kind
from reverie.envs.space_tree import Path, children, leaves
from reverie.errors import ConfigError, EnvironmentProblem


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image [H, W, C] at another size (H', W'), as a new uint8 array [H', W', C].

    Shrinking averages over the area that a pixel covers; growing interpolates.
    """
    from PIL import Image

    height, width = size
    if image.shape[:2] == (height, width):
        return image.copy()
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    channels = image.shape[2]
    if channels == 3:
        return np.array(Image.fromarray(image).resize((width, height), method))
    # One channel at a time: Pillow would take a fourth channel for transparency and weight the others by it.
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image[..., channel])).resize((width, height), method))
        for channel in range(channels)
    ]
    return np.stack(planes, axis=-1)


class ActionRepeat(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives the same action to the environment several times and sums the rewards; stops when the episode ends.

    Args:
        env: the environment.
        repeat: how many times an action is applied, at least 1.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], repeat: int) -> None:
        super().__init__(env)
        if repeat < 1:
            raise ConfigError(f"action_repeat is {repeat}, but an action must be given at least once: use 1 or more")
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The observation after the last repetition, with the sum of the rewards."""
        total: Any = 0.0
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total = total + reward
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class RenderedObservation(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Replaces the observation by the rendered frame.

    Args:
        env: an environment made with `render_mode="rgb_array"`. If it has an attribute `render_size`, a tuple of height
            and width, this is set to `size`, so that nothing needs resizing.
        size: height and width of the frame after resizing.

    Raises:
        EnvironmentProblem: if the environment does not render frames.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], size: tuple[int, int]) -> None:
        super().__init__(env)
        if env.render_mode != "rgb_array":
            raise EnvironmentProblem(
                f"pixels=True needs frames, but the environment {env.unwrapped} was made with "
                f"render_mode={env.render_mode!r}: make it with render_mode='rgb_array', or pass an id or a function"
            )
        self.size = size
        base: Any = env.unwrapped
        if isinstance(getattr(base, "render_size", None), tuple):
            base.render_size = size
        self.observation_space = gymnasium.spaces.Box(0, 255, (*size, 3), np.uint8)

    def observation(self, observation: Any) -> NDArray[np.uint8]:
        """The rendered frame, uint8 [H, W, 3]; the given observation is not used."""
        return self.converted(self.env.render())

    def converted(self, frame: Any) -> NDArray[np.uint8]:
        """A frame of `render()`, of any size, as it is observed.

        Raises:
            EnvironmentProblem: it is not a frame.
        """
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise EnvironmentProblem(
                f"pixels=True needs frames of render(), uint8 of shape (height, width, 3), but got an array of dtype "
                f"{frame.dtype} and shape {frame.shape}: correct render(), pass its frames, or use pixels=False"
            )
        return resize_image(frame, self.size)


class ResizeImages(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Resizes every image in the observation, at any depth, to uint8 [H, W, C]; leaves all else as it is.

    A stack of images with an axis for frames becomes uint8 [H, W, T, C].

    Args:
        env: the environment.
        size: height and width of every image afterwards.
        parts: what the user says about parts, as for `ObservationCodec`.

    Attributes:
        parts: the same for the resized observation, with the axes of every image.

    Raises:
        ConfigError: if there is no image in the observation space.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], size: tuple[int, int], parts: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(env)
        self.size = size
        self.parts = dict(parts or {})
        self._layouts: dict[Path, ImageLayout] = {}
        for path, leaf in leaves(env.observation_space):
            name = part_names(path)[0]
            layout = find_layout(leaf, said_kind(self.parts, path), f"observation {name!r}")
            if layout is not None:
                self._layouts[path] = layout
                self.parts[name] = "image:hwc" if layout.frames == 1 else "image:hwtc"
        if not self._layouts:
            raise ConfigError(
                f"image_size={size} was given, but the observation space {env.observation_space} holds no image: drop "
                f"image_size, say which part is an image (parts, --part), or use pixels=True to observe rendered frames"
            )
        self.observation_space = self._resized_space(env.observation_space, ())

    def observation(self, observation: Any) -> Any:
        """The observation with its images resized."""
        return self._resized(self.env.observation_space, observation, ())

    def converted(self, observation: Any) -> Any:
        """An observation of the environment, or one that is resized already, as it is observed."""
        return observation if self.observation_space.contains(observation) else self.observation(observation)

    def _shape(self, layout: ImageLayout) -> tuple[int, ...]:
        """Shape of an image afterwards."""
        frames, channels = layout.frames, layout.shape[2]
        return (*self.size, channels) if frames == 1 else (*self.size, frames, channels // frames)

    def _resized_space(self, space: gymnasium.Space[Any], path: Path) -> gymnasium.Space[Any]:
        members = children(space)
        if members is not None:
            built = {key: self._resized_space(member, (*path, key)) for key, member in members}
            if isinstance(space, gymnasium.spaces.Tuple):
                return gymnasium.spaces.Tuple(list(built.values()))
            return gymnasium.spaces.Dict(built)
        layout = self._layouts.get(path)
        return space if layout is None else gymnasium.spaces.Box(0, 255, self._shape(layout), np.uint8)

    def _resized(self, space: gymnasium.Space[Any], value: Any, path: Path) -> Any:
        """The value with its images resized; a value that does not fit its space is left for the codec to refuse."""
        if isinstance(space, gymnasium.spaces.Dict) and isinstance(value, dict):
            return {
                key: self._resized(space[key], item, (*path, key)) if key in space.spaces else item
                for key, item in value.items()
            }
        if isinstance(space, gymnasium.spaces.Tuple) and isinstance(value, tuple | list):
            if len(value) != len(space.spaces):
                return value
            members = zip(space.spaces, value, strict=True)
            return tuple(self._resized(member, item, (*path, index)) for index, (member, item) in enumerate(members))
        layout = self._layouts.get(path)
        if layout is None:
            return value
        array = np.asarray(value)
        if array.shape != space.shape or array.dtype.kind not in ("fiub" if layout.is_float else "iub"):
            raise EnvironmentProblem(
                f"an image of the observation has dtype {array.dtype} and shape {array.shape}, but its space is "
                f"{space}: make the environment return what it declares"
            )
        if layout.is_float and not np.isfinite(array).all():
            raise EnvironmentProblem(
                "an image of the observation holds NaN or infinity, but every value must be finite: fix it in the "
                "environment"
            )
        return resize_image(layout.to_uint8(array), self.size).reshape(self._shape(layout))
