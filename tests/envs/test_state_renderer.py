"""Observations drawn by the environment's own renderer look like the environment itself."""

import functools
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.wrappers import TransformObservation

from reverie.envs import make
from reverie.envs.known_tasks import TASKS, known_task
from reverie.envs.state_renderer import StateRenderer

EXACT = ("CartPole-v1", "CartPole-v0", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0")
LANDERS = ("LunarLander-v3", "LunarLanderContinuous-v3")


def differences(environment, steps=12, seed=3):
    """Share of pixels by which drawn observations differ from the environment's own frames, at every third step."""
    observation, _ = environment.reset(seed=seed)
    environment.action_space.seed(seed)
    renderer, action, shares = StateRenderer.of(environment), None, []
    for step in range(steps):
        if step % 3 == 0:
            own, drawn = environment.render(), renderer.frame(observation, action)
            assert drawn.dtype == np.uint8 and drawn.shape == own.shape
            shares.append((own != drawn).any(-1).mean())
        action = environment.action_space.sample()
        observation, *_ = environment.step(action)
    return shares


@pytest.mark.parametrize("name", EXACT)
def test_the_true_state_is_drawn_as_the_environment_draws_it(name):
    assert differences(gymnasium.make(name, render_mode="rgb_array")) == [0] * 4


@pytest.mark.parametrize("name", LANDERS)
def test_landers_differ_in_particles_and_legs_only(name):
    assert max(differences(gymnasium.make(name, render_mode="rgb_array"), steps=24)) < 0.004


def test_a_lander_that_was_not_reset_gets_flat_ground():
    environment = gymnasium.make("LunarLander-v3", render_mode="rgb_array")
    frame = StateRenderer.of(environment).frame(np.zeros(8))
    assert (frame[399] == frame[399, 0]).all()
    own = gymnasium.make("LunarLander-v3", render_mode="rgb_array")
    observation, _ = own.reset(seed=0)
    assert (StateRenderer.of(environment).frame(observation)[:250] != own.render()[:250]).any(-1).mean() < 0.05


class LongPole(CartPoleEnv):
    """A subclass without an id, with a pole of twice the length."""

    def __init__(self):
        super().__init__(render_mode="rgb_array")
        self.length = 1.0


@pytest.mark.parametrize(
    "environment",
    [LongPole, functools.partial(gymnasium.make, "Pendulum-v1", g=5.0, render_mode="rgb_array")],
    ids=["subclass", "kwargs"],
)
def test_variants_are_drawn_with_their_own_looks(environment):
    assert differences(environment()) == [0] * 4


def test_functions_objects_and_wrappers_are_recognized_and_left_alone():
    for source in (lambda: gymnasium.make("CartPole-v1"), gymnasium.make("CartPole-v1"), "CartPole-v1"):
        assert StateRenderer.of(make(source, action_repeat=2, time_limit=9).environment) is not None
    environment = gymnasium.make("CartPole-v1")
    observation, _ = environment.reset(seed=1)
    StateRenderer.of(environment).frame(np.ones(4))
    assert np.array_equal(np.asarray(environment.unwrapped.state, np.float32), observation)
    assert environment.unwrapped.screen is None and environment.render_mode is None


def test_other_tasks_and_changed_observations_have_no_renderer():
    scaled = TransformObservation(gymnasium.make("CartPole-v1"), lambda value: 2 * value, None)
    for environment in (scaled, gymnasium.make("BipedalWalker-v3"), make("CartPole-v1", pixels=True).environment):
        assert StateRenderer.of(environment) is None
    assert known_task(scaled).observation == () and known_task(scaled).choices == ("push left", "push right")


@pytest.mark.parametrize("value", [1e30, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3"])
def test_dreams_that_leave_the_world_can_be_drawn(name, value):
    environment = gymnasium.make(name)
    frame = StateRenderer.of(environment).frame(np.full(environment.observation_space.shape, value), shrink=4)
    assert frame.shape[0] in (100, 125)


@pytest.mark.parametrize(
    "name",
    [
        *EXACT,
        *LANDERS,
        "BipedalWalker-v3",
        "InvertedPendulum-v5",
        "InvertedDoublePendulum-v5",
        "Hopper-v5",
        "Walker2d-v5",
        "HalfCheetah-v5",
        "Swimmer-v5",
        "Reacher-v5",
    ],
)
def test_every_number_has_a_name(name):
    environment = gymnasium.make(name)
    task = known_task(environment)
    assert (len(task.observation),) == environment.observation_space.shape
    assert len(set(task.observation)) == len(task.observation)
    if isinstance(environment.action_space, gymnasium.spaces.Discrete):
        assert len(task.choices) == environment.action_space.n
    else:
        assert (len(task.controls),) == environment.action_space.shape


def test_the_table_names_classes_of_gymnasium():
    classes = {str(spec.entry_point).rpartition(":")[2] for spec in gymnasium.registry.values()}
    assert TASKS.keys() <= classes


def test_drawing_without_a_display_says_nothing():
    program = (
        "import reverie.envs as envs; from reverie.envs.state_renderer import StateRenderer\n"
        "adapter = envs.EnvironmentSource('CartPole-v1').make()\n"
        "StateRenderer.of(adapter.environment).frame([0.0, 0.0, 0.0, 0.0])"
    )
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout + done.stderr == ""
