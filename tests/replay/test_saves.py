import errno
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from replay_helpers import FIELDS, assert_same_batches, digest, fill, make_replay, make_row

from reverie.errors import CheckpointError, ConfigError
from reverie.replay import Field, SequenceReplay, files


@pytest.fixture(params=["ram", "disk"])
def storage(request):
    return request.param


def train(replay, updates, seed=0):
    """Samples and rewrites latents."""
    random = np.random.default_rng(seed)
    for _ in range(updates):
        batch = replay.sample(6)
        deterministic = random.normal(size=(6, 4, 3))
        replay.update_latents(batch.index, 1, {"deterministic": deterministic})


def through_json(manifest):
    return json.loads(json.dumps(manifest))


@pytest.mark.parametrize("rows", [0, 3, 8, 29, 40, 41, 67, 133])
def test_restore_is_exact(tmp_path, storage, rows):
    replay = make_replay(tmp_path / "run", storage)
    fill(replay, rows)
    if rows >= 5:
        train(replay, 5)
    manifest = through_json(replay.save("a"))
    before = digest(replay)
    assert digest(replay) == before
    restored = make_replay(tmp_path / "run", storage, seed=99)
    restored.restore(manifest)
    assert digest(restored) == before
    assert len(restored) == len(replay) and restored.num_windows == replay.num_windows
    fill(replay, 9, rows)
    if storage == "ram":  # with disk storage both would write the same files
        fill(restored, 9, rows)
        assert_same_batches(replay, restored)
        train(replay, 5, seed=1)
        train(restored, 5, seed=1)
        assert digest(replay) == digest(restored)
    else:
        copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
        other = make_replay(copy, storage)
        other.restore(manifest)
        fill(other, 9, rows)
        assert_same_batches(replay, other)


def test_many_saves_restores_and_evictions(tmp_path, storage):
    folder = tmp_path / "run"
    reference = make_replay()  # never saved
    replay = make_replay(folder, storage)
    time = 0
    for number in range(25):
        rows = 1 + number * 7 % 19
        fill(reference, rows, time)
        fill(replay, rows, time)
        time += rows
        if reference.num_windows:
            train(reference, 2, number)
            train(replay, 2, number)
        manifest = through_json(replay.save(f"save-{number}"))
        replay.forget_snapshots([f"save-{number}"])
        assert len(list((folder / "saves").iterdir())) == 1
        assert len(list(folder.glob("chunk-*"))) <= 7
        if number % 3 == 0:
            fill(replay, 5, 10_000)  # what a killed process wrote after its last save
            replay = make_replay(folder, storage, seed=5)
            replay.restore(manifest)
        assert digest(replay) == digest(reference)
    assert_same_batches(reference, replay)


def test_an_older_save_stays_restorable_until_it_is_forgotten(tmp_path):
    replay = make_replay(tmp_path)
    fill(replay, 30)
    first, before = replay.save("best"), digest(replay)
    for number in range(4):
        fill(replay, 30, 30 + 30 * number)
        train(replay, 3)
        latest = replay.save("latest")
        replay.forget_snapshots(["best", "latest"])
    assert len(list((tmp_path / "saves").iterdir())) == 2
    other = make_replay(tmp_path)
    other.forget_snapshots(["best", "latest"])  # a new process knows what the saves of the old one need
    other.restore(first)
    assert digest(other) == before
    replay.forget_snapshots(["latest"])
    with pytest.raises(CheckpointError, match="missing"):
        make_replay(tmp_path).restore(first)
    other.restore(latest)
    assert digest(other) == digest(replay)
    assert min(int(path.name[6:]) for path in tmp_path.glob("chunk-*")) == (150 - 40) // 8


def test_windows_may_have_another_length(tmp_path):
    replay = make_replay(tmp_path)
    fill(replay, 30)
    saved = replay.save("a")
    other = make_replay(tmp_path, length=6)
    other.restore(saved)
    assert len(other) == len(replay)
    fill(other, 13)
    starts = other.sample(other.num_envs).index[:, 1]
    assert set(starts) == {30}, "new windows come first: rows 30 to 35"


