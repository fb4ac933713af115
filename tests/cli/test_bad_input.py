"""Bad input gives one sentence on stderr and exit code 2, never a traceback."""

import shutil
import sys

import gymnasium
import pytest
import torch
from run_helpers import content, expect_sentence, train, words

from reverie.cli.main import main


@pytest.mark.parametrize(
    ("env", "parts"),
    [
        ("CartPol-v1", ["CartPol-v1", "did you mean", "CartPole-v1"]),
        ("cartpole-v1", ["CartPole-v1"]),
        ("Zzqqxx-v9", ["Zzqqxx-v9", "reverie envs"]),
        ("RunTestText-v0", ["Text"]),
        ("no_such_module:Thing-v0", ["no_such_module"]),
    ],
)
def test_unknown_and_unsupported_environments(tmp_path, capsys, env, parts):
    expect_sentence(capsys, train(tmp_path / "run", env=env), *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("env", "extra", "package"),
    [
        ("LunarLander-v3", "box2d", "Box2D"),
        ("CarRacing-v3", "box2d", "Box2D"),
        ("ALE/Pong-v5", "atari", "ale_py"),
        ("dmc/walker-walk-v0", "dmc", "dm_control"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, capsys, env, extra, package):
    monkeypatch.setitem(sys.modules, package, None)
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    if env in gymnasium.registry and extra not in ("box2d", "dmc"):
        pytest.skip(f"{package} is installed and registers its environments with gymnasium")
    expect_sentence(capsys, train(tmp_path / "run", env=env), env, f'pip install "reverie-rl[{extra}]"')


OPTIONS = [
    ({"deterministic": 100}, ["blocks = 8", "multiple"]),
    ({"blocks": 7}, ["7"]),
    ({"device": "quantum"}, ["quantum", "cpu"]),
    ({"device": "mps"}, ["mps", "cpu"]),
    ({"steps": 0}, ["steps", "0"]),
    ({"steps": -5}, ["steps", "-5"]),
    ({"seed": -1}, ["seed", "-1"]),
    ({"seed": 2**70}, ["seed"]),
    ({"units": 10**18}, ["units", "at most"]),
    ({"units": 10**6}, ["weights", "memory", "--size"]),
    ({"horizon": 10**9}, ["horizon", "at most"]),
    ({"batch_size": 10**9}, ["batch", "memory", "--batch-size"]),
    ({"num_envs": 10**18}, ["num_envs", "at most"]),
    ({"threads": 10**18}, ["threads", "at most"]),
    ({"evaluation_episodes": 10**12}, ["evaluation_episodes", "at most"]),
    ({"num_envs": 0}, ["num_envs", "0"]),
    ({"num_envs": -2}, ["num_envs", "-2"]),
    ({"threads": -1}, ["threads", "-1"]),
    ({"log_every": 0}, ["log_every"]),
    ({"evaluate_every": -3}, ["evaluate_every", "-3"]),
    ({"evaluation_episodes": 0}, ["evaluation_episodes"]),
    ({"checkpoint_minutes": -1}, ["checkpoint_minutes"]),
    ({"checkpoint_minutes": "nan"}, ["checkpoint_minutes"]),
    ({"batch_size": 0}, ["batch_size"]),
    ({"batch_length": 1}, ["batch_length"]),
    ({"learning_rate": -1}, ["learning_rate"]),
    ({"warmup_steps": -1}, ["warmup_steps"]),
    ({"replay_ratio": 0}, ["replay_ratio"]),
    ({"replay_capacity": 20}, ["20", "9"]),
    ({"action_repeat": 0}, ["action_repeat"]),
    ({"time_limit": 0}, ["time_limit"]),
    ({"image_size": 64}, ["image_size"]),
]


@pytest.mark.parametrize(("options", "parts"), OPTIONS, ids=lambda value: str(value)[:40])
def test_settings_that_cannot_work(tmp_path, capsys, options, parts):
    run = tmp_path / "run"
    expect_sentence(capsys, train(run, **options), *parts)
    assert not (run / "config.json").exists(), "the corrected command must find no other run there"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there(tmp_path, capsys, device):
    expect_sentence(capsys, train(tmp_path / "run", device=device), device, "--device cpu")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (["trian", "dreamer-v3"], "'train'"),
        (["xyzzy"], "choose one of train"),
        (["train"], "train needs an agent"),
        (["train", "--env", "CartPole-v1"], "train needs an agent"),
        (["train", "dreamerv3", "--env", "CartPole-v1"], "'dreamer-v3'"),
        (["train", "qqq", "--env", "CartPole-v1"], "choose one of dreamer-v3"),
        (["bench", "--size", "7m"], "100k"),
        (["bench", "--updates", "0"], "updates"),
        (["bench", "dreamer", "--updates", "1"], "'dreamer-v"),
        (["bench", "planet", "--size", "1m"], "planet has no setting 'size'"),
        (["bench", "world-models"], "choose another agent"),
        (
            ["train", "dreamer-v3", "--env", "CartPole-v1", "--lr", "1e-3"],
            "no option --lr; what is meant is probably --l",
        ),
        (["train", "dreamer-v3", "--env", "CartPole-v1", "--gamma=0.99"], "probably --discount-horizon"),
        (["train", "dreamer-v2", "--env", "CartPole-v1", "--learning-rate", "1"], "probably --model-learning-rate"),
        (["train", "planet", "--env", "CartPole-v1", "--imagination-horizon", "9"], "probably --horizon"),
        (["train", "dreamer-v1", "--env-id", "CartPole-v1"], "probably --env"),
    ],
)
def test_mistyped_commands_and_agents(capsys, line, part):
    expect_sentence(capsys, main(line), part)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"size": "7m"}, "100k"),
        ({"vectorization": "threads"}, "in-process"),
        ({"replay_storage": "tape"}, "disk"),
        ({"steps": "many"}, "many"),
        ({"learning_rte": 1}, "--learning-rate"),
        ({"nmu_envs": 1}, "--num-envs"),
    ],
)
def test_usage_errors(tmp_path, capsys, options, part):
    with pytest.raises(SystemExit) as end:
        train(tmp_path / "run", **options)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert part in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"env": "Acrobot-v1"}, "environment environment"),
        ({"learning_rate": 2e-3}, "agent_config learning_rate"),
        ({"agent": "dreamer-v3-2023", "size": "xs", "hidden": None}, "dreamer-v3-2023"),
        ({"seed": 3}, "settings seed"),
        ({"num_envs": 2}, "settings num_envs"),
    ],
)
def test_a_folder_that_holds_another_run(run_copy, capsys, options, part):
    before = content(run_copy)
    expect_sentence(capsys, train(run_copy, **options), part, "--run")
    assert content(run_copy) == before


