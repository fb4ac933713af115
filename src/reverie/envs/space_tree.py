"""Walking Gymnasium spaces: names of leaves, and which boxes are images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.errors import SpaceError

MINIMUM_IMAGE_SIDE = 32
MAXIMUM_IMAGE_SIDE = 256
MAXIMUM_CHANNELS = 16
# Axes that may come first in a channel-first image; more than that is rather a stack of something.
CHANNEL_FIRST_COUNTS = (1, 3, 4)
# A one-hot vector wider than this would dwarf every network; such a variable is a number, not a class.
MAXIMUM_CLASSES = 65_536

Path = tuple[str | int, ...]


def join_path(path: Path) -> str:
    """Name of a leaf: the keys on the way to it joined with `/`; the empty string for a single space."""
    return "/".join(str(key) for key in path)


def children(space: gymnasium.Space[Any]) -> list[tuple[Any, gymnasium.Space[Any]]] | None:
    """Keys and members of a Dict or Tuple space, or None for any other space."""
    if isinstance(space, gymnasium.spaces.Dict):
        return list(space.spaces.items())
    if isinstance(space, gymnasium.spaces.Tuple):
        return list(enumerate(space.spaces))
    return None


def leaves(space: gymnasium.Space[Any], path: Path = ()) -> Iterator[tuple[Path, gymnasium.Space[Any]]]:
    """Every space below `space` that is neither a Dict nor a Tuple, with the path that leads to it."""
    members = children(space)
    if members is None:
        yield path, space
        return
    for key, member in members:
        yield from leaves(member, (*path, key))


def assemble(space: gymnasium.Space[Any], values: Mapping[Path, Any], path: Path = ()) -> Any:
    """The nested value of a space from the values of its leaves, as `leaves` names them."""
    members = children(space)
    if members is None:
        return values[path]
    built = {key: assemble(member, values, (*path, key)) for key, member in members}
    return tuple(built.values()) if isinstance(space, gymnasium.spaces.Tuple) else built


def require_distinct(names: Iterable[str], what: str) -> None:
    """Refuse nested keys that give the same name once joined.

    Raises:
        SpaceError: if a name appears twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SpaceError(
                f"the {what} space has two members that are both called {name!r} once nested keys are joined with "
                f"'/': rename one of the keys"
            )
        seen.add(name)


def discrete_layout(
    space: gymnasium.Space[Any], where: str
) -> tuple[tuple[int, ...], tuple[int, ...], NDArray[np.int64]]:
    """Shape, number of classes and first value of each variable of a space of whole numbers.

    Args:
        space: a Discrete, MultiDiscrete or MultiBinary space.
        where: the name of the space in an error message.

    Returns:
        The shape of a value of the space, the classes of its V variables, and their first values, int64 [V].

    Raises:
        SpaceError: if the space is empty or a variable has more classes than a one-hot vector can reasonably hold.
    """
    shape: tuple[int, ...]
    if isinstance(space, gymnasium.spaces.Discrete):
        shape, sizes, starts = (), np.array([space.n]), np.array([space.start])
    elif isinstance(space, gymnasium.spaces.MultiDiscrete):
        starts = getattr(space, "start", np.zeros_like(space.nvec))
        shape, sizes, starts = space.shape, space.nvec.reshape(-1), np.asarray(starts).reshape(-1)
    elif isinstance(space, gymnasium.spaces.MultiBinary):
        shape, sizes = space.shape, np.full(int(np.prod(space.shape)), 2)
        starts = np.zeros_like(sizes)
    else:
        raise TypeError(f"{space} is not a space of whole numbers")
    if sizes.size == 0:
        raise SpaceError(f"{where} is {space}, which has no entries: remove it or give it at least one")
    if sizes.max() > MAXIMUM_CLASSES:
        raise SpaceError(
            f"{where} is {space} with {int(sizes.max())} classes, and at most {MAXIMUM_CLASSES} are supported: "
            f"describe the value as a Box"
        )
    return tuple(shape), tuple(int(size) for size in sizes), starts.astype(np.int64)


@dataclass(frozen=True)
class ImageLayout:
    """How a Box space stores an image.

    Attributes:
        height: rows.
        width: columns.
        channels: channels; 1 for a gray image without a channel axis.
        axes: `hwc`, `chw` (channel first) or `hw` (gray without a channel axis).
        is_float: True if values are floats in [0, 1] instead of uint8.
    """

    height: int
    width: int
    channels: int
    axes: Literal["hwc", "chw", "hw"]
    is_float: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of the image as agents see it."""
        return self.height, self.width, self.channels

    def to_uint8(self, value: NDArray[Any]) -> NDArray[np.uint8]:
        """The image as a new uint8 array [H, W, C]; float values are clipped to [0, 1] and scaled to 255."""
        if self.axes == "chw":
            value = value.transpose(1, 2, 0)
        elif self.axes == "hw":
            value = value[..., None]
        if self.is_float:
            value = np.rint(np.clip(value, 0, 1) * 255)
        return np.array(value, dtype=np.uint8, order="C")

    def from_uint8(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Inverse of `to_uint8`: uint8 [H, W, C] to the axes of the space, float values in [0, 1]."""
        value: NDArray[Any] = image / 255 if self.is_float else image
        if self.axes == "chw":
            return value.transpose(2, 0, 1)
        return value[..., 0] if self.axes == "hw" else value


def image_layout(space: gymnasium.Space[Any]) -> ImageLayout | None:
    """How `space` stores an image, or None if it is no image.

    An image is a Box of uint8, or of floats bounded by exactly 0 and 1, whose two sides have at least 32 pixels. It
    is H x W x C with 1 to 16 channels, C x H x W with 1, 3 or 4 channels, or H x W.
    """
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) not in (2, 3):
        return None
    is_float = bool(space.dtype is not None and space.dtype.kind == "f")
    if is_float and not (np.all(space.low == 0) and np.all(space.high == 1)):
        return None
    if not is_float and space.dtype != np.uint8:
        return None
    candidates: list[ImageLayout] = []
    shape = space.shape
    if len(shape) == 2:
        candidates.append(ImageLayout(shape[0], shape[1], 1, "hw", is_float))
    else:
        if 1 <= shape[2] <= MAXIMUM_CHANNELS:
            candidates.append(ImageLayout(shape[0], shape[1], shape[2], "hwc", is_float))
        if shape[0] in CHANNEL_FIRST_COUNTS:
            candidates.append(ImageLayout(shape[1], shape[2], shape[0], "chw", is_float))
    for layout in candidates:
        if min(layout.height, layout.width) >= MINIMUM_IMAGE_SIDE:
            return layout
    return None
