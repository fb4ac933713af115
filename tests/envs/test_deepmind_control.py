"""The DeepMind Control Suite: the same numbers and pictures as dm_control itself."""

import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from test_pool import assert_equal_steps, rows_of

import reverie
from reverie.cli.main import main
from reverie.envs import EnvironmentSource, InProcessPool, WorkerPool, make, make_pool
from reverie.envs.suites import CONTROL_TASKS, deepmind_control
from reverie.envs.suites.deepmind_control import DeepMindControl
from reverie.errors import ConfigError, EnvironmentProblem

pytest.importorskip("dm_control")


def identifier(task):
    return f"dmc/{task[0]}-{task[1]}-v0"


@pytest.fixture
def suite():
    """dm_control's own, imported with the renderer that the library chooses."""
    return deepmind_control._import_suite()[0]


@pytest.fixture
def renderer():
    problem = deepmind_control._import_suite()[1]
    if problem:
        pytest.skip(problem)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only there MuJoCo renders with EGL")


def test_the_twenty_tasks_of_the_papers(suite):
    assert len(set(CONTROL_TASKS)) == 20
    assert set(CONTROL_TASKS) <= set(suite.ALL_TASKS)
    for task in CONTROL_TASKS:
        assert gymnasium.spec(identifier(task)).max_episode_steps == 1000


@pytest.mark.parametrize("task", CONTROL_TASKS, ids=identifier)
def test_an_episode_is_that_of_dm_control(suite, task):
    """1000 frames with dm_control's own time limit beside ours: the same numbers, and the same last frame."""
    environment = gymnasium.make(identifier(task))
    check_env(environment.unwrapped, skip_render_check=True)
    # The seed of an episode is the first number of the generator that Gymnasium makes of the seed.
    seed = gymnasium.utils.seeding.np_random(11)[0].integers(2**32)
    reference = suite.load(*task, task_kwargs={"random": np.random.RandomState(seed)})
    generator = np.random.default_rng(0)
    observation, _ = environment.reset(seed=11)
    moment = reference.reset()
    space = environment.action_space
    for frame in range(1, 1001):
        assert environment.observation_space.contains(observation)
        for name, values in moment.observation.items():
            np.testing.assert_array_equal(observation[name], np.atleast_1d(values).astype(np.float32))
        action = generator.uniform(space.low, space.high).astype(np.float32)
        observation, reward, terminated, truncated, info = environment.step(action)
        moment = reference.step(action)
        assert reward == moment.reward and 0 <= reward <= 1
        assert (terminated, truncated) == (False, frame == 1000) == (False, moment.last())
        assert info["discount"] == moment.discount == 1
    environment.close()


def beginning(environment, seed, frames=20):
    """Observations and rewards of some frames with the same random actions, as one vector."""
    generator = np.random.default_rng(1)
    space = environment.action_space
    seen = [np.concatenate(list(environment.reset(seed=seed)[0].values()))]
    for _ in range(frames):
        observation, reward, *_ = environment.step(generator.uniform(space.low, space.high).astype(np.float32))
        seen.append(np.append(np.concatenate(list(observation.values())), reward))
    return np.concatenate(seen)


@pytest.mark.parametrize("task", CONTROL_TASKS, ids=identifier)
def test_seeds_repeat_episodes(task):
    environment, other = DeepMindControl(*task), DeepMindControl(*task)
    first = beginning(environment, 5)
    second = beginning(environment, None)
    np.testing.assert_array_equal(beginning(other, 5), first)
    np.testing.assert_array_equal(beginning(other, None), second)
    np.testing.assert_array_equal(beginning(environment, 5), first)
    assert (second != first).any(), "without a seed another episode begins"
    assert (beginning(environment, 6) != first).any()


def test_action_repeat_and_time_limit():
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (250, 1)).astype(np.float32)
    once, four = make("dmc/cartpole-swingup-v0"), make("dmc/cartpole-swingup-v0", action_repeat=4)
    once.reset(3), four.reset(3)
    for action in actions:
        rewards = [once.step(action) for _ in range(4)]
        observation, reward, terminated, truncated, _ = four.step(action)
        assert reward == pytest.approx(sum(float(row[1]) for row in rewards), rel=1e-6)
        np.testing.assert_array_equal(observation["position"], rewards[-1][0]["position"])
        assert not terminated
    assert truncated, "1000 frames are 250 decisions"
    for limit in (30, 1100):  # longer than dm_control's own limit, too
        environment = make("dmc/pendulum-swingup-v0", time_limit=limit)
        environment.reset(0)
        ends = [environment.step(np.zeros(1, np.float32))[2:4] for _ in range(limit)]
        assert ends == [(False, False)] * (limit - 1) + [(False, True)]


