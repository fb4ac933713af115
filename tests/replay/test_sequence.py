import tracemalloc

import numpy as np
import pytest
from replay_helpers import FIELDS, all_windows, fill, make_replay, make_row
from scipy import stats

from reverie.errors import ConfigError
from reverie.replay import Field, SequenceReplay


@pytest.fixture(params=["ram", "disk"])
def storage(request):
    return request.param


def check_batch(replay, batch):
    """Every value of a batch is the one that was added at its time and environment."""
    length = replay.length
    for number, (env, start) in enumerate(batch.index):
        rows = [make_row(time, replay.num_envs) for time in range(start, start + length)]
        for field in replay.fields:
            expected = np.stack([row[field.name][env] for row in rows]).astype(field.dtype)
            if field.name == "is_last":
                expected[:-1] |= np.stack([row["is_first"][env] for row in rows])[1:]
            np.testing.assert_array_equal(batch.data[field.name][number], expected, err_msg=field.name)


def test_sample_is_uniform_over_all_windows(tmp_path, storage):
    replay = make_replay(tmp_path, storage, online=False)
    fill(replay, 67)  # 27 rows forgotten, 40 rows in 5 or 6 chunks
    windows = all_windows(replay)
    assert len(windows) == replay.num_windows == 3 * 36
    draws = np.concatenate([replay.sample(64).index for _ in range(400)])
    counts = np.zeros((3, 36))
    np.add.at(counts, (draws[:, 0], draws[:, 1] - 27), 1)
    assert counts.min() > 0
    assert stats.chisquare(counts.ravel()).pvalue > 0.01


@pytest.mark.parametrize("rows", [5, 8, 9, 40, 41, 48, 67, 200])
def test_windows_hold_consecutive_rows_of_one_environment(tmp_path, storage, rows):
    replay = make_replay(tmp_path, storage)
    fill(replay, rows)
    windows = all_windows(replay)
    assert len(windows) == replay.num_windows
    data = replay._gather(windows)
    np.testing.assert_array_equal(data["time"], windows[:, 1:] + np.arange(5))
    np.testing.assert_array_equal(data["env"], np.broadcast_to(windows[:, :1], (len(windows), 5)))
    for _ in range(5):
        check_batch(replay, replay.sample(16))


def test_windows_longer_than_chunks():
    replay = make_replay(length=30, chunk_rows=4)
    fill(replay, 100)
    check_batch(replay, replay.sample(20))


def test_batches_are_new_contiguous_arrays():
    replay = make_replay()
    fill(replay, 20)
    batch = replay.sample(4)
    for field in FIELDS:
        array = batch.data[field.name]
        assert array.shape == (4, 5, *field.shape) and array.dtype == field.dtype and array.flags.c_contiguous
        array[...] = 0
    assert replay.sample(4).data["observation/image"].any()


def test_is_last_is_set_before_is_first_and_is_first_is_not_forced():
    replay = make_replay(num_envs=1, capacity=50, length=4, online=False)
    for time in range(4):
        row = make_row(time, 1)
        row["is_last"][:] = False
        row["is_first"][:] = time == 2
        replay.add(row)
    data = replay.sample(1).data
    assert data["is_last"][0].tolist() == [False, True, False, False]
    assert data["is_first"][0].tolist() == [False, False, True, False]
    assert not replay._store.arrays(0)[replay._position["is_last"]].any()  # the stored rows stay as they were


def test_online_queue_serves_each_new_window_once_and_first():
    replay = make_replay(capacity=3000)
    served = []
    for time in range(200):
        fill(replay, 1, time)
        if time >= 5 and time % 3 == 0:
            batch = replay.sample(4)
            expected = (time + 1) // 5 * 3 - len(served)
            new = [tuple(pair) for pair in batch.index[: min(4, expected)].tolist()]
            assert all(start % 5 == 0 for _, start in new)
            served += new
    assert len(set(served)) == len(served)
    assert sorted(served) == [(env, start) for env in range(3) for start in range(0, 195, 5)]


def test_online_queue_drops_forgotten_windows():
    replay = make_replay()
    fill(replay, 67)  # rows 27 to 66 are left; complete windows start at 30, 35, ..., 60
    index = np.concatenate([replay.sample(6).index for _ in range(4)])
    expected = [[env, start] for start in range(30, 61, 5) for env in range(3)]
    assert index[:21].tolist() == expected
    fill(replay, 8, 67)
    assert replay.sample(6).index[:6].tolist() == [[env, start] for start in (65, 70) for env in range(3)]


def test_online_off_never_queues():
    replay = make_replay(online=False)
    fill(replay, 40)
    index = np.concatenate([replay.sample(3).index for _ in range(8)])
    assert index.tolist() != [[env, start] for start in range(0, 40, 5) for env in range(3)]


