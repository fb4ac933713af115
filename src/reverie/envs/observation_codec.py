"""Observation spaces: Gymnasium observations become dictionaries of part arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.envs.images import (
    MAXIMUM_IMAGE_SIDE,
    MINIMUM_IMAGE_SIDE,
    ImageLayout,
    PartKind,
    as_box,
    find_layout,
    part_names,
    said_kind,
)
from reverie.envs.space_tree import Path, assemble, children, discrete_layout, join_path, leaves, require_distinct
from reverie.errors import ConfigError, EnvironmentProblem, SpaceError
from reverie.spaces import ObservationPart

# Names that a replay row already uses; an observation of that name is stored as `observation/<name>`.
RESERVED_NAMES = ("reward", "is_first", "is_last", "is_terminal", "action", "deterministic", "stochastic")
SUPPORTED = (
    "supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of them; wrap the environment to "
    "drop or convert this one"
)
WHOLE_SPACES = (gymnasium.spaces.Discrete, gymnasium.spaces.MultiDiscrete, gymnasium.spaces.MultiBinary)
# Relative slack of the bounds check: float32 rounding of a float64 bound must not raise the alarm.
BOUNDS_TOLERANCE = 1e-5


class ObservationCodec:
    """Turns observations of one Gymnasium space into `{part name: array}`.

    A single space gives one part, named `image` if it is an image and `observation` otherwise. Nested spaces give
    parts named by their keys joined with `/`, sorted by name. A name that a replay row needs for itself gets the
    prefix `observation/`.

    Args:
        space: the observation space.
        parts: name of a part -> what it is (`PartKind.parse`), for parts whose space leaves that open or says it
            wrongly; the name of a single space may be `image` or `observation`.

    Raises:
        SpaceError: if the space holds something that no agent can handle.
        ConfigError: if `parts` names a part that is not there.
    """

    def __init__(self, space: gymnasium.Space[Any], parts: Mapping[str, str] | None = None) -> None:
        self.space = space
        parts = parts or {}
        _require_known(parts, space)
        built = [_build_leaf(path, leaf, said_kind(parts, path)) for path, leaf in leaves(space)]
        if not built:
            raise SpaceError(f"the observation space {space} has no members: an agent needs at least one observation")
        require_distinct((leaf.part.name for leaf in built), "observation")
        self._leaves = sorted(built, key=lambda leaf: leaf.part.name)
        self.parts: tuple[ObservationPart, ...] = tuple(leaf.part for leaf in self._leaves)

    def encode(self, observation: Any) -> dict[str, NDArray[Any]]:
        """The observation as new arrays, one for each part, of the shapes and dtypes in `parts`.

        Raises:
            EnvironmentProblem: if the observation does not fit the space or is not finite.
        """
        values: dict[Path, Any] = {}
        _collect(self.space, observation, (), into=values)
        return {leaf.part.name: leaf.encode(values[leaf.path]) for leaf in self._leaves}

    def decode(self, parts: Mapping[str, NDArray[Any]]) -> Any:
        """The observation of the space nearest to part arrays, such as predictions of a world model.

        Args:
            parts: for each part an array of the shape in `parts`; vectors are clipped to the bounds of their Box.
        """
        return assemble(self.space, {leaf.path: leaf.decode(parts[leaf.part.name]) for leaf in self._leaves})


@dataclass
class _Leaf:
    """One part, and how a value of its space becomes an array."""

    path: Path
    space: gymnasium.Space[Any]
    part: ObservationPart
    convert: Callable[[NDArray[Any], _Leaf], NDArray[Any]]
    image: ImageLayout | None = None
    # Only for whole numbers: first value and number of classes of each variable, int64 [V].
    starts: NDArray[np.int64] | None = None
    sizes: NDArray[np.int64] | None = None
    check_bounds: bool = field(default=False)

    def encode(self, value: Any) -> NDArray[Any]:
        """A new array of the part's shape and dtype."""
        return self.convert(self._checked(value), self)

    def decode(self, array: NDArray[Any]) -> Any:
        """A value of the space from an array of the part's shape."""
        shape, dtype = self.space.shape, self.space.dtype
        assert shape is not None and dtype is not None
        if self.image is not None:
            return np.ascontiguousarray(self.image.from_uint8(array), dtype)
        if self.starts is not None:
            value = (array + self.starts).astype(dtype).reshape(shape)
            return value[()] if shape == () else value
        assert isinstance(self.space, gymnasium.spaces.Box)
        value = array.astype(np.float64).reshape(shape)
        rounded = value if dtype.kind == "f" else np.rint(value)
        return np.asarray(np.clip(rounded, self.space.low, self.space.high), dtype)

    def _checked(self, value: Any) -> NDArray[Any]:
        """The value as an array of the space's shape and of a fitting kind of number."""
        space = self.space
        assert space.shape is not None and space.dtype is not None
        name = self.part.name
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise EnvironmentProblem(
                f"observation {name!r} is a {type(value).__name__} that is not an array, but its space is {space}: "
                f"return an array of shape {space.shape}"
            ) from error
        allowed = "fiub" if space.dtype.kind == "f" else "iub"
        if array.dtype.kind not in allowed:
            raise EnvironmentProblem(
                f"observation {name!r} has dtype {array.dtype}, but its space {space} has dtype {space.dtype}: make "
                f"the environment return the dtype that it declares"
            )
        if array.shape != space.shape:
            raise EnvironmentProblem(
                f"observation {name!r} has shape {array.shape}, but its space {space} has shape {space.shape}: make "
                f"the environment return the shape that it declares"
            )
        return array

    def warn_outside(self, array: NDArray[Any]) -> None:
        """Warn once if values leave the bounds of the Box; many good environments do."""
        low, high = self.space.low, self.space.high  # type: ignore[attr-defined]
        slack = BOUNDS_TOLERANCE
        below = array < low - slack * (1 + np.abs(low))
        above = array > high + slack * (1 + np.abs(high))
        if np.any(below | above):
            self.check_bounds = False
            warnings.warn(
                f"observation {self.part.name!r} has values outside the bounds of its space {self.space}; they are "
                f"used as they are, and this is said once",
                stacklevel=2,
            )