def test_saves_of_one_name_do_not_overwrite_each_other(tmp_path):
    replay = make_replay(tmp_path)
    fill(replay, 30)
    committed, before = replay.save("latest"), digest(replay)
    train(replay, 3)
    replay.save("latest")  # killed before its manifest was stored
    restored = make_replay(tmp_path)
    restored.restore(committed)
    assert digest(restored) == before
    restored.forget_snapshots(["latest"])  # keeps the restored one, not the newest
    again = make_replay(tmp_path)
    again.restore(committed)
    assert digest(again) == before
    newest = again.save("latest")
    again.forget_snapshots(["latest"])
    assert [path.name for path in (tmp_path / "saves").iterdir()] == [f"{newest['serial']:06d}-latest"]


def test_going_on_from_an_older_save_breaks_newer_ones_audibly(tmp_path):
    replay = make_replay(tmp_path)
    fill(replay, 12)
    older = replay.save("older")
    fill(replay, 12, 12)
    newer = replay.save("newer")
    branch = make_replay(tmp_path)
    branch.restore(older)
    fill(branch, 12, 500)
    branch.save("branch")
    with pytest.raises(CheckpointError, match="checksum"):
        make_replay(tmp_path).restore(newer)


def test_closed_episodes_survive_a_save_and_leave_the_files_alone(tmp_path, storage):
    replay = make_replay(tmp_path, storage, online=False)
    fill(replay, 26)
    older = replay.save("older")
    replay.close_episodes()
    manifest = replay.save("newer")
    assert manifest["closed_rows"] == [25]
    restored = make_replay(tmp_path, storage)
    restored.restore(manifest)
    assert restored._gather(np.array([[0, 21]]))["is_last"][0, 4]
    assert restored.current_episodes()[0].shape == (0, 2)
    restored.restore(older)
    assert not restored._gather(np.array([[0, 21]]))["is_last"][0, 4]
    assert len(restored.current_episodes()[0]) == 5


def test_disk_latents_are_rewritten_in_place(tmp_path):
    replay = make_replay(tmp_path, "disk")
    fill(replay, 30)
    manifest = replay.save("a")
    before = digest(replay, latents=False)
    replay.update_latents(np.array([[1, 3]]), 1, {"deterministic": np.full((1, 4, 3), 7.0)})
    restored = make_replay(tmp_path, "disk")
    restored.restore(manifest)
    assert digest(restored, latents=False) == before
    assert (restored._gather(np.array([[1, 3]]))["deterministic"][:, 1:] == 7).all()


def test_restore_takes_over_the_chunk_size_and_a_new_capacity(tmp_path, storage):
    replay = make_replay(tmp_path, storage)
    fill(replay, 35)
    manifest = replay.save("a")
    smaller = make_replay(tmp_path, storage, chunk_rows=3, capacity=60)
    smaller.restore(manifest)
    assert smaller._chunk_rows == 8
    fill(smaller, 1, 35)
    assert len(smaller) == 60
    assert smaller.sample(40).data["time"].min() >= 16


def test_files_are_readable_with_numpy(tmp_path, storage):
    replay = make_replay(tmp_path, storage)
    fill(replay, 20)
    replay.save("a")
    description = json.loads((tmp_path / "fields.json").read_text())
    assert description["chunk_rows"] == 8 and "np.load" in (tmp_path / "README.txt").read_text()
    for field in description["fields"]:
        if storage == "ram" and field["latent"]:
            continue
        array = np.load(tmp_path / "chunk-00000001" / field["file"], mmap_mode="r", allow_pickle=False)
        assert array.shape == (8, 3, *field["shape"]) and array.dtype == field["dtype"]
        np.testing.assert_array_equal(array[2], make_row(10, 3)[field["name"]].astype(array.dtype))


# Damage: every file that a save needs, in every way that is likely.


def needed_files(folder, manifest):
    paths = [folder / f"chunk-{c['index']:08d}" for c in manifest["chunks"]]
    saves = folder / "saves" / f"{manifest['serial']:06d}-{manifest['name']}"
    return [file for path in [*paths, saves] for file in sorted(path.glob("*.npy"))]


