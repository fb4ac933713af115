"""Walking Gymnasium spaces: their leaves, the names of these, and spaces of whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.errors import SpaceError

# A one-hot vector wider than this would dwarf every network; such a variable is a number, not a class.
MAXIMUM_CLASSES = 65_536
# The one-hot vectors of all variables of a Box together.
MAXIMUM_ONE_HOT_WIDTH = 1_000_000

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
                f"the {what} space has two members both called {name!r} once nested keys are joined with "
                f"'/': rename one of the keys"
            )
        seen.add(name)


def discrete_layout(
    space: gymnasium.Space[Any], where: str
) -> tuple[tuple[int, ...], tuple[int, ...], NDArray[np.int64]]:
    """Shape, number of classes and first value of each variable of a space of whole numbers.

    Args:
        space: a Discrete, MultiDiscrete or MultiBinary space, or a Box of whole numbers.
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
    elif isinstance(space, gymnasium.spaces.Box):
        shape, sizes, starts = _box_layout(space, where)
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


def _box_layout(space: gymnasium.spaces.Box, where: str) -> tuple[tuple[int, ...], NDArray[Any], NDArray[Any]]:
    """Shape, number of classes and first value of each entry of a Box whose entries are symbols."""
    if space.dtype is None or space.dtype.kind not in "iu":
        raise SpaceError(f"{where} is {space}, whose entries cannot be classes: declare a dtype of whole numbers")
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    # Floats, since the difference of two bounds may be beyond the integers; such a count is refused anyway.
    sizes = high.astype(np.float64) - low.astype(np.float64) + 1
    if sizes.sum() > MAXIMUM_ONE_HOT_WIDTH and sizes.max() <= MAXIMUM_CLASSES:
        raise SpaceError(
            f"{where} is {space}, whose one-hot vectors have {int(sizes.sum()):,} entries together, and at most "
            f"{MAXIMUM_ONE_HOT_WIDTH:,} are supported: take it as a vector"
        )
    return tuple(space.shape), sizes, low