def test_latents_write_back_round_trip(tmp_path, storage):
    replay = make_replay(tmp_path, storage, online=False)
    fill(replay, 40)
    index = np.array([[0, 2], [1, 6], [2, 30]])
    deterministic = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    stochastic = np.random.default_rng(1).integers(0, 255, size=(3, 4, 2))
    before = replay._gather(all_windows(replay))
    replay.update_latents(index, 1, {"deterministic": deterministic, "stochastic": stochastic})
    data = replay._gather(index)
    np.testing.assert_array_equal(data["deterministic"][:, 1:], deterministic.astype(np.float16))
    np.testing.assert_array_equal(data["stochastic"][:, 1:], stochastic.astype(np.uint8))
    after = replay._gather(all_windows(replay))
    touched = np.zeros((3, 40), bool)
    for env, start in index:
        touched[env, start + 1 : start + 5] = True
    windows = all_windows(replay)
    mask = touched[windows[:, :1], windows[:, 1:] + np.arange(5)]
    for field in FIELDS:
        same = (before[field.name] == after[field.name]).reshape(*mask.shape, -1).all(-1)
        assert same[~mask].all(), field.name
        if not field.latent:
            assert same.all(), field.name


def test_later_window_wins_where_windows_overlap():
    replay = make_replay(online=False)
    fill(replay, 40)
    values = np.stack([np.full((4, 3), 1.0), np.full((4, 3), 2.0)])
    replay.update_latents(np.array([[0, 2], [0, 4]]), 1, {"deterministic": values})
    row = replay._gather(np.array([[0, 3], [0, 5]]))["deterministic"][:, :, 0]
    assert row[0].tolist() == [1, 1, 2, 2, 2] and row[1, :4].tolist() == [2, 2, 2, 2]


def test_latents_of_forgotten_rows_are_skipped(tmp_path, storage):
    replay = make_replay(tmp_path, storage, online=False)
    fill(replay, 40)
    index = np.array([[0, 0], [1, 8], [2, 30], [0, 36]])  # afterwards rows 10 to 49 are left; [0, 36] never was whole
    fill(replay, 10, 40)
    before = replay._gather(all_windows(replay))["deterministic"]
    replay.update_latents(index, 1, {"deterministic": np.full((4, 4, 3), -5.0)})
    after = replay._gather(all_windows(replay))["deterministic"]
    changed = {
        (env, start + step)
        for number, (env, start) in enumerate(all_windows(replay).tolist())
        for step in range(5)
        if (before[number, step] != after[number, step]).any()
    }
    expected = {(1, row) for row in (10, 11, 12)} | {(2, row) for row in (31, 32, 33, 34)}
    assert changed == expected | {(0, row) for row in (37, 38, 39, 40)}


def test_update_latents_refuses_what_does_not_fit():
    replay = make_replay(online=False)
    fill(replay, 20)
    index = replay.sample(2).index
    with pytest.raises(ValueError, match="not a latent field"):
        replay.update_latents(index, 1, {"reward": np.zeros((2, 4))})
    with pytest.raises(ValueError, match="not a latent field"):
        replay.update_latents(index, 1, {"unknown": np.zeros((2, 4))})
    for shape, offset in [((2, 4, 2), 1), ((3, 4, 3), 1), ((2, 5, 3), 1), ((2, 4, 3), -1), ((2,), 1)]:
        with pytest.raises(ValueError, match="expected"):
            replay.update_latents(index, offset, {"deterministic": np.zeros(shape)})
    with pytest.raises(ValueError, match="expected"):
        replay.update_latents(index, 1, {"deterministic": np.zeros((2, 4, 3)), "stochastic": np.zeros((2, 3, 2))})


def test_length_counts_env_rows_up_to_the_capacity():
    replay = make_replay(capacity=122)  # 40 time rows of 3 environments
    for time in range(100):
        fill(replay, 1, time)
        assert len(replay) == min(time + 1, 40) * 3
        assert replay.num_windows == max(0, min(time + 1, 40) - 4) * 3


def test_memory_is_bounded(tmp_path):
    fields = (*FIELDS, Field("big", (4096,), np.dtype(np.uint8)))
    replay = SequenceReplay(fields, 2, 200, 5, 0, chunk_rows=20)
    big = np.ones((2, 4096), np.uint8)
    tracemalloc.start()
    try:
        for time in range(2000):
            replay.add({**make_row(time, 2), "big": big})
            assert len(replay._store._chunks) <= 6
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.0 * (100 + 2 * 20) * 2 * 4096


def test_files_of_forgotten_chunks_go_when_nothing_was_saved(tmp_path):
    replay = make_replay(tmp_path, "disk")
    fill(replay, 200)
    assert len(list(tmp_path.glob("chunk-*"))) <= 6