def test_missing_truncated_and_lengthened_files_are_named(tmp_path, storage):
    replay = make_replay(tmp_path, storage, chunk_rows=20)
    fill(replay, 30)
    manifest = replay.save("a")
    paths = needed_files(tmp_path, manifest)
    assert len(paths) == (20 if storage == "disk" else 16 + 2)
    for path in paths:
        whole = path.read_bytes()
        for broken in (None, b"", whole[:5], whole[:70], whole[:-1], whole + b"\0", b"PK\x03\x04" + whole[4:]):
            path.unlink(missing_ok=True)
            if broken is not None:
                path.write_bytes(broken)
            untouched = make_replay(tmp_path, storage)
            with pytest.raises(CheckpointError) as caught:
                untouched.restore(manifest)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)
            assert len(untouched) == 0
        path.write_bytes(whole)
    make_replay(tmp_path, storage).restore(manifest)


def test_flipped_bytes_are_found(tmp_path, storage):
    replay = make_replay(tmp_path, storage, chunk_rows=20)
    fill(replay, 30)
    manifest = replay.save("a")
    random = np.random.default_rng(0)
    for path in needed_files(tmp_path, manifest):
        if path.name in ("deterministic.npy", "stochastic.npy") and storage == "disk":
            continue
        whole = path.read_bytes()
        saved_rows = 30 if "saves" in str(path) else 20 if "chunk-00000000" in str(path) else 10
        rows = len(np.load(path, mmap_mode="r"))
        end = 128 + (len(whole) - 128) // rows * saved_rows
        for position in (128, int(random.integers(128, end)), end - 1):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(CheckpointError, match="checksum") as caught:
                make_replay(tmp_path, storage).restore(manifest)
            assert str(path) in str(caught.value)
        path.write_bytes(whole)


def test_a_flipped_header_byte_never_gives_another_error(tmp_path):
    replay = make_replay(tmp_path)
    fill(replay, 10)
    manifest, before = replay.save("a"), digest(replay)
    path = tmp_path / "chunk-00000000" / "reward.npy"
    whole = path.read_bytes()
    for position in range(128):
        for mask in (1, 8, 64, 128):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :])
            restored = make_replay(tmp_path)
            try:
                restored.restore(manifest)
            except CheckpointError as error:
                assert str(path) in str(error)
            else:
                assert digest(restored) == before


def test_pickles_are_refused(tmp_path):
    replay = make_replay(tmp_path)
    fill(replay, 10)
    manifest = replay.save("a")
    path = tmp_path / "chunk-00000000" / "reward.npy"
    np.save(path, np.full((8, 3), None), allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"reward\.npy"):
        make_replay(tmp_path).restore(manifest)