def test_a_folder_of_other_things_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    expect_sentence(capsys, train(tmp_path), "not empty", "--run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("command", ["evaluate", "dream", "plot"])
def test_commands_on_folders_without_an_agent(tmp_path, run_copy, capsys, command):
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    expect_sentence(capsys, main([command, str(missing)]), "missing")
    expect_sentence(capsys, main([command, str(empty)]))
    shutil.rmtree(run_copy / "checkpoints")
    if command == "plot":
        (run_copy / "metrics.jsonl").write_text("")
        (run_copy / "scores.json").unlink()
        expect_sentence(capsys, main([command, str(run_copy)]), "not written metrics yet")
    else:
        expect_sentence(capsys, main([command, str(run_copy)]), "none yet: train first")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (["evaluate", "RUN", "--episodes", "0"], ["episodes", "0"]),
        (["evaluate", "RUN", "--seed", "-2000000"], ["seed"]),
        (["evaluate", "RUN", "--checkpoint", "12"], ["12"]),
        (["evaluate", "RUN", "--device", "toaster"], ["toaster"]),
        (["evaluate", "RUN", "--seed", str(2**64)], ["seed", "4294967295"]),
        (["evaluate", "RUN", "--episodes", str(10**18)], ["episodes", "at most"]),
        (["dream", "RUN", "--seed", str(2**64)], ["seed", "4294967295"]),
        (["dream", "RUN", "--sequences", str(10**18)], ["1 to 100 sequences"]),
        (["dream", "RUN", "--output", ""], ["name of a file"]),
        (["plot", "RUN", "--output", ""], ["name of a file"]),
        (["dream", "RUN", "--length", "1"], ["4 steps"]),
        (["dream", "RUN", "--sequences", "0"], ["sequence"]),
        (["plot", "RUN", "--metric", "loss/everything"], []),
        (["plot"], ["at least one run folder"]),
        (["dream", "RUN", "--output", "dream.avi"], [".mp4", ".gif", "dream.avi"]),
    ],
)
def test_options_of_other_commands(small_run, capsys, line, parts):
    expect_sentence(capsys, main([str(small_run) if word == "RUN" else word for word in line]), *parts)


@pytest.mark.parametrize("command", ["evaluate", "dream"])
def test_damaged_models_are_named(run_copy, capsys, command):
    model = run_copy / "checkpoints" / "best" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-7])
    expect_sentence(capsys, main([command, str(run_copy)]), str(model))
    (run_copy / "config.json").write_text('{"agent": "dreamer-v3"}')
    expect_sentence(capsys, main([command, str(run_copy)]), "config.json")


def test_the_tiny_command_line_is_what_it_should_be(tmp_path):
    assert words(tmp_path)[:4] == ["train", "dreamer-v3", "--env", "CartPole-v1"]