def test_disk_storage_works_with_few_descriptors(tmp_path):
    replay = make_replay(tmp_path, "disk", chunk_rows=5)
    replay._store._max_open = 2
    fill(replay, 90)
    assert len(replay._store._open) == 2
    check_batch(replay, replay.sample(30))
    replay.update_latents(np.array([[0, 52], [1, 80]]), 0, {"deterministic": np.full((2, 5, 3), 9.0)})
    assert (replay._gather(np.array([[0, 52], [1, 80]]))["deterministic"] == 9).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": 14}, "use a capacity of at least 15"),
        ({"capacity": 0}, "at least 15"),
        ({"num_envs": 0}, "num_envs=0"),
        ({"length": 0}, "length=0"),
        ({"chunk_rows": 0}, "chunk_rows=0"),
        ({"seed": -1}, "seed=-1"),
        ({"storage": "tape"}, "'ram' or 'disk'"),
        ({"storage": "disk"}, "needs a folder"),
    ],
)
def test_settings_that_cannot_work(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_replay(**changes)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([Field("a/b", (), np.dtype(int)), Field("a__b", (), np.dtype(int))], "share the file"),
        ([Field("x", (), np.dtype(object))], "plain numeric"),
        ([Field("x", (0,), np.dtype(int))], "at least 1"),
    ],
)
def test_fields_that_cannot_work(extra, message):
    with pytest.raises(ConfigError, match=message):
        SequenceReplay([*FIELDS, *extra], 1, 50, 5, 0)


def test_flags_are_required():
    fields = [field for field in FIELDS if field.name != "is_last"]
    with pytest.raises(ConfigError, match="is_last"):
        SequenceReplay(fields, 1, 50, 5, 0)


def test_capacity_of_exactly_one_window():
    replay = make_replay(capacity=15)
    fill(replay, 33)
    assert replay.num_windows == 3
    assert set(replay.sample(20).index[:, 1].tolist()) == {28}


def test_add_refuses_rows_that_do_not_fit_and_stores_nothing():
    replay = make_replay()
    fill(replay, 8)
    good = make_row(8, 3)
    for bad in (
        {name: value for name, value in good.items() if name != "reward"},
        {**good, "extra": good["reward"]},
        {**good, "reward": np.zeros(2)},
        {**good, "action": np.zeros(3)},
        {**good, "stochastic": np.zeros((1, 2))},
    ):
        with pytest.raises(ValueError, match=r"expected"):
            replay.add(bad)
    assert len(replay) == 24
    replay.add(good)
    check_batch(replay, replay.sample(9))


def test_sample_before_a_window_is_stored():
    replay = make_replay()
    fill(replay, 4)
    with pytest.raises(ValueError, match="num_windows > 0"):
        replay.sample(2)


def test_same_seed_gives_same_batches():
    first, second, third = make_replay(), make_replay(), make_replay(seed=12)
    for replay in (first, second, third):
        fill(replay, 30)
    left, right, other = (np.concatenate([r.sample(16).index for _ in range(5)]) for r in (first, second, third))
    np.testing.assert_array_equal(left, right)
    assert (left != other).any()


def test_current_episodes(tmp_path, storage):
    replay = make_replay(tmp_path, storage)
    assert [episode.shape for episode in replay.current_episodes()] == [(0, 2)] * 3
    fill(replay, 26)  # the newest row, 25, has phases 4, 5 and 6 in episodes of 7 rows
    first, second, third = replay.current_episodes()
    np.testing.assert_array_equal(first, [make_row(time, 3)["action"][0] for time in range(21, 26)])
    np.testing.assert_array_equal(second, [make_row(time, 3)["action"][1] for time in range(20, 26)])
    assert third.shape == (0, 2)


def test_current_episodes_that_began_before_the_oldest_row():
    replay = make_replay(num_envs=1, capacity=20)
    for time in range(30):
        row = make_row(time, 1)
        row["is_first"][:], row["is_last"][:] = time == 9, False
        replay.add(row)
        episode = replay.current_episodes()[0]
        if time < 9:
            assert episode is None  # no start was ever stored
        else:
            assert episode is None if time - 20 >= 9 else len(episode) == time - 8


def test_close_episodes_marks_the_newest_rows(tmp_path, storage):
    replay = make_replay(tmp_path, storage, online=False)
    replay.close_episodes()  # nothing stored: nothing happens
    fill(replay, 26)
    replay.close_episodes()
    replay.close_episodes()
    assert [episode.shape for episode in replay.current_episodes()] == [(0, 2)] * 3
    data = replay._gather(np.array([[0, 21], [1, 21], [2, 21]]))
    assert data["is_last"][:, 4].all() and not data["is_last"][:2, 3].any()
    assert not data["is_terminal"][:2].any()
    fill(replay, 10, 26)
    assert replay._gather(np.array([[0, 23]]))["is_last"][0].tolist() == [False, False, True, False, True]
    fill(replay, 40, 36)
    assert replay._closed_rows == []