def test_verify_can_be_left_out_with_disk_storage(tmp_path):
    replay = make_replay(tmp_path, "disk")
    fill(replay, 10)
    manifest = replay.save("a")
    path = tmp_path / "chunk-00000000" / "reward.npy"
    array = np.load(path, mmap_mode="r+")
    array[0] = 77
    make_replay(tmp_path, "disk").restore(manifest, verify=False)
    with pytest.raises(CheckpointError, match=r"reward\.npy"):
        make_replay(tmp_path, "disk").restore(manifest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_envs": 2}, "num_envs=3"), ({"storage": "disk"}, "storage='ram'")],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    replay = make_replay(tmp_path)
    fill(replay, 10)
    manifest = replay.save("a")
    with pytest.raises(CheckpointError, match=message):
        make_replay(tmp_path, **changes).restore(manifest)


def test_other_fields_are_refused(tmp_path):
    replay = make_replay(tmp_path)
    fill(replay, 10)
    manifest = replay.save("a")
    wider = [Field("reward", (), np.dtype(np.float64)) if field.name == "reward" else field for field in FIELDS]
    for fields in (wider, FIELDS[1:], [*FIELDS, Field("more", (), np.dtype(int))], FIELDS[::-1]):
        with pytest.raises(CheckpointError, match="saved configuration"):
            SequenceReplay(fields, 3, 120, 5, 0, folder=tmp_path).restore(manifest)


def test_damaged_manifests_are_refused(tmp_path):
    replay = make_replay(tmp_path)
    fill(replay, 50)
    manifest = replay.save("a")
    for key in manifest:
        for value in (None, "x", -1, 3.5, [], {}, [{}], 10**30, "../../a"):
            broken = {**manifest, key: value}
            if broken == manifest or (key == "closed_rows" and value == {}):
                continue
            if key in ("online_cursor", "serial") and value == 10**30:
                continue
            with pytest.raises(CheckpointError):
                make_replay(tmp_path).restore(broken)
        with pytest.raises(CheckpointError):
            make_replay(tmp_path).restore({k: v for k, v in manifest.items() if k != key})
    for chunks in (manifest["chunks"][1:], manifest["chunks"][::-1]):
        with pytest.raises(CheckpointError, match="do not cover"):
            make_replay(tmp_path).restore({**manifest, "chunks": chunks})


def test_saving_without_a_folder_or_with_a_bad_name(tmp_path):
    replay = make_replay()
    for call in (lambda: replay.save("a"), lambda: replay.restore({})):
        with pytest.raises(ConfigError, match="without a folder"):
            call()
    replay.forget_snapshots([])
    for name in ("", "a/b", "..", ".hidden", "a b", "x" * 101, "a\n"):
        with pytest.raises(ConfigError, match="cannot be named"):
            make_replay(tmp_path).save(name)


# A full disk.


def fail_write_number(monkeypatch, number):
    """Lets the write with this number, and all after it, fail after half of its bytes; returns the counter."""
    original, count = files.write_bytes, [0]

    def write(file, data):
        count[0] += 1
        if count[0] > number:
            original(file, data[: len(data) // 2])
            file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")
        original(file, data)

    monkeypatch.setattr(files, "write_bytes", write)
    return count


def test_a_full_disk_at_any_write_leaves_the_last_save_restorable(tmp_path, monkeypatch):
    folder = tmp_path / "replay"
    replay = make_replay(folder)
    fill(replay, 29)
    train(replay, 3)
    manifest, before = replay.save("a"), digest(replay)
    fill(replay, 15, 29)
    train(replay, 3)
    number, failures = 0, 0
    while True:
        with monkeypatch.context() as patch:
            fail_write_number(patch, number)
            try:
                last = replay.save("a")
                break
            except OSError as error:
                assert error.errno == errno.ENOSPC
                failures += 1
        assert [path.name for path in (folder / "saves").iterdir()] == ["000001-a"]
        restored = make_replay(folder)
        restored.restore(manifest)
        assert digest(restored) == before
        number += 1
    assert failures > 10
    restored = make_replay(folder)
    restored.restore(last)
    assert digest(restored) == digest(replay)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_really_full_disk(small_disk, storage):
    replay = make_replay(small_disk, storage, capacity=60_000, chunk_rows=64)
    manifest, before, time = replay.save("start"), digest(replay), 0
    with pytest.raises(OSError, match="No space left") as caught:
        while time < 20_000:
            fill(replay, 16, time)
            time += 16
            manifest, before = replay.save("a"), digest(replay)
            replay.forget_snapshots(["a"])
    assert caught.value.errno == errno.ENOSPC and time > 500
    restored = make_replay(small_disk, storage, capacity=60_000)
    restored.restore(manifest)
    assert digest(restored) == before
    assert Path(small_disk, "README.txt").exists()


def test_add_on_a_full_disk_raises_and_stores_nothing(small_disk):
    replay = make_replay(small_disk, "disk", capacity=60_000, chunk_rows=1024)  # a map of a sparse file would be killed
    fill(replay, 1024)
    manifest = replay.save("a")
    with pytest.raises(OSError, match="No space left"):
        fill(replay, 20_000, 1024)
    rows = len(replay) // 3
    assert rows % 1024 == 0 and rows >= 2048
    np.testing.assert_array_equal(replay._gather(np.array([[1, rows - 5]]))["time"], [np.arange(rows - 5, rows)])
    restored = make_replay(small_disk, "disk", capacity=60_000)
    restored.restore(manifest)
    assert len(restored) == 1024 * 3