def _require_known(parts: Mapping[str, str], space: gymnasium.Space[Any]) -> None:
    """Refuse descriptions of parts that are not there."""
    names = [part_names(path) for path, _ in leaves(space)]
    for name in parts:
        if not any(name in known for known in names):
            raise ConfigError(
                f"the observation has no part {name!r}: its parts are {', '.join(known[0] for known in names)}"
            )


def _build_leaf(path: Path, space: gymnasium.Space[Any], said: PartKind | None) -> _Leaf:
    """The leaf for one space that is neither a Dict nor a Tuple."""
    joined = join_path(path)
    where = f"observation {joined!r}" if path else "the observation space"
    name = f"observation/{joined}" if joined in RESERVED_NAMES else joined
    is_box = isinstance(space, gymnasium.spaces.Box)
    if not is_box and not isinstance(space, WHOLE_SPACES):
        raise SpaceError(f"{where} is {space}, a {type(space).__name__} space, which no agent can handle: {SUPPORTED}")
    if said.kind == "discrete" if said is not None else not is_box:
        _, classes, starts = discrete_layout(space, where)
        part = ObservationPart(name or "observation", "discrete", (len(classes),), classes=classes)
        return _Leaf(path, space, part, convert=_convert_discrete, starts=starts, sizes=np.array(classes, np.int64))
    box = as_box(space, where)
    layout = find_layout(box, said, where)
    if layout is not None:
        if said is None and layout.is_float and layout.axes == "hw":
            warnings.warn(
                f"{where} of shape {box.shape} is treated as a gray image with values in 256 steps from "
                f"{layout.low:g} to {layout.high:g}; if its entries are numbers, say so with "
                f"parts={{{name or 'image'!r}: 'vector'}} or --part {name or 'image'}=vector",
                stacklevel=2,
            )
        return _image_leaf(path, box, layout, name=name or "image", where=where)
    if said is None:
        _announce(box, name or "observation", where)
    return _vector_leaf(path, box, name or "observation", where=where)


def _image_leaf(path: Path, box: gymnasium.spaces.Box, layout: ImageLayout, name: str, where: str) -> _Leaf:
    """The leaf for an image or a stack of images."""
    sides = (layout.height, layout.width)
    if max(sides) > MAXIMUM_IMAGE_SIDE or min(sides) < MINIMUM_IMAGE_SIDE:
        raise SpaceError(
            f"{where} is an image of {layout.height} x {layout.width} pixels, and {MINIMUM_IMAGE_SIDE} to "
            f"{MAXIMUM_IMAGE_SIDE} per side are supported: pass an image size such as image_size=64"
        )
    part = ObservationPart(name, "image", layout.shape, frames=layout.frames)
    return _Leaf(path, box, part, convert=_convert_image, image=layout, check_bounds=layout.is_float)


def _vector_leaf(path: Path, box: gymnasium.spaces.Box, name: str, where: str) -> _Leaf:
    """The leaf for numbers."""
    if box.dtype is None or box.dtype.kind not in "fiub":
        raise SpaceError(f"{where} is {box}, whose dtype {box.dtype} no agent can handle: use float32")
    size = int(np.prod(box.shape))
    if size == 0:
        raise SpaceError(f"{where} is {box}, which has no entries: remove it or give it at least one")
    part = ObservationPart(name, "vector", (size,))
    bounded = bool(np.any(np.isfinite(box.low)) or np.any(np.isfinite(box.high)))
    return _Leaf(path, box, part, convert=_convert_vector, check_bounds=bounded)


