"""What the replay tests share: small fields, rows that encode their place, a digest of everything stored."""

import hashlib
import json
from pathlib import Path

import numpy as np

from reverie.replay import Field, SequenceReplay

FIELDS = (
    Field("observation/image", (2, 2, 3), np.dtype(np.uint8)),
    Field("time", (), np.dtype(np.int64)),
    Field("env", (), np.dtype(np.int32)),
    Field("action", (2,), np.dtype(np.float32)),
    Field("reward", (), np.dtype(np.float32)),
    Field("is_first", (), np.dtype(bool)),
    Field("is_last", (), np.dtype(bool)),
    Field("is_terminal", (), np.dtype(bool)),
    Field("deterministic", (3,), np.dtype(np.float16), latent=True),
    Field("stochastic", (2,), np.dtype(np.uint8), latent=True),
)


def make_row(time: int, num_envs: int, episode: int = 7) -> dict[str, np.ndarray]:
    """Row whose values follow from the time and the environment; episodes are staggered over environments."""
    env = np.arange(num_envs)
    phase = (time + env) % episode
    key = time * num_envs + env
    return {
        "observation/image": (key[:, None, None, None] + np.arange(12).reshape(2, 2, 3)) % 251,
        "time": np.full(num_envs, time),
        "env": env,
        "action": np.stack([key * 0.5, -key], 1).astype(np.float64),
        "reward": key * 0.25,
        "is_first": (phase == 0) | (time == 0),
        "is_last": phase == episode - 1,
        "is_terminal": (phase == episode - 1) & (env % 2 == 0),
        "deterministic": np.stack([key, key + 1, key + 2], 1) * 0.125,
        "stochastic": np.stack([key, key + 1], 1) % 256,
    }


def fill(replay: SequenceReplay, rows: int, start: int = 0) -> None:
    for time in range(start, start + rows):
        replay.add(make_row(time, replay.num_envs))


def all_windows(replay: SequenceReplay) -> np.ndarray:
    """Index of every window that can be sampled."""
    starts = np.arange(replay._first, replay._end - replay.length + 1)
    return np.stack(np.meshgrid(np.arange(replay.num_envs), starts, indexing="ij"), -1).reshape(-1, 2)


def digest(replay: SequenceReplay, latents: bool = True) -> str:
    """Hash of all that decides what the replay will ever return."""
    result = hashlib.sha256()
    for field, name in zip(replay.fields, replay._position, strict=True):
        if latents or not field.latent:
            for block in replay._blocks(replay._position[name]):
                result.update(np.ascontiguousarray(block).tobytes())
    state = [replay._first, replay._end, replay._online_cursor, replay._closed_rows]
    state += [replay._episode_starts.tolist(), replay._random.bit_generator.state]
    result.update(json.dumps(state).encode())
    return result.hexdigest()


def make_replay(folder: Path | None = None, storage: str = "ram", **changes) -> SequenceReplay:
    settings = {"num_envs": 3, "capacity": 120, "length": 5, "seed": 11, "chunk_rows": 8} | changes
    return SequenceReplay(FIELDS, folder=folder, storage=storage, **settings)


def assert_same_batches(first: SequenceReplay, second: SequenceReplay, batches: int = 6, latents: bool = True) -> None:
    for _ in range(batches):
        left, right = first.sample(7), second.sample(7)
        np.testing.assert_array_equal(left.index, right.index)
        for field in first.fields:
            if latents or not field.latent:
                assert left.data[field.name].dtype == field.dtype
                np.testing.assert_array_equal(left.data[field.name], right.data[field.name])
