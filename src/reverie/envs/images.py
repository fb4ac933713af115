"""Which spaces are pictures, how their axes lie, and what a user says about a part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.envs.space_tree import Path, discrete_layout, join_path
from reverie.errors import ConfigError, SpaceError

MINIMUM_IMAGE_SIDE = 32
MAXIMUM_IMAGE_SIDE = 256
# Colors of all frames together; a box with more is a volume rather than a stack of frames.
MAXIMUM_CHANNELS = 256
COLOR_COUNTS = (1, 3, 4)
# Bounds that say that a box holds brightness. A box of uint8 from 0 to 10 holds symbols or counts.
FLOAT_RANGES = ((0, 1), (-1, 1), (0, 255))
WHOLE_RANGE, UINT16_RANGE = (0, 255), (0, 65_535)

Kind = Literal["image", "vector", "discrete"]
KINDS: tuple[Kind, ...] = ("image", "vector", "discrete")


@dataclass(frozen=True)
class PartKind:
    """What a user says that a part is.

    Attributes:
        kind: `image`, `vector` or `discrete`.
        axes: for an image, one letter for each axis of its space, or None to recognize them: `h` height, `w` width,
            `c` colors, `t` frames.
    """

    kind: Kind
    axes: str | None = None

    @staticmethod
    def parse(name: str, text: str) -> PartKind:
        """Reads `image`, `image:AXES`, `vector` or `discrete`.

        Raises:
            ConfigError: it is something else.
        """
        kind, colon, axes = str(text).partition(":")
        fits = set("hw") <= set(axes) <= set("thwc") and len(set(axes)) == len(axes)
        if kind not in KINDS or (colon and (kind != "image" or not fits)):
            raise ConfigError(
                f"part {name!r} is said to be {text!r}, but it must be image, vector, discrete, or image with a letter "
                f"for each axis (t frames, h height, w width, c colors) such as image:chw or image:thwc"
            )
        return PartKind(kind, axes or None)


def part_names(path: Path) -> tuple[str, ...]:
    """The names by which a user may refer to a leaf of an observation space."""
    joined = join_path(path)
    return (joined, f"observation/{joined}") if path else ("observation", "image")


def said_kind(parts: Mapping[str, str], path: Path) -> PartKind | None:
    """What the user says about a leaf, or None."""
    return next((PartKind.parse(name, parts[name]) for name in part_names(path) if name in parts), None)


def as_box(space: gymnasium.Space[Any], where: str) -> gymnasium.spaces.Box:
    """The Box with the same values as a Box, Discrete, MultiDiscrete or MultiBinary space."""
    if isinstance(space, gymnasium.spaces.Box):
        return space
    shape, classes, starts = discrete_layout(space, where)
    low = starts.reshape(shape)
    high = low + np.array(classes, np.int64).reshape(shape) - 1
    dtype: Any = space.dtype
    return gymnasium.spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype)


@dataclass(frozen=True)
class ImageLayout:
    """How a space stores an image or a stack of images.

    Attributes:
        axes: a letter for each axis of the space: `t` frames, `h` height, `w` width, `c` colors.
        sizes: shape of the space.
        low: the value that is black.
        high: the value that is white.
        is_float: whether values are floats instead of whole numbers.
    """

    axes: str
    sizes: tuple[int, ...]
    low: float
    high: float
    is_float: bool

    def _size(self, letter: str) -> int:
        return self.sizes[self.axes.index(letter)] if letter in self.axes else 1

    @property
    def height(self) -> int:
        """Rows."""
        return self._size("h")

    @property
    def width(self) -> int:
        """Columns."""
        return self._size("w")

    @property
    def frames(self) -> int:
        """Frames, if they have an axis of their own, otherwise 1."""
        return self._size("t")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of the image as agents see it; C counts the colors of all frames, oldest frame first."""
        return self.height, self.width, self.frames * self._size("c")

    @property
    def is_bytes(self) -> bool:
        """Whether values are whole numbers from 0 to 255, which need no scaling."""
        return not self.is_float and (self.low, self.high) == (0, 255)

    @property
    def _order(self) -> str:
        """The letters of `axes` in the order in which agents see them."""
        return "".join(letter for letter in "hwtc" if letter in self.axes)

    def to_uint8(self, value: NDArray[Any]) -> NDArray[np.uint8]:
        """The image as a new uint8 array [H, W, C]; values from `low` to `high` become 0 to 255, floats are clipped."""
        value = value.transpose([self.axes.index(letter) for letter in self._order]).reshape(self.shape)
        if not self.is_bytes:
            exact: NDArray[Any] = value if self.is_float else value.astype(np.float64)
            scale = 255 / (self.high - self.low)
            value = np.rint((np.clip(exact, self.low, self.high) - self.low) * scale)
        return np.array(value, dtype=np.uint8, order="C")

    def from_uint8(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Inverse of `to_uint8`: uint8 [H, W, C] to the axes and the range of the space."""
        value: NDArray[Any] = image
        if not self.is_bytes:
            value = self.low + image / 255 * (self.high - self.low)
            value = value if self.is_float else np.rint(value)
        value = value.reshape([self._size(letter) for letter in self._order])
        return value.transpose([self._order.index(letter) for letter in self.axes])


def find_layout(space: gymnasium.Space[Any], said: PartKind | None, where: str) -> ImageLayout | None:
    """How a leaf of an observation space stores an image, or None if it is not an image.

    Where the user says nothing, an image is a Box with declared bounds of brightness (floats 0 to 1, -1 to 1 or 0 to
    255, whole numbers 0 to 255, uint16 0 to 65535) whose two sides have at least 32 pixels.

    Args:
        space: the leaf.
        said: what the user says about it.
        where: the name of the leaf in an error message.

    Raises:
        SpaceError: the user says that it is an image, and it cannot be one.
    """
    if said is None:
        bounds = _picture_bounds(space)
        axes = None if bounds is None else recognized_axes(cast(tuple[int, ...], space.shape))
        if bounds is None or axes is None:
            return None
        layout = _layout(cast(gymnasium.spaces.Box, space), axes, bounds)
        return layout if layout.shape[2] <= MAXIMUM_CHANNELS else None
    if said.kind != "image":
        return None
    box = as_box(space, where)
    axes = said.axes or recognized_axes(box.shape) or recognized_axes(box.shape, minimum=1)
    if axes is None or len(axes) != len(box.shape):
        raise SpaceError(
            f"{where} is said to be an image{'' if said.axes is None else ' with axes ' + said.axes}, but its space is "
            f"{space}: an image has a height, a width, and at most one axis of colors and one of frames"
        )
    low, high = float(box.low.min()), float(box.high.max())
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(
            f"{where} is said to be an image, but its space {space} does not tell which values are black and white: "
            f"give the Box finite bounds"
        )
    return _layout(box, axes, (low, high))


def _layout(box: gymnasium.spaces.Box, axes: str, bounds: tuple[float, float]) -> ImageLayout:
    return ImageLayout(axes, tuple(box.shape), *bounds, is_float=box.dtype is not None and box.dtype.kind == "f")


def _picture_bounds(space: gymnasium.Space[Any]) -> tuple[float, float] | None:
    """The bounds of a Box if they are those of brightness."""
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype is None or not space.low.size:
        return None
    low, high = space.low.flat[0], space.high.flat[0]
    if not (np.all(space.low == low) and np.all(space.high == high)):
        return None
    known: tuple[tuple[int, int], ...] = FLOAT_RANGES if space.dtype.kind == "f" else (WHOLE_RANGE,)
    if space.dtype == np.uint16:
        known = (WHOLE_RANGE, UINT16_RANGE)
    return (float(low), float(high)) if (low, high) in known else None


def recognized_axes(shape: tuple[int, ...], minimum: int = MINIMUM_IMAGE_SIDE) -> str | None:
    """Which axes of a space are height, width, colors and frames.

    Height and width are adjacent and have at least `minimum` pixels. Where several pairs have, equal sides are
    preferred, then the larger picture. In a stack frames come first, as Gymnasium's FrameStackObservation has them, and
    last where the picture comes first.

    Returns:
        A letter for each axis as in `ImageLayout`, or None if this cannot be determined.
    """
    if len(shape) == 4:
        options = ["thwc", "tchw", "hwtc" if shape[3] in COLOR_COUNTS else "hwct"]
    else:
        options = {2: ["hw"], 3: ["hwc", "chw"]}.get(len(shape), [])
    ranked = []
    for axes in options:
        height, width = shape[axes.index("h")], shape[axes.index("w")]
        if min(height, width) >= minimum:
            ranked.append((height != width, math.prod(shape) // (height * width), options.index(axes), axes))
    if not ranked:
        return None
    ranked.sort()
    tie = len(shape) == 3 and len(ranked) == 2 and ranked[0][:2] == ranked[1][:2]
    return None if tie else ranked[0][-1]
