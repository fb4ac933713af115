"""World Models in stages: a whole run, interruptions in every stage, and the pieces."""

import json
import os
import shutil
import signal

import av
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from PIL import Image
from run_helpers import expect_sentence

import reverie
from reverie.agents.registry import make_config
from reverie.agents.world_models import RECIPES, WorldModelsConfig
from reverie.cli.main import main
from reverie.envs import EnvironmentSource
from reverie.errors import CheckpointError, ConfigError, RunFolderError
from reverie.spaces import ActionPart, Interface, ObservationPart
from reverie.tensor_files import read_tensors
from reverie.training.metrics import read_metrics
from reverie.training.pipeline import frames, learning, world_models
from reverie.training.pipeline.frames import FrameStore, collect
from reverie.training.pipeline.learning import memory_chunks
from reverie.training.pipeline.loading import latents_file, newest_latents
from reverie.training.pipeline.players import Players
from reverie.training.pipeline.policies import Job, RandomPolicy
from reverie.training.pipeline.search import ControllerSearch, read_search

TINY = {
    "latent": 3,
    "memory_units": 8,
    "collect_episodes": 9,
    "vision_batch": 20,
    "memory_updates": 6,
    "memory_batch": 4,
    "memory_length": 10,
    "population": 4,
    "rollouts": 2,
    "generations": 4,
    "dream_horizon": 6,
    "evaluate_every": 2,
    "evaluation_episodes": 2,
}


def words(run, **options):
    line = ["train", "world-models", "--env", "reverie/CatchPixels-v0", "--run", str(run), "--quiet", "--threads", "1"]
    for name, value in {**TINY, "preset": "paper", "num_envs": 4, "vectorization": "in-process", **options}.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    return line


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("pipeline") / "run"
    assert main(words(run)) == 0
    return run