def test_the_discount_of_the_task_decides_how_an_episode_ends(monkeypatch):
    environment = DeepMindControl("lqr", "lqr_2_1")  # ends with discount 0 once its state is small
    environment.reset(seed=0)
    assert environment.step(np.zeros(1, np.float32))[2:] == (False, False, {"discount": 1.0})
    with environment.control.physics.reset_context():
        environment.control.physics.data.qpos[:] = 0
        environment.control.physics.data.qvel[:] = 0
    assert environment.step(np.zeros(1, np.float32))[2:] == (True, False, {"discount": 0.0})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
        environment.step(np.zeros(1, np.float32))
    environment.reset(seed=0)
    monkeypatch.setattr(environment.control.task, "get_termination", lambda physics: 0.5)
    assert environment.step(np.zeros(1, np.float32))[2:] == (False, True, {"discount": 0.5})


def test_other_tasks_are_made_by_the_class():
    kwargs = {"domain": "point_mass", "task": "easy"}
    source = EnvironmentSource(DeepMindControl, kwargs=kwargs, time_limit=5, action_repeat=2)
    rows, _ = rows_of(InProcessPool(source, 1, 0), 8)
    # Three decisions, the last of one frame; then the step that begins the next episode.
    assert [bool(row.is_last[0]) for row in rows] == [False, False, False, True, False, False, False, True, False]
    assert not any(row.is_terminal[0] for row in rows)


def test_a_resumed_run_finds_its_episode_again():
    source = EnvironmentSource("dmc/cheetah-run-v0")
    pool = InProcessPool(source, 2, 3)
    rows, actions = rows_of(pool, 30)
    fresh = InProcessPool(source, 2, 3)
    assert_equal_steps(fresh.restore(pool.episodes, [np.array(actions)[:, lane] for lane in range(2)]), rows[-1])


def test_actions_are_scaled_to_the_bounds_of_the_task():
    adapter = make("dmc/quadruped-walk-v0")
    space = adapter.environment.action_space
    np.testing.assert_array_equal(space.high, np.tile([1, 1.1, 0.8], 4).astype(np.float32))  # yaw, lift, extend
    np.testing.assert_array_equal(space.low, np.tile([-1, -1, -0.8], 4).astype(np.float32))
    np.testing.assert_allclose(adapter.decode_action(np.ones(12, np.float32)), space.high)
    adapter.reset(0)
    adapter.step(np.ones(12, np.float32))
    np.testing.assert_allclose(adapter.environment.unwrapped.control.physics.control(), space.high, rtol=1e-7)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(("name", "camera"), [("cartpole-swingup", 0), ("quadruped-run", 2)])
def test_pictures_are_those_of_the_papers_camera(renderer, name, camera):
    adapter = make(f"dmc/{name}-v0", pixels=True, action_repeat=2)
    assert {part.name: part.shape for part in adapter.interface.observations} == {"image": (64, 64, 3)}
    physics = adapter.environment.unwrapped.control.physics
    frames = [adapter.reset(0)["image"]]
    for _ in range(3):
        frames.append(adapter.step(np.ones(adapter.interface.action_width, np.float32))[0]["image"])
        np.testing.assert_array_equal(frames[-1], physics.render(64, 64, camera_id=camera))
    assert frames[0].std() > 10, "something is to be seen"
    assert (frames[0] != frames[-1]).any(), "it moves"
    np.testing.assert_array_equal(adapter.reset(0)["image"], frames[0])
    adapter.close()


def test_size_and_camera(renderer):
    adapter = make("dmc/walker-walk-v0", pixels=True, image_size=(80, 96), kwargs={"camera": "back"})
    image = adapter.reset(0)["image"]
    physics = adapter.environment.unwrapped.control.physics
    np.testing.assert_array_equal(image, physics.render(80, 96, camera_id=1))
    assert (image != physics.render(80, 96, camera_id=0)).any()
    video = make("dmc/walker-walk-v0", render=True)
    assert set(video.reset(0)) == {"height", "orientations", "velocity"}
    assert video.render().shape == (240, 320, 3)
    assert make("dmc/walker-walk-v0").render() is None
    environment = DeepMindControl("walker", "walk", render_mode="rgb_array", render_size=[32, 48])
    environment.reset(seed=0)
    assert environment.render().shape == (32, 48, 3)
    assert environment.metadata["render_fps"] == 40
    environment.close()
    environment.close()
    assert environment.render() is None
    with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="make a new environment"):
        environment.reset(seed=0)


def test_workers_step_and_render_the_same(renderer, monkeypatch):
    source = EnvironmentSource("dmc/reacher-easy-v0", pixels=True, action_repeat=4)
    expected = rows_of(InProcessPool(source, 2, 7), 5)[0]  # this process has rendered before it starts workers
    with WorkerPool(source, 2, 7, num_workers=2) as pool:
        for left, right in zip(rows_of(pool, 5)[0], expected, strict=True):
            assert_equal_steps(left, right)
    monkeypatch.setattr("reverie.envs.vectorize.processors", lambda: 4)
    with make_pool(source, 2, 0) as pool:
        assert pool.vectorization == "workers", "a frame takes longer than talking to a worker"


