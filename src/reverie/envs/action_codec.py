"""Action spaces: the agent's flat action vector becomes a Gymnasium action, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.envs.space_tree import Path, assemble, children, discrete_layout, join_path, leaves, require_distinct
from reverie.errors import EnvironmentProblem, SpaceError
from reverie.spaces import ActionPart, Interface

SUPPORTED = "supported are bounded Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of them"
# Bounds beyond this are infinite in all but name, such as the largest float32.
LARGEST_BOUND = 1e30


@dataclass(frozen=True)
class ActionVariable:
    """One number of an action, and where the flat vector holds it.

    Attributes:
        name: name of the part, with an index if the part has several variables.
        entries: its entries in the flat vector: one if continuous, one for each choice otherwise.
        low: value at -1, or of the first choice.
        high: value at 1, or of the last choice.
        discrete: whether it is a choice.
    """

    name: str
    entries: slice
    low: float
    high: float
    discrete: bool

    def values(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """The values, in the units of the environment, of flat actions: float [..., A] -> float64 [...]."""
        part = np.asarray(actions, np.float64)[..., self.entries]
        if self.discrete:
            return self.low + part.argmax(-1)
        fraction = (np.clip(part[..., 0], -1, 1) + 1) / 2
        return np.asarray(self.low * (1 - fraction) + self.high * fraction)


class ActionCodec:
    """Translates between flat action vectors and actions of one Gymnasium space.

    The flat vector holds the parts in the order of their names: a Box scaled to [-1, 1], anything discrete as one-hot
    vectors. A single space gives one part named `action`.

    Raises:
        SpaceError: if the space holds something that no agent can handle.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.space = space
        built = [_build_leaf(path, leaf) for path, leaf in leaves(space)]
        if not built:
            raise SpaceError(f"the action space {space} has no members: an agent needs at least one action")
        require_distinct((leaf.part.name for leaf in built), "action")
        self._leaves = sorted(built, key=lambda leaf: leaf.part.name)
        self.parts: tuple[ActionPart, ...] = tuple(leaf.part for leaf in self._leaves)
        self.width = sum(part.width for part in self.parts)

    @property
    def variables(self) -> tuple[ActionVariable, ...]:
        """Every number of an action, in the order of the flat vector."""
        found: list[ActionVariable] = []
        start = 0
        for leaf in self._leaves:
            bounds = leaf.bounds()
            for index, (low, high) in enumerate(bounds):
                name = leaf.part.name if len(bounds) == 1 else f"{leaf.part.name}[{index}]"
                discrete = leaf.part.kind == "discrete"
                width = leaf.part.classes[index] if discrete else 1
                found.append(ActionVariable(name, slice(start, start + width), low, high=high, discrete=discrete))
                start += width
        return tuple(found)

    def decode(self, action: NDArray[Any]) -> Any:
        """The Gymnasium action of a flat vector [A].

        A continuous part is clipped to [-1, 1] and scaled to its bounds (rounded for whole numbers); a discrete part
        takes the largest entry of each variable.

        Raises:
            EnvironmentProblem: if the vector has the wrong length or is not finite.
        """
        vector = np.asarray(action, dtype=np.float64)
        if vector.shape != (self.width,):
            raise EnvironmentProblem(
                f"the action has shape {vector.shape}, but the action space {self.space} takes a flat vector of "
                f"shape ({self.width},): see adapter.interface.actions for its parts"
            )
        if not np.isfinite(vector).all():
            raise EnvironmentProblem(
                f"the action {vector.tolist()} is not finite: the agent that chose it has diverged or was misused"
            )
        values: dict[Path, Any] = {}
        start = 0
        for leaf in self._leaves:
            values[leaf.path] = leaf.decode(vector[start : start + leaf.part.width])
            start += leaf.part.width
        return assemble(self.space, values)

    def encode(self, action: Any) -> NDArray[np.float32]:
        """The flat vector, float32 [A], of a Gymnasium action; the inverse of `decode`.

        Raises:
            EnvironmentProblem: if the action does not belong to the space.
        """
        values: dict[Path, Any] = {}
        try:
            _collect(self.space, action, (), into=values)
            pieces = [leaf.encode(values[leaf.path]) for leaf in self._leaves]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EnvironmentProblem(
                f"the action {action!r} does not belong to the action space {self.space}: {error}"
            ) from error
        return np.concatenate(pieces).astype(np.float32)


def random_action(interface: Interface, generator: np.random.Generator) -> NDArray[np.float32]:
    """A flat action vector, float32 [A]: continuous entries uniform in [-1, 1], discrete variables uniform."""
    pieces: list[NDArray[Any]] = []
    for part in interface.actions:
        if part.kind == "continuous":
            pieces.append(generator.uniform(-1, 1, part.size))
        else:
            pieces.extend(_one_hot(int(generator.integers(classes)), classes) for classes in part.classes)
    return np.concatenate(pieces).astype(np.float32)


def _one_hot(index: int, classes: int) -> NDArray[np.float64]:
    """float64 [classes], 1 at `index`."""
    vector = np.zeros(classes)
    vector[index] = 1
    return vector


class _Leaf(ABC):
    """One action part and its translation."""

    path: Path
    part: ActionPart

    @abstractmethod
    def decode(self, vector: NDArray[np.float64]) -> Any:
        """The Gymnasium value of the part's entries, float64 [width]."""

    @abstractmethod
    def encode(self, value: Any) -> NDArray[np.float64]:
        """The part's entries, float64 [width], of a Gymnasium value."""

    @abstractmethod
    def bounds(self) -> list[tuple[float, float]]:
        """Smallest and largest value of every variable."""