def first_frame(path):
    """The picture, or the first frame of the video, uint8 [H, W, 3]."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def test_a_run_leaves_what_it_should(whole, capsys):
    scores = json.loads((whole / "scores.json").read_text())
    assert [score["generation"] for score in scores] == [2, 4]
    assert all(score["episodes"] == 2 and -5 <= score["mean"] <= 5 for score in scores)
    assert all(score["dream"]["episodes"] == 2 and score["dream"]["std"] >= 0 for score in scores)
    pictures = (
        "learning_curve.png",
        "videos/reconstruction.png",
        "videos/sliders.png",
        "videos/temperatures.mp4",
        "videos/game.mp4",
    )
    seconds = json.loads((whole / "seconds.json").read_text())
    assert len(seconds) == 5 and seconds["evolving in the dream (C)"] > 0
    for name in ("config.json", "latents.npy", *pictures):
        assert (whole / name).stat().st_size > 100, name
    for name in pictures[1:]:
        picture = first_frame(whole / name)
        assert picture.shape[1] >= 480, name
        assert (picture[:26] < 128).sum() > 100, f"{name} has no title"
        assert (picture[26:46] < 128).sum() > 30, f"{name} has no labels"
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if "evaluation/return" in line]
    assert [line["generation"] for line in evaluated] == [2, 4]
    assert [line["evaluation/return"] for line in evaluated] == [score["mean"] for score in scores]
    assert main(["evaluate", str(whole), "--episodes", "2", "--seed", "5"]) == 0
    first = capsys.readouterr().out
    assert "mean return" in first
    assert main(["evaluate", str(whole), "--episodes", "2", "--seed", "5"]) == 0
    assert capsys.readouterr().out == first
    assert main(words(whole)) == 0
    assert "generation     4" in capsys.readouterr().out


def assert_same(one, other):
    for name in ("vision", "memory", "controller"):
        first, second = (read_tensors(run / f"{name}.safetensors") for run in (one, other))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], name
    assert np.array_equal(np.load(one / "latents.npy"), np.load(other / "latents.npy"))
    assert (one / "scores.json").read_text() == (other / "scores.json").read_text()
    assert_same_metrics(one, other)


def assert_same_metrics(one, other):
    first, second = (read_metrics(run) for run in (one, other))
    assert [{**record, "seconds": 0} for record in first] == [{**record, "seconds": 0} for record in second]


@pytest.mark.parametrize(
    ("place", "name", "call"),
    [
        (world_models, "collect", 1),
        (learning.Training, "step", 3),
        (world_models, "encode_frames", 1),
        (learning.Training, "step", 12),
        (world_models, "dreamed_returns", 2),
        (world_models, "ControllerPolicy", 1),
    ],
)
def test_ctrl_c_anywhere_changes_nothing(whole, tmp_path, monkeypatch, capsys, place, name, call):
    real, calls = getattr(place, name), []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, interrupted)
    run = tmp_path / "run"
    assert main(words(run)) == 130
    assert "repeat the command" in capsys.readouterr().out
    assert main(words(run)) == 0
    assert_same(whole, run)


@pytest.mark.parametrize(
    ("place", "name", "call", "lines"),
    [
        (learning.Training, "step", 4, 3),
        (learning.Training, "step", 12, 11),
        (world_models, "dreamed_returns", 2, 16),  # in the second generation
        (world_models, "dreamed_returns", 5, 19),  # in the fourth; the evaluation, with a line, has saved the first two
    ],
)
def test_metrics_after_the_last_checkpoint_are_written_again(whole, tmp_path, monkeypatch, place, name, call, lines):
    real, calls = getattr(place, name), []

    def crashing(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise RuntimeError("crash")
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, crashing)
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="crash"):
        main(words(run))
    assert len(read_metrics(run)) == lines
    assert main(words(run)) == 0
    assert_same(whole, run)


def test_metrics_tell_of_every_stage(whole):
    records = read_metrics(whole)
    assert [record["updates"] for record in records] == [
        *range(1, 16),
        *[15] * 6,
    ]  # of C four generations and two evaluations
    assert all({"loss/vision/reconstruction", "loss/vision/kl"} <= set(record) for record in records[:9])
    assert all({"loss/memory/latent", "loss/memory/restart"} <= set(record) for record in records[9:15])
    data, _ = read_search(whole / "controller.safetensors")
    last = [
        [record["generation"], record["dream/return"], record["dream/return_max"]]
        for record in records[15:]
        if "dream/return" in record
    ]
    assert np.allclose(last, data["history"], atol=1e-3)
    assert {record["env_steps"] for record in records} == {9 * 19}


def test_dreams_of_a_run_begin_in_first_frames(whole):
    agent = reverie.load(whole).agent
    assert agent.first_latents.shape == (2, 9, 3)
    assert torch.equal(agent.first_latents[0], torch.from_numpy(np.load(whole / "latents.npy")[0, ::20]).float())
    store = FrameStore(whole / "frames", "image", 3, 9 * 2100)
    assert store.arrays["is_first"][store.starts].all() and len(store.starts) == 9
    assert store.arrays["is_first"][: store.rows].sum() == 9


CATCH = EnvironmentSource("reverie/CatchPixels-v0")
ACTIONS = (ActionPart("action", "discrete", 1, (3,)),)


def random_store(folder, episodes=7, **options):
    store = FrameStore(folder, "image", 3, 1000)
    players = Players(CATCH, 0, 2)
    policy = RandomPolicy(ACTIONS, 4, "held")
    arguments = {"longest": 50, "shortest": 2, **options}
    collect(players, policy, store, episodes, job=Job, progress=lambda n: None, stop=lambda: False, **arguments)
    players.close()
    return store


def test_collected_rows_are_whole_episodes(tmp_path):
    store = random_store(tmp_path / "a")
    assert store.lengths == [20] * 7 and store.rows == 140
    terminal = store.arrays["is_terminal"][:140].reshape(7, 20)
    assert terminal[:, -1].all() and not terminal[:, :-1].any()
    assert (store.arrays["action"][:140].sum(1) == 1).all()
    changes = (np.diff(store.arrays["action"][:140].reshape(7, 20, 3), axis=1) != 0).any(-1).mean()
    assert 0.1 < changes < 0.5, "actions are held for 2.5 steps on average, and the next is another with 2/3"
    again = FrameStore(tmp_path / "a", "image", 3, 1000)
    assert (again.rows, again.lengths, again.tried) == (store.rows, store.lengths, store.tried)
    for name, array in store.arrays.items():
        assert np.array_equal(array, again.arrays[name])


@pytest.mark.parametrize("file", ["0_image.npy", "1_action.npy", "2_reward.npy", "4_is_terminal.npy"])
@pytest.mark.parametrize("harm", ["missing", "altered", "cut", "header"])
def test_frames_that_are_not_those_that_were_stored_are_named(tmp_path, file, harm):
    random_store(tmp_path / "a")
    path = tmp_path / "a" / file
    if harm == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        if harm == "cut":
            del data[-9:]
        else:
            data[3 if harm == "header" else 168] ^= 1  # the header has 128 bytes
        path.write_bytes(data)
    with pytest.raises((RunFolderError, CheckpointError), match=file):
        FrameStore(tmp_path / "a", "image", 3, 1000).verify()


def test_frames_of_a_run_without_checksums_get_them(tmp_path):
    random_store(tmp_path / "a")
    progress = tmp_path / "a" / "progress.json"
    known = json.loads(progress.read_text())
    progress.write_text(json.dumps({key: value for key, value in known.items() if key != "crc32"}))
    store = FrameStore(tmp_path / "a", "image", 3, 1000)
    store.verify()
    store.commit()
    assert json.loads(progress.read_text()) == known and len(known["crc32"]) == 5


@pytest.mark.parametrize(
    ("key", "value"), [("rows", 3), ("rows", "x"), ("lengths", [-20, 160]), ("lengths", None), ("crc32", 3)]
)
def test_counters_that_no_run_writes_are_refused(tmp_path, key, value):
    random_store(tmp_path / "a")
    progress = tmp_path / "a" / "progress.json"
    progress.write_text(json.dumps({**json.loads(progress.read_text()), key: value}))
    with pytest.raises(CheckpointError, match="progress.json"):
        FrameStore(tmp_path / "a", "image", 3, 1000)


def test_nothing_is_learned_from_frames_that_were_altered(whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for name in ("vision.safetensors", "memory.safetensors", "controller.safetensors", "latents.npy"):
        (run / name).unlink()
    frames = np.lib.format.open_memmap(run / "frames" / "0_image.npy", "r+")
    frames[:180] = 0
    frames.flush()
    expect_sentence(capsys, main(words(run)), "0_image.npy", "checksum")
    assert not (run / "vision.safetensors").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("latents.npy", b"noise"),
        ("frames/progress.json", b"[" * 10**5),
        ("frames/progress.json", b'{"rows": 1, "lengths": ["x"]}'),
        ("vision.safetensors", b"noise"),
        ("controller.safetensors", b""),
    ],
)
def test_damaged_files_of_a_run_are_named(whole, tmp_path, capsys, file, content):
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("0_image.npy", "videos"))
    (run / file).write_bytes(content)
    expect_sentence(capsys, main(["evaluate", str(run), "--episodes", "1"]), file)


def test_long_episodes_are_cut_and_short_ones_left_out(tmp_path):
    assert random_store(tmp_path / "cut", longest=8).lengths == [8] * 7
    with pytest.raises(RunFolderError, match="--shortest-episode"):
        random_store(tmp_path / "short", shortest=30)
    with pytest.raises(RunFolderError, match="another --run"):
        FrameStore(tmp_path / "cut", "image", 2, 1000)


def test_encoding_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "ENCODED_AT_ONCE", 20)
    model = WorldModelsConfig(latent=3, memory_units=8).build(
        EnvironmentSource("reverie/CatchPixels-v0").make().interface
    )
    store, path = random_store(tmp_path / "frames"), tmp_path / "latents.npy"
    whole = learning.encode_frames(model.world_model, store, 140, tmp_path / "whole.npy", lambda done: False)
    assert learning.encode_frames(model.world_model, store, 140, path, lambda done: done == 60) is None
    assert not path.exists()
    seen = []
    again = learning.encode_frames(model.world_model, store, 140, path, lambda done: seen.append(done))
    assert seen == [80, 100, 120, 140]
    assert np.array_equal(whole, again) and again.any((0, 2)).all()
    assert sorted(file.name for file in tmp_path.glob(".*")) == []


def test_curiosity_is_part_of_the_fitness_but_not_of_the_returns(tmp_path):
    options = {**TINY, "evolve_in": "environment", "curiosity": 50.0}
    config = make_config("world-models", options)
    settings = world_models.PipelineSettings(vectorization="in-process", num_envs=4)
    training = world_models.WorldModelsTraining(config, settings, CATCH, tmp_path / "run", visible=False)
    try:
        policy = training._controller_policy()
        candidates = training.search.evolution.ask()
        returns, fitness, _ = training._try_candidates(0, policy)
        seeds = [world_models.episode_seed(0, world_models.EVOLVING, r) for r in range(2)]
        jobs = [Job(seed, parameters) for parameters in candidates for seed in seeds]
        episodes = list(training._players.play(policy, jobs, longest=1000))
    finally:
        training.close()
    means = np.array([(e.total, e.surprise) for e in episodes]).reshape(4, 2, 2).mean(1)
    np.testing.assert_allclose(returns, means[:, 0])
    np.testing.assert_allclose(fitness - returns, 50 * means[:, 1], rtol=1e-4)
    assert means[:, 1].all()


def test_chunks_follow_each_other_and_hold_whole_episodes(tmp_path):
    store = random_store(tmp_path)
    chunks = list(memory_chunks(store.lengths, 2, 15, (0, 0)))
    assert len(chunks) == 4 and all(chunk.shape == (2, 16) for chunk in chunks)
    for before, after in zip(chunks[:-1], chunks[1:], strict=True):
        assert np.array_equal(before[:, -1], after[:, 0])
    stream = np.concatenate([chunks[0], *[chunk[:, 1:] for chunk in chunks[1:]]], 1)[0]
    steps = np.diff(stream)
    assert (steps[(stream[1:] % 20) != 0] == 1).all(), "within an episode rows follow each other"
    other = list(memory_chunks(store.lengths, 2, 15, (0, 1)))
    assert not np.array_equal(chunks[0], other[0]), "another epoch has another order"


def test_what_cannot_be_trained(tmp_path, capsys):
    line = words(tmp_path / "a")
    line[line.index("reverie/CatchPixels-v0")] = "CartPole-v1"
    expect_sentence(capsys, main(line), "64x64", "--pixels")
    assert not (tmp_path / "a").exists()
    expect_sentence(capsys, main(words(tmp_path / "b", generations=0)), "generations", "0")
    expect_sentence(capsys, main(words(tmp_path / "c", memory_length=500)), "too few", "memory_length")
    expect_sentence(capsys, main(["evaluate", str(tmp_path / "c")]), "train first")
    expect_sentence(capsys, main([*words(tmp_path / "c"), "--curiosity", "1"]), "curiosity", "environment")
    blind = ["--curiosity", "1", "--evolve-in", "environment", "--controller-reads", "z"]
    expect_sentence(capsys, main([*words(tmp_path / "c"), *blind]), "curiosity", "controller_reads zh")
    expect_sentence(capsys, main([*words(tmp_path / "d"), "--checkpoint", "3"]), "--checkpoint")
    with pytest.raises(ConfigError, match="memory_length"):
        WorldModelsConfig(memory_length=1)


def test_the_python_interface(whole, tmp_path, capsys):
    learner = reverie.load(whole)
    assert learner.source.name == "reverie/CatchPixels-v0"
    action, state = learner.predict(np.zeros((64, 64, 3), np.uint8))
    assert action in range(3) and learner.predict(np.zeros((64, 64, 3), np.uint8), state)[0] in range(3)
    scores = learner.evaluate(episodes=3, seed=1).returns
    learner.save(tmp_path / "saved")
    again = reverie.load(tmp_path / "saved")
    assert again.evaluate(episodes=3, seed=1).returns == scores
    with pytest.raises(ConfigError, match="without its frames"):
        again.learn()
    for context in (0, 2):
        dream = again.dream_env(context=context, horizon=5, render_mode="rgb_array")
        check_env(dream, skip_render_check=True)
        assert dream.render().dtype == np.uint8 and dream.render().any()
        assert not dream._translation.dream.draw_ends, "dreams are those in which C evolves"
    assert again.dream_env(draw_ends=True)._translation.dream.draw_ends
    dreams = again.dream_env(3, horizon=5, render_mode="rgb_array")
    observation, _ = dreams.reset(seed=0)
    assert observation.shape == (3, 64, 64, 3)
    for _ in range(6):
        observation, reward, _, truncated, _ = dreams.step(dreams.action_space.sample())
    assert observation.any() and np.isfinite(reward).all() and len(dreams.render()) == 3
    assert main(["dream", str(whole), "--length", "10", "--sequences", "2"]) == 0
    assert (whole / "videos" / "dream.mp4").stat().st_size > 100
    expect_sentence(capsys, main(["evaluate", str(whole), "--checkpoint", "3"]), "best or latest")
    fresh = reverie.WorldModels("reverie/CatchPixels-v0", run=tmp_path / "run", vectorization="in-process", **TINY)
    for dreaming in (fresh.dream_env, fresh.dream):
        with pytest.raises(ConfigError, match="not learned yet"):
            dreaming()
    with pytest.raises(ConfigError, match="in stages"):
        fresh.learn(100)
    fresh.learn(progress=False)
    assert fresh.evaluate(episodes=2).lengths == [19, 19]


def test_another_configuration_is_another_run(whole, capsys):
    expect_sentence(capsys, main(words(whole, latent=4)), "latent", "another run")


IMAGE = (ObservationPart("image", "image", (64, 64, 3)),)


@pytest.mark.parametrize(
    ("preset", "values", "actions", "model", "controller"),
    [
        ("take-cover", {}, 1, (4_446_915, 1_678_785), 1_088),
        ("car-racing", {"controller_reads": "z"}, 3, None, 99),
        ("car-racing", {"controller_reads": "z", "controller": "hidden"}, 3, None, 1_443),
        ("car-racing", {}, 3, (4_348_547, 422_368), 867),
    ],
)
def test_the_papers_sizes(preset, values, actions, model, controller):
    config = make_config("world-models", values, preset)
    built = config.build(Interface(IMAGE, (ActionPart("action", "continuous", actions),)))
    assert built.controller.count == controller
    parts = (built.world_model.vision, built.world_model.memory)
    if model:
        assert tuple(sum(parameter.numel() for parameter in part.parameters()) for part in parts) == model


@pytest.mark.parametrize("options", [{}, {"random_memory": None}])
def test_evolution_in_the_real_environment(tmp_path, capsys, options):
    line = words(tmp_path / "run", evolve_in="environment")
    assert main(line + [f"--{name.replace('_', '-')}" for name in options]) == 0
    assert "in the environment" in capsys.readouterr().out
    memory = read_tensors(tmp_path / "run" / "memory.safetensors")
    assert int(memory["updates"]) == (0 if options else 6)
    if options:
        assert not (tmp_path / "run" / "videos" / "temperatures.mp4").exists()
        with pytest.raises(ConfigError, match="random"):
            reverie.load(tmp_path / "run").dream_env()
    config = json.loads((tmp_path / "run" / "config.json").read_text())["agent_config"]
    collected = config["collect_episodes"] * 19
    for score in json.loads((tmp_path / "run" / "scores.json").read_text()):
        evolved = score["generation"] * config["population"] * config["rollouts"] * 19
        assert score["env_steps"] == collected + evolved


def test_a_random_memory_cannot_dream():
    with pytest.raises(ConfigError, match="evolve_in"):
        WorldModelsConfig(random_memory=True)


def test_a_disk_without_space_ends_with_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(frames.FrameStore, "row_bytes", 10**12)
    expect_sentence(capsys, main(words(tmp_path / "run")), "MB left", "repeat the command")
    assert main([word for word in words(tmp_path / "run") if word != "--quiet"]) == 2
    assert "if no episode ends early" in " ".join(capsys.readouterr().err.split())
    monkeypatch.undo()
    assert main([word for word in words(tmp_path / "run") if word != "--quiet"]) == 0
    assert "if no episode ends early" not in " ".join(capsys.readouterr().err.split())


def test_iterations_go_on_with_all_frames(tmp_path, monkeypatch, capsys):
    options = {"iterations": 2, "generations": 2, "memory_updates": 3, "collect_episodes": 5}
    whole = tmp_path / "whole"
    assert main([*words(whole, **options), "--action-head"]) == 0
    lengths = json.loads((whole / "frames" / "progress.json").read_text())["lengths"]
    assert lengths == [20] * 10
    memory = read_tensors(whole / "memory.safetensors")
    assert int(memory["updates"]) == 6 and "module.action_output.weight" in memory
    assert int(read_tensors(whole / "vision.safetensors")["updates"]) == 100 // 20 + 200 // 20
    assert np.load(whole / "latents_1.npy").shape == (2, 200, 3) and not (whole / "latents.npy").exists()
    scores = json.loads((whole / "scores.json").read_text())
    assert [score["generation"] for score in scores] == [2, 4]
    assert reverie.load(whole).agent.first_latents.shape == (2, 5, 3)
    # The same, interrupted in the second collection and again in the second training of M.
    real, calls = learning.Training.step, []

    def interrupted(*arguments, **more):
        calls.append(1)
        if len(calls) == 5 + 3 + 10 + 1:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **more)

    monkeypatch.setattr(learning.Training, "step", interrupted)
    run = tmp_path / "run"
    assert main([*words(run, **options), "--action-head"]) == 130
    expect_sentence(capsys, main(["evaluate", str(run)]), "in its iteration 2")
    assert main([*words(run, **options), "--action-head"]) == 0
    for name in ("vision", "memory", "controller"):
        first, second = (read_tensors(folder / f"{name}.safetensors") for folder in (whole, run))
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], name
    assert_same_metrics(whole, run)
    assert [record["updates"] for record in read_metrics(whole)] == [*range(1, 9), 8, 8, 8, *range(9, 22), 21, 21, 21]


def test_more_generations_go_on_where_fewer_ended(whole, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(words(run, generations=2)) == 0
    assert main(words(run)) == 0
    assert_same(whole, run)
    expect_sentence(capsys, main(words(run, memory_updates=7)), "memory_updates is 6 there and 7 here")
    expect_sentence(capsys, main(words(run, generations=3)), "4 generations already, but 3 are asked for")
    twice = tmp_path / "twice"
    assert main(words(twice, iterations=2, generations=1, evaluate_every=1)) == 0
    wrong = words(twice, iterations=2, generations=2, evaluate_every=1)
    expect_sentence(capsys, main(wrong), "generations is 1 there and 2 here")


def test_a_later_iteration_may_be_short_and_reused_as_a_whole(tmp_path, capsys):
    options = {"iterations": 2, "generations": 2, "collect_episodes": 5, "collect_again": 3}
    run, variant = tmp_path / "run", tmp_path / "variant"
    assert main([*words(run, **options), "--keep-vision"]) == 0
    assert json.loads((run / "frames" / "progress.json").read_text())["lengths"] == [20] * 8
    assert int(read_tensors(run / "vision.safetensors")["updates"]) == 100 // 20
    latents = np.load(run / "latents_1.npy")
    agent = reverie.load(run).agent
    with torch.no_grad():
        image = np.array(np.load(run / "frames" / "0_image.npy", mmap_mode="r")[:160])
        for number, expected in enumerate(agent.world_model.vision.encode(torch.from_numpy(image).float() / 255)):
            np.testing.assert_allclose(latents[number], expected, atol=2e-3)
    reuse = ["--keep-vision", "--temperature", "0.5", "--reuse", str(run)]
    assert main([*words(variant, **options), *reuse]) == 0
    for name in ("vision.safetensors", "memory.safetensors", "latents_1.npy"):
        assert (variant / name).read_bytes() == (run / name).read_bytes(), name
    assert os.path.samefile(variant / "frames" / "0_image.npy", run / "frames" / "0_image.npy")
    assert [score["generation"] for score in json.loads((variant / "scores.json").read_text())] == [4]
    assert [record["generation"] for record in read_metrics(variant)] == [3, 4, 4]
    (variant / "controller.safetensors").unlink()
    ControllerSearch(variant / "controller.safetensors", 3, WorldModelsConfig(), 0).save()
    with pytest.raises(CheckpointError, match="not finished a generation"):
        reverie.load(variant)
    wrong = [*words(tmp_path / "wrong", **options, memory_units=9), *reuse]
    expect_sentence(capsys, main(wrong), "memory_units is 8 there and 9 here", "as a whole")
    expect_sentence(capsys, main([*words(tmp_path / "one", collect_episodes=5), *reuse]), "iterations is 2 there")
    assert not (tmp_path / "wrong" / "config.json").exists()
    (run / "latents_1.npy").rename(run / "elsewhere")
    with pytest.raises(CheckpointError, match="no latents yet"):
        reverie.load(run)
    (run / "elsewhere").rename(run / "latents.npy")
    expect_sentence(capsys, main([*words(tmp_path / "early", **options), *reuse]), "not learned all of M")


def test_the_best_controller_is_one_of_this_iteration(tmp_path):
    config = WorldModelsConfig(generations=1, population=4)
    search = ControllerSearch(tmp_path / "controller.safetensors", 3, config, seed=0)
    search.tell(np.arange(4.0), np.arange(4.0))
    search.add({"mean": 9.0, "generation": 1})
    assert np.array_equal(search.best_mean, search.evolution.mean) and search.tried == 1.5
    search.begin(0)
    assert search.best_mean is not None and search.generation == 1
    search.begin(1)  # other V and M: what was evolved for the old ones is of no use
    assert search.best_mean is None and search.evolution.generation == 0
    search.tell(np.arange(4.0), np.arange(4.0))
    search.add({"mean": 5.0, "generation": 2})
    assert np.array_equal(search.best_mean, search.evolution.mean)
    search.save()
    again = ControllerSearch(search.path, 3, config, seed=0)
    assert np.array_equal(again.best_mean, search.best_mean) and again.history == search.history
    assert (again.generation, again.iteration, again.scores) == (2, 1, search.scores)
    assert np.array_equal(again.evolution.ask(), search.evolution.ask())


def test_variants_share_stages(whole, tmp_path, capsys):
    variant = tmp_path / "variant"
    line = [word for word in words(variant, temperature=0.5) if word != "--quiet"]
    assert main([*line, "--reuse", str(whole)]) == 0
    assert "frames, V, M" in capsys.readouterr().out
    for name in ("vision.safetensors", "memory.safetensors", "frames/0_image.npy", "latents.npy"):
        assert (variant / name).read_bytes() == (whole / name).read_bytes(), name
    assert main([*words(tmp_path / "other", memory_units=9), "--reuse", str(whole)]) == 0
    memory = read_tensors(tmp_path / "other" / "memory.safetensors")
    assert memory["module.recurrent_weight"].shape == (36, 9)
    wrong = [*words(tmp_path / "wrong", collect_episodes=8), "--reuse", str(whole)]
    expect_sentence(capsys, main(wrong), "collect_episodes", "frames")
    assert not (tmp_path / "wrong" / "config.json").exists(), "a run that was refused leaves nothing behind"
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_bytes((whole / "config.json").read_bytes())
    wrong = [*words(tmp_path / "early"), "--reuse", str(begun)]
    expect_sentence(capsys, main(wrong), "0 episodes", "collect them first")
    wrong = [*words(tmp_path / "none"), "--reuse", str(tmp_path)]
    expect_sentence(capsys, main(wrong), "holds no run of world-models")
    twice = tmp_path / "twice"
    assert main([*words(twice, iterations=2, generations=2, memory_updates=6), "--reuse", str(whole)]) == 0
    frames = [np.load(folder / "frames" / "0_image.npy", mmap_mode="r") for folder in (whole, twice)]
    assert np.array_equal(frames[0][:180], frames[1][:180]) and frames[1][180:360].any((1, 2, 3)).all()
    assert json.loads((whole / "frames" / "progress.json").read_text())["rows"] == 180


def weights(run, name="vision"):
    tensors = read_tensors(run / f"{name}.safetensors")
    return {key: value for key, value in tensors.items() if key.startswith("module.")}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_v_of_another_run_stays_as_it_is(whole, tmp_path, capsys):
    run, options = tmp_path / "run", {"vision_epochs": 0, "hold": 3, "iterations": 2, "generations": 2}
    line = [*words(run, **options), "--vision", str(whole)]
    assert main(line) == 0
    assert same(weights(run), weights(whole))
    frames = [np.load(folder / "frames" / "1_action.npy", mmap_mode="r")[:180] for folder in (whole, run)]
    assert not np.array_equal(*frames), "held for other times"
    assert [score["generation"] for score in json.loads((run / "scores.json").read_text())] == [2, 4]
    assert main(line) == 0  # nothing is left to do
    expect_sentence(capsys, main(words(run, **options)), "settings vision is", str(whole))
    assert same(weights(run), {f"module.{key}": v for key, v in vision_of(reverie.load(run)).items()})
    variant = tmp_path / "variant"
    assert main([*words(variant, **options, temperature=0.5), "--reuse", str(run)]) == 0
    assert same(weights(variant), weights(whole)) and same(weights(variant, "memory"), weights(run, "memory"))


def vision_of(learner):
    return learner.agent.world_model.vision.state_dict()


def test_v_of_another_run_learns_on(whole, tmp_path, monkeypatch):
    begun, real = [], world_models.train_vision

    def train(training, *arguments, **named):
        begun.append({f"module.{key}": value.clone() for key, value in training.module.state_dict().items()})
        return real(training, *arguments, **named)

    monkeypatch.setattr(world_models, "train_vision", train)
    learner = reverie.WorldModels("reverie/CatchPixels-v0", run=tmp_path / "run", vision=str(whole), **TINY)
    learner.learn(progress=False)
    assert same(begun[0], weights(whole))
    assert not same(weights(tmp_path / "run"), weights(whole))


def test_v_of_another_run_must_be_there_and_fit(whole, tmp_path, capsys):
    def line(*more, **options):
        return [*words(tmp_path / "run", **options), *more]

    expect_sentence(capsys, main(line("--vision", str(tmp_path))), "holds no V", "has trained one")
    expect_sentence(capsys, main(line("--vision", str(whole), latent=4)), "V of", "[3, ", "[4, ", "latents")
    expect_sentence(capsys, main(line("--vision", str(whole), "--reuse", str(whole))), "not both")
    expect_sentence(capsys, main(line(vision_epochs=0)), "vision_epochs 0", "--vision")
    assert not (tmp_path / "run" / "config.json").exists(), "a run that was refused leaves nothing behind"


@pytest.mark.parametrize("call", [1, 4, 7, None])
def test_reuse_that_is_cut_short_or_has_no_links(whole, tmp_path, monkeypatch, capsys, call):
    real, calls, before = os.link, [], (whole / "frames" / "progress.json").read_bytes()

    def failing(*arguments):
        calls.append(1)
        if call is None:
            raise OSError("another file system")
        if len(calls) == call:
            raise RuntimeError("crash")
        return real(*arguments)

    monkeypatch.setattr(os, "link", failing)
    line = [*words(tmp_path / "run"), "--reuse", str(whole)]
    if call is not None:
        with pytest.raises(RuntimeError, match="crash"):
            main(line)
        if call > 1:  # something was taken, and without --reuse new frames would be mixed with it
            expect_sentence(capsys, main(words(tmp_path / "run")), "repeat it with its --reuse")
            assert (whole / "frames" / "progress.json").read_bytes() == before
    assert main(line) == 0
    for name in ("vision", "memory", "controller"):
        first, second = (read_tensors(folder / f"{name}.safetensors") for folder in (whole, tmp_path / "run"))
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], name
    frames = [np.load(folder / "frames" / "0_image.npy", mmap_mode="r") for folder in (whole, tmp_path / "run")]
    assert np.array_equal(frames[0][:180], frames[1][:180]) and frames[1][:180].any((1, 2, 3)).all()
    used = (tmp_path / "run" / "frames" / "0_image.npy").stat().st_blocks * 512
    assert used < frames[0].nbytes / 2, "rows that are not used must not take space"


def test_the_papers_tasks_bring_their_recipes(tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(world_models.WorldModelsTraining, "run", lambda self: seen.append(self) or False)
    for name, (environment, preset) in RECIPES.items():
        run, small = tmp_path / preset / name.replace("/", "_"), f"{preset}-small"
        assert main(["train", "world-models", "--env", name, "--device", "cpu", "--run", str(run)]) == 130
        assert f"--env {environment} --preset {small}" in capsys.readouterr().out
        assert seen[-1].source.name == environment
        assert seen[-1].config == make_config("world-models", {}, small)
        whole = ["--preset", preset, "--run", f"{run}-whole", "--quiet"]
        assert main(["train", "world-models", "--env", name, *whole]) == 130
        assert "recipe" not in capsys.readouterr().out
        assert seen[-1].source.name == environment
        assert seen[-1].config == make_config("world-models", {}, preset)
        learner = reverie.WorldModels(name, device="cpu")
        assert (learner.source.name, learner.config) == (environment, make_config("world-models", {}, small))
        learner.close()
    plain = reverie.WorldModels("CarRacing-v3", preset="quick", image_size=64)
    assert plain.source.name == "CarRacing-v3"
    plain.close()


def test_bfloat16_learns_as_float32_does(tmp_path, capsys):
    assert main(words(tmp_path / "run", precision="bfloat16")) == 0
    for name in ("vision", "memory"):
        tensors = read_tensors(tmp_path / "run" / f"{name}.safetensors")
        assert all(value.dtype != torch.bfloat16 for value in tensors.values()), name


def test_the_tenth_iteration_is_newer_than_the_second(tmp_path):
    assert newest_latents(tmp_path) is None
    for iteration in (0, 2, 10):
        (tmp_path / latents_file(iteration)).touch()
        assert newest_latents(tmp_path) == tmp_path / latents_file(iteration)
