"""Random sequences of operations against a model that keeps every row in a list."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_helpers import make_row

from reverie.replay import Field, SequenceReplay

FIELDS = (
    Field("key", (2,), np.dtype(np.int64)),
    Field("action", (2,), np.dtype(np.float32)),
    Field("is_first", (), np.dtype(bool)),
    Field("is_last", (), np.dtype(bool)),
    Field("latent", (2,), np.dtype(np.float16), latent=True),
)


class Reference:
    """The same replay, as slowly and plainly as possible."""

    def __init__(self, num_envs, capacity, length):
        self.num_envs, self.length = num_envs, length
        self.limit = capacity // num_envs
        self.rows = {}  # (env, time) -> row
        self.end = 0
        self.queue = []
        self.closed = set()

    @property
    def first(self):
        return max(0, self.end - self.limit)

    def add(self, row):
        for env in range(self.num_envs):
            self.rows[env, self.end] = {name: np.array(value[env]) for name, value in row.items()}
        self.end += 1
        if self.end % self.length == 0:
            self.queue += [(env, self.end - self.length) for env in range(self.num_envs)]
        self.rows = {key: value for key, value in self.rows.items() if key[1] >= self.first}
        self.queue = [key for key in self.queue if key[1] >= self.first]

    def windows(self):
        return {(e, t) for e in range(self.num_envs) for t in range(self.first, self.end - self.length + 1)}

    def check(self, batch):
        index = [tuple(pair) for pair in batch.index.tolist()]
        expected = self.queue[: len(index)]
        assert index[: len(expected)] == expected
        self.queue = self.queue[len(expected) :]
        assert set(index) <= self.windows()
        for number, (env, start) in enumerate(index):
            for step in range(self.length):
                row = self.rows[env, start + step]
                last = row["is_last"] or start + step in self.closed
                if step < self.length - 1:
                    last = last or self.rows[env, start + step + 1]["is_first"]
                assert batch.data["is_last"][number, step] == last
                for name in ("key", "action", "is_first", "latent"):
                    np.testing.assert_array_equal(batch.data[name][number, step], row[name])

    def update(self, index, offset, values):
        for number, (env, start) in enumerate(index.tolist()):
            for step in range(values.shape[1]):
                if (env, start + offset + step) in self.rows:
                    self.rows[env, start + offset + step]["latent"] = values[number, step].astype(np.float16)

    def episodes(self):
        result = []
        for env in range(self.num_envs):
            time = self.end - 1
            if self.end == 0 or time in self.closed or self.rows[env, time]["is_last"]:
                result.append([])
                continue
            while (env, time) in self.rows and not self.rows[env, time]["is_first"]:
                time -= 1
            found = (env, time) in self.rows
            result.append([self.rows[env, t]["action"].tolist() for t in range(time, self.end)] if found else None)
        return result


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 12)),
        st.tuples(st.just("sample"), st.integers(1, 7)),
        st.tuples(st.just("update"), st.integers(0, 2)),
        st.tuples(st.just("close"), st.just(0)),
        st.tuples(st.just("save"), st.just(0)),
        st.tuples(st.just("resume"), st.just(0)),
        st.tuples(st.just("forget"), st.just(0)),
    ),
    min_size=3,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(
    operations,
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(1, 9),
    st.integers(1, 6),
    st.sampled_from(["ram", "disk"]),
)
def test_against_the_reference(steps, num_envs, length, spare, chunk_rows, episode, storage):
    capacity = num_envs * length + spare
    with tempfile.TemporaryDirectory() as folder:

        def make():
            return SequenceReplay(
                FIELDS, num_envs, capacity, length, 5, folder=Path(folder), storage=storage, chunk_rows=chunk_rows
            )

        replay, reference, random = make(), Reference(num_envs, capacity, length), np.random.default_rng(0)
        batch, saves = None, 0
        for kind, amount in steps:
            if kind == "add":
                for _ in range(amount):
                    made = make_row(reference.end, num_envs, episode)
                    key = np.stack([np.arange(num_envs), np.full(num_envs, reference.end)], 1)
                    row = {name: made[name] for name in ("action", "is_first", "is_last")}
                    row |= {"key": key, "latent": made["deterministic"][:, :2].astype(np.float16)}
                    replay.add(row)
                    reference.add(row)
            elif kind == "sample" and replay.num_windows:
                batch = replay.sample(amount)
                reference.check(batch)
            elif kind == "update" and batch is not None:
                offset = min(amount, length - 1)
                values = random.normal(size=(len(batch.index), length - offset, 2))
                replay.update_latents(batch.index, offset, {"latent": values})
                reference.update(batch.index, offset, values)
            elif kind == "close":
                replay.close_episodes()
                newest = [reference.rows[env, reference.end - 1] for env in range(num_envs) if reference.end]
                if newest and not all(row["is_last"] for row in newest):
                    reference.closed.add(reference.end - 1)
            elif kind in ("save", "resume"):
                saves += 1
                manifest = replay.save(f"save-{saves}")
                if kind == "resume":
                    replay = make()
                    replay.restore(manifest)
            elif kind == "forget":
                replay.forget_snapshots([])
            assert len(replay) == min(reference.end, capacity // num_envs) * num_envs
            assert replay.num_windows == len(reference.windows())
            actions = [None if episode is None else episode.tolist() for episode in replay.current_episodes()]
            assert actions == reference.episodes()