DISPLAYS = ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")
WITHOUT_EGL = """
from reverie.cli.main import main
from reverie.envs import make
adapter = make("dmc/walker-walk-v0")
adapter.reset(0)
print("vectors", flush=True)
raise SystemExit(main(["train", "dreamer-v3", "--env", "dmc/walker-walk-v0", "--pixels", "--run", "RUN"]))
"""


@on_linux
def test_without_egl_only_pictures_are_missing(tmp_path):
    # GLVND, the library libEGL.so.1 of Linux, finds no driver in a folder that does not exist.
    environment = {name: value for name, value in os.environ.items() if name not in DISPLAYS}
    environment["__EGL_VENDOR_LIBRARY_DIRS"] = str(tmp_path / "nothing")
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_EGL.replace("RUN", str(tmp_path / "run"))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2 and result.stdout.startswith("vectors"), result.stderr
    assert "dmc/walker-walk-v0 cannot be rendered (the renderer 'egl' raised" in result.stderr
    assert "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "run").exists()


RENDER = """
from reverie.envs import make
from reverie.errors import EnvironmentProblem
make("dmc/walker-walk-v0").reset(0)
try:
    make("dmc/walker-walk-v0", pixels=True)
except EnvironmentProblem as problem:
    print(problem)
"""


@on_linux
@pytest.mark.parametrize(
    ("chosen", "before", "reason"),
    [
        ("off", "", r"dm_control was imported without a renderer"),
        ("glfw", "", r"dm_control was imported with the renderer 'glfw', which needs a display"),
        (None, "import dm_control.suite", r"dm_control was imported with the renderer 'glfw', which needs a display"),
        ("nonsense", "", r"the renderer 'nonsense' raised RuntimeError: Environment variable MUJOCO_GL must be one of"),
    ],
)
def test_renderers_that_cannot_work_are_named(chosen, before, reason):
    environment = {name: value for name, value in os.environ.items() if name not in DISPLAYS}
    environment |= {"MUJOCO_GL": chosen} if chosen else {}
    result = subprocess.run(
        [sys.executable, "-c", before + RENDER], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert f"dmc/walker-walk-v0 cannot be rendered ({reason}" in result.stdout
    assert "set MUJOCO_GL=egl before dm_control is imported" in result.stdout


# ---------------------------------------------------------------- learning, and mistakes

SMALL = ["--size", "100k", "--deterministic", "32", "--hidden", "16", "--units", "16", "--variables", "4"]
SMALL += ["--classes", "4", "--batch-size", "2", "--batch-length", "8", "--horizon", "3", "--warmup-steps", "40"]
SMALL += ["--num-envs", "2", "--evaluate-every", "0", "--evaluation-episodes", "1", "--quiet", "--action-repeat", "4"]


@pytest.mark.parametrize("more", [["--steps", "60"], ["--steps", "44", "--pixels", "--vectorization", "workers"]])
def test_an_agent_trains_and_is_evaluated(renderer, tmp_path, more):
    run = tmp_path / "run"
    words = ["train", "dreamer-v3", "--env", "dmc/cartpole-balance-v0", "--run", str(run), *SMALL, *more]
    assert main([*words, "--time-limit", "100"]) == 0
    agent = reverie.load(run)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["frames"] == 4 * int(more[1])
    names = {part.name for part in agent.interface.observations}
    assert names == ({"image"} if "--pixels" in more else {"position", "velocity"})
    # 100 frames of balancing: falling over from the start still earns some of it.
    assert 10 < agent.evaluate(episodes=1).mean <= 100


def test_the_list_of_environments_names_them(capsys):
    assert main(["envs", "dmc/"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("dmc/") == 20 and "pip install" not in shown


def test_bad_settings():
    with pytest.raises(
        EnvironmentProblem, match=r"no task 'fly' of a domain 'walker'; choose from the tasks \['run', "
    ):
        DeepMindControl("walker", "fly")
    with pytest.raises(EnvironmentProblem, match=r"choose from the domains \['acrobot', .*'walker'\]"):
        DeepMindControl("unicorn", "walk")
    with pytest.raises(ConfigError, match=r"camera is 7, but the cameras of dmc/walker-walk-v0 are 0 to 1, .*'side'"):
        DeepMindControl("walker", "walk", camera=7)
    with pytest.raises(ConfigError, match=r"render_size is \(64, 900\), .* from 1 to 480 and 640"):
        DeepMindControl("walker", "walk", render_size=(64, 900))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(EnvironmentProblem, match=r"'dmc/walker-walk-v0' needs .*pip install \"reverie-rl\[dmc\]\""):
        make("dmc/walker-walk-v0")