class _ContinuousLeaf(_Leaf):
    """A bounded Box, scaled to [-1, 1]."""

    def __init__(self, path: Path, space: gymnasium.spaces.Box, where: str) -> None:
        size = int(np.prod(space.shape))
        if size == 0:
            raise SpaceError(f"{where} is {space}, which has no entries: remove it or give it at least one")
        if space.dtype is None or space.dtype.kind not in "fiub":
            raise SpaceError(f"{where} is {space}, whose dtype {space.dtype} no agent can handle: use float32")
        # A Box of whole numbers turns an infinite bound into the limit of its dtype; is_bounded still knows.
        low, high = space.low.astype(np.float64).reshape(-1), space.high.astype(np.float64).reshape(-1)
        widest = max(np.abs(low).max(), np.abs(high).max())
        if not space.is_bounded("both") or not np.isfinite(widest) or widest > LARGEST_BOUND:
            raise SpaceError(
                f"{where} is {space}, which has infinite bounds, but an agent's action is scaled to finite ones: give "
                f"the space finite bounds, or wrap it: gymnasium.wrappers.TransformAction(environment, "
                f"lambda action: scale * action, gymnasium.spaces.Box(-1, 1, {space.shape}))"
            )
        self.path = path
        self.part = ActionPart(join_path(path) or "action", "continuous", size)
        self._space = space
        self._low, self._high = low, high

    def decode(self, vector: NDArray[np.float64]) -> NDArray[Any]:
        """An array of the shape and dtype of the Box."""
        fraction = (np.clip(vector, -1, 1) + 1) / 2
        # Written as a weighted mean so that -1 and 1 give the bounds exactly.
        value = self._low * (1 - fraction) + self._high * fraction
        dtype = self._space.dtype
        assert dtype is not None
        if dtype.kind != "f":
            value = np.rint(value)
        cast = value.astype(dtype).reshape(self._space.shape)
        return np.asarray(np.clip(cast, self._space.low, self._space.high))

    def encode(self, value: Any) -> NDArray[np.float64]:
        """Entries in [-1, 1]; values outside the bounds are clipped."""
        array = np.asarray(value, dtype=np.float64)
        if array.shape != self._space.shape:
            raise ValueError(f"part {self.part.name!r} has shape {array.shape}, expected {self._space.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"part {self.part.name!r} is not finite")
        spread = np.where(self._high > self._low, self._high - self._low, 1)
        return np.clip(2 * (array.reshape(-1) - self._low) / spread - 1, -1, 1)

    def bounds(self) -> list[tuple[float, float]]:
        """The bounds of the Box."""
        return [(float(low), float(high)) for low, high in zip(self._low, self._high, strict=True)]


class _DiscreteLeaf(_Leaf):
    """Discrete, MultiDiscrete or MultiBinary, as one-hot vectors."""

    def __init__(self, path: Path, space: gymnasium.Space[Any], where: str) -> None:
        self._shape, self._classes, self._starts = discrete_layout(space, where)
        self.path = path
        self.part = ActionPart(join_path(path) or "action", "discrete", len(self._classes), classes=self._classes)
        self._space = space

    def decode(self, vector: NDArray[np.float64]) -> Any:
        """A numpy integer for Discrete, otherwise an array of the shape and dtype of the space."""
        offsets = np.cumsum((0, *self._classes))
        chosen = [int(np.argmax(vector[i:j])) for i, j in zip(offsets[:-1], offsets[1:], strict=True)]
        value = (np.array(chosen) + self._starts).astype(self._space.dtype).reshape(self._shape)
        return value[()] if self._shape == () else value

    def encode(self, value: Any) -> NDArray[np.float64]:
        """One-hot vectors of all variables, concatenated."""
        array = np.asarray(value)
        if array.shape != self._shape or array.dtype.kind not in "iub":
            raise ValueError(f"part {self.part.name!r} is {value!r}, expected whole numbers of shape {self._shape}")
        pieces = []
        for index, classes in zip(array.reshape(-1).astype(np.int64) - self._starts, self._classes, strict=True):
            if not 0 <= index < classes:
                raise ValueError(f"part {self.part.name!r} has a value out of range")
            pieces.append(_one_hot(int(index), classes))
        return np.concatenate(pieces)

    def bounds(self) -> list[tuple[float, float]]:
        """The first and the last choice."""
        starts = np.asarray(self._starts).reshape(-1).tolist()
        return [(float(start), start + classes - 1.0) for start, classes in zip(starts, self._classes, strict=True)]


def _build_leaf(path: Path, space: gymnasium.Space[Any]) -> _Leaf:
    """The leaf for one space that is neither a Dict nor a Tuple."""
    where = f"action {join_path(path)!r}" if path else "the action space"
    if isinstance(space, gymnasium.spaces.Box):
        return _ContinuousLeaf(path, space, where)
    if isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete | gymnasium.spaces.MultiBinary):
        return _DiscreteLeaf(path, space, where)
    raise SpaceError(f"{where} is {space}, a {type(space).__name__} space, which no agent can handle: {SUPPORTED}")


def _collect(space: gymnasium.Space[Any], value: Any, path: Path, into: dict[Path, Any]) -> None:
    """Fill `into` with the value of every leaf of `space`."""
    members = children(space)
    if members is None:
        into[path] = value
        return
    for key, member in members:
        _collect(member, value[key], (*path, key), into=into)
