"""Collected frames on disk, as memory maps that grow episode by episode."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.envs import EnvironmentPool
from reverie.envs.action_codec import random_action
from reverie.errors import RunFolderError
from reverie.training.files import read_json, write_json

PROGRESS = "progress.json"
SPARE_BYTES = 100_000_000
"""Free space that is left for the other stages. (Writing to a map where none is left would kill the process.)"""


class FrameStore:
    """Rows of whole episodes: image, action, reward and flags, one `.npy` file each.

    The files have room for `capacity` rows from the beginning, and take disk space only for rows that are written.
    What `commit` has counted survives a crash.

    Args:
        folder: made if it is not there.
        name: of the image part.
        action_width: A.
        capacity: greatest number of rows.

    Raises:
        RunFolderError: the folder holds rows of other shapes.
    """

    def __init__(self, folder: Path, name: str, action_width: int, capacity: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        fields: dict[str, tuple[tuple[int, ...], Any]] = {
            name: ((64, 64, 3), np.uint8),
            "action": ((action_width,), np.float32),
            "reward": ((), np.float32),
            "is_first": ((), np.bool_),
            "is_terminal": ((), np.bool_),
        }
        self.arrays: dict[str, NDArray[Any]] = {}
        for number, (key, (shape, dtype)) in enumerate(fields.items()):
            path = folder / f"{number}_{key.replace('/', '_')}.npy"
            if not path.exists():
                np.lib.format.open_memmap(path, "w+", dtype, (capacity, *shape)).flush()
            array = np.lib.format.open_memmap(path, "r+")
            if array.shape != (capacity, *shape):
                raise RunFolderError(
                    f"{path} has rows of shape {array.shape}, expected {(capacity, *shape)}; choose another --run"
                )
            self.arrays[key] = array
        progress = read_json(folder / PROGRESS) if (folder / PROGRESS).exists() else {}
        self.rows: int = progress.get("rows", 0)
        self.rounds: int = progress.get("rounds", 0)
        self.lengths: list[int] = progress.get("lengths", [])

    @property
    def starts(self) -> NDArray[np.int64]:
        """Number of the first row of every episode."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    def append(self, episode: Sequence[Mapping[str, Any]]) -> None:
        """Writes the rows of one episode.

        Raises:
            RunFolderError: there is no space left for it.
        """
        size = len(episode) * sum(array.nbytes // len(array) for array in self.arrays.values())
        free = shutil.disk_usage(self.folder).free
        if free < size + SPARE_BYTES:
            raise RunFolderError(
                f"{self.folder} has {free / 1e6:.0f} MB left, too few for another episode: free some space, then "
                f"repeat the command to go on"
            )
        rows = slice(self.rows, self.rows + len(episode))
        for key, array in self.arrays.items():
            array[rows] = np.stack([row[key] for row in episode])
        self.rows = rows.stop
        self.lengths.append(len(episode))

    def commit(self) -> None:
        """Makes everything durable that was appended, and counts one more round."""
        for array in self.arrays.values():
            array.flush()  # type: ignore[attr-defined]
        self.rounds += 1
        write_json(self.folder / PROGRESS, {"rows": self.rows, "rounds": self.rounds, "lengths": self.lengths})


def collect(
    pool: EnvironmentPool,
    store: FrameStore,
    episodes: int,
    longest: int,
    shortest: int,
    hold: int,
    seed: int,
    progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> None:
    """Plays random episodes into a store until it has enough (released code of World Models, `extract.py`).

    A uniformly random action is held for a uniformly random number of steps. The environments of the pool play one
    episode each at a time; whole rounds are committed, and their random numbers depend on the seed and the round alone.

    Args:
        pool: real environments.
        store: goes on from the rounds that it has.
        episodes: how many are wanted.
        longest: steps after which an episode is cut off.
        shortest: shorter episodes are not stored.
        hold: greatest number of steps for which an action is held.
        seed: of the actions.
        progress: called with the number of stored episodes.
        stop: asked after every step; the round is given up if it says true.

    Raises:
        RunFolderError: a hundred rounds gave no episode that is long enough.
    """
    interface = pool.interface
    while len(store.lengths) < episodes:
        generator = np.random.default_rng((seed, store.rounds))
        steps = pool.start_new_episodes(np.full(pool.num_envs, store.rounds))
        actions = np.zeros((pool.num_envs, interface.action_width), np.float32)
        held = np.zeros(pool.num_envs, np.int64)
        played: list[list[dict[str, Any]]] = [[] for _ in range(pool.num_envs)]
        runs = np.ones(pool.num_envs, np.bool_)
        for _ in range(longest):
            for e in np.flatnonzero(held == 0):
                actions[e], held[e] = random_action(interface, generator), generator.integers(1, hold + 1)
            held -= 1
            for e in np.flatnonzero(runs):
                played[e].append(
                    {
                        store.name: steps.observation[store.name][e],
                        "action": actions[e].copy(),
                        "reward": steps.reward[e],
                        "is_first": steps.is_first[e],
                        "is_terminal": steps.is_terminal[e],
                    }
                )
            runs &= ~steps.is_last
            if stop():
                return
            if not runs.any():
                break
            steps = pool.step(actions)
        for episode in played:
            if shortest <= len(episode) and len(store.lengths) < episodes:
                store.append(episode)
        store.commit()
        if store.rounds >= 100 and not store.lengths:
            raise RunFolderError(
                f"none of {store.rounds * pool.num_envs} random episodes had {shortest} steps; lower --shortest-episode"
            )
        progress(len(store.lengths))