def _announce(box: gymnasium.spaces.Box, name: str, where: str) -> None:
    """Warn about a vector that might be meant as an image."""
    wide = sum(side >= MINIMUM_IMAGE_SIDE for side in box.shape) >= 2
    if not wide and not (box.dtype == np.uint8 and len(box.shape) >= 3):
        return
    bounds = f"{box.low.min()} to {box.high.max()}"
    remedy = f"parts={{{name!r}: 'image'}} or --part {name}=image"
    warnings.warn(
        f"{where} of shape {box.shape} and dtype {box.dtype} from {bounds} is treated as a vector of "
        f"{int(np.prod(box.shape)):,} numbers, since its bounds or its shape are not those of an image; if it is one, "
        f"say so with {remedy}{'' if wide else ', and enlarge it with image_size'}",
        stacklevel=2,
    )


def _convert_image(array: NDArray[Any], leaf: _Leaf) -> NDArray[Any]:
    """uint8 [H, W, C]."""
    assert leaf.image is not None
    if leaf.image.is_float:
        _require_finite(array, leaf.part.name)
        if leaf.check_bounds:
            leaf.warn_outside(array)
    elif not (array.dtype == np.uint8 and leaf.image.is_bytes) and (
        array.min() < leaf.image.low or array.max() > leaf.image.high
    ):
        raise EnvironmentProblem(
            f"observation {leaf.part.name!r} has pixel values from {array.min()} to {array.max()}, but its space "
            f"{leaf.space} of {leaf.space.dtype} holds {leaf.image.low:.0f} to {leaf.image.high:.0f}: correct the "
            f"space or the environment"
        )
    return leaf.image.to_uint8(array)


def _convert_vector(array: NDArray[Any], leaf: _Leaf) -> NDArray[Any]:
    """float32 [N]."""
    with np.errstate(over="ignore"):
        flat = np.array(array, dtype=np.float32).reshape(-1)
    _require_finite(flat, leaf.part.name)
    if leaf.check_bounds:
        leaf.warn_outside(array)
    return flat


def _convert_discrete(array: NDArray[Any], leaf: _Leaf) -> NDArray[Any]:
    """Class indices, int32 [V]."""
    assert leaf.starts is not None and leaf.sizes is not None
    flat = array.reshape(-1).astype(np.int64)
    index = flat - leaf.starts
    wrong = (index < 0) | (index >= leaf.sizes)
    if wrong.any():
        variable = int(np.argmax(wrong))
        first = int(leaf.starts[variable])
        raise EnvironmentProblem(
            f"observation {leaf.part.name!r} has the value {int(flat[variable])} for variable {variable}, but its "
            f"space {leaf.space} holds {first} to {first + int(leaf.sizes[variable]) - 1}: correct the space or the "
            f"environment"
        )
    return index.astype(np.int32)


def _require_finite(array: NDArray[Any], name: str) -> None:
    """Refuse NaN and infinity, also where the bounds of the space are infinite."""
    finite = np.isfinite(array)
    if not finite.all():
        index = int(np.argmin(finite.reshape(-1)))
        raise EnvironmentProblem(
            f"observation {name!r} holds {array.reshape(-1)[index]} at entry {index}, but every value must be a "
            f"finite float32: fix or clip it in the environment"
        )


def _collect(space: gymnasium.Space[Any], value: Any, path: Path, into: dict[Path, Any]) -> None:
    """Fill `into` with the value of every leaf of `space`."""
    members = children(space)
    if members is None:
        into[path] = value
        return
    name = join_path(path)
    where = f"observation {name!r}" if path else "the observation"
    expected = [key for key, _ in members]
    if isinstance(space, gymnasium.spaces.Dict):
        if not isinstance(value, dict):
            raise EnvironmentProblem(
                f"{where} is a {type(value).__name__}, but its space is a Dict with the keys {expected}: return a dict"
            )
        missing = [key for key in expected if key not in value]
        extra = [key for key in value if key not in space.spaces]
        if missing or extra:
            raise EnvironmentProblem(
                f"{where} lacks the keys {missing} and has the unknown keys {extra}, but its space has exactly the "
                f"keys {expected}: correct the space or the environment"
            )
    elif not isinstance(value, tuple | list) or len(value) != len(expected):
        found = f"{len(value)} members" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
        raise EnvironmentProblem(
            f"{where} is {found}, but its space is a Tuple of {len(expected)}: return a tuple of that length"
        )
    for key, member in members:
        _collect(member, value[key], (*path, key), into=into)
