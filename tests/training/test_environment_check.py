"""What `reverie.check` and `reverie check` find in environments that behave, and in those that do not."""

import gymnasium
import numpy as np
import pytest

import reverie
from reverie.cli.main import main
from reverie.envs import EnvironmentSource
from reverie.errors import ConfigError, ReverieError, SpaceError


class Plain(gymnasium.Env):
    """Episodes of 6 steps; subclasses do something wrong in step 3 of episode 2."""

    observation_space = gymnasium.spaces.Dict(
        {
            "lamp": gymnasium.spaces.Discrete(3),
            "picture": gymnasium.spaces.Box(0, 255, (32, 40, 3), np.uint8),
            "speed": gymnasium.spaces.Box(-2, 2, (2,), np.float32),
        }
    )
    action_space = gymnasium.spaces.Dict(
        {"push": gymnasium.spaces.Box(-3, 5, (2,), np.float32), "turn": gymnasium.spaces.MultiDiscrete([2, 4])}
    )

    def __init__(self):
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.elapsed = self.episode + 1, 0
        return self.seen(), {}

    def step(self, action):
        self.elapsed += 1
        wrong = self.episode == 2 and self.elapsed == 3
        return self.answer(wrong)

    def answer(self, wrong):
        return self.seen(), 0.5, self.elapsed == 6, False, {"success": self.elapsed == 6, "text": "x"}

    def seen(self):
        speed = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"lamp": 1, "picture": np.full((32, 40, 3), 7, np.uint8), "speed": speed}


class NotANumber(Plain):
    def answer(self, wrong):
        seen, *rest = super().answer(wrong)
        return {**seen, "speed": np.full(2, np.nan if wrong else 0, np.float32)}, *rest


class OtherShape(Plain):
    def answer(self, wrong):
        seen, *rest = super().answer(wrong)
        return {**seen, "speed": np.zeros(3 if wrong else 2, np.float32)}, *rest


class NoSuchClass(Plain):
    def answer(self, wrong):
        seen, *rest = super().answer(wrong)
        return {**seen, "lamp": 3 if wrong else 0}, *rest


class BadReward(Plain):
    def answer(self, wrong):
        seen, _, *rest = super().answer(wrong)
        return seen, np.inf if wrong else 1.0, *rest


class Raises(Plain):
    def answer(self, wrong):
        return super().answer(wrong) if not wrong else 1 / 0


class Outside(Plain):
    def answer(self, wrong):
        seen, *rest = super().answer(wrong)
        return {**seen, "speed": np.full(2, 9 if wrong else 0, np.float32)}, *rest


class Unseeded(Plain):
    """Draws from a generator that no seed reaches."""

    generator = np.random.default_rng()

    def seen(self):
        return {**super().seen(), "speed": self.generator.uniform(-1, 1, 2).astype(np.float32)}


class UnseededReward(Plain):
    generator = np.random.default_rng()

    def answer(self, wrong):
        seen, _, *rest = super().answer(wrong)
        return seen, self.generator.random() if self.elapsed == 2 else 0.0, *rest


class Endless(Plain):
    def answer(self, wrong):
        return self.seen(), 0.0, False, False, {}


def quick(environment, **options):
    return reverie.check(environment, **{"estimate": False, "steps": 60, "seconds": 5, **options})


def test_parts_episodes_and_speed():
    report = quick(Plain)
    assert report.ok and report.fault is None and report.notes == []
    lamp, picture, speed = report.observations
    assert (lamp.kind, lamp.classes, lamp.seen) == ("discrete", (3,), (1, 1))
    assert (picture.kind, picture.shape, picture.declared, picture.seen) == ("image", (32, 40, 3), (0, 255), (7, 7))
    assert (speed.kind, speed.shape, speed.declared) == ("vector", (2,), (-2, 2)) and -1 <= speed.seen[0] < 0
    push, turn = report.actions
    assert (push.kind, push.shape, push.declared) == ("continuous", (2,), (-3, 5))
    assert (turn.kind, turn.shape, turn.classes) == ("discrete", (2,), (2, 4))
    assert report.steps == 60 and report.lengths == [6] * 10 and report.returns == [3] * 10 and report.terminated == 10
    assert report.info == ("success",) and report.steps_per_second > 10 and report.num_envs > 1
    text = str(report)
    for line in ("picture: image, 32 x 40 x 3 pixels, 0 to 255 (seen 7 to 7)", "turn: discrete, 2 variables of 2, 4"):
        assert line in text
    assert "push: continuous, 2 numbers, -3 to 5" in text and "none found" in text


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (NotANumber, "holds nan at entry 0"),
        (OtherShape, "has shape (3,)"),
        (NoSuchClass, "has the value 3"),
        (BadReward, "the reward of"),
        (Raises, "ZeroDivisionError"),
    ],
)
def test_the_first_fault_and_its_step(environment, sentence):
    report = quick(environment)
    assert not report.ok and report.estimate is None
    assert (report.fault.kind, report.fault.episode, report.fault.step) == ("problem", 2, 3)
    assert sentence in report.fault.sentence and f"episode 2, step 3: {report.fault.sentence}" in str(report)
    assert report.steps == 14 and len(report.lengths) == 2 and report.observations


def test_values_outside_their_bounds():
    report = quick(Outside)
    assert report.ok and len(report.faults) == 1
    assert (report.fault.kind, report.fault.episode, report.fault.step) == ("bounds", 2, 3)
    assert "outside the bounds" in report.fault.sentence and report.observations[2].seen[1] == 9


@pytest.mark.parametrize(
    ("environment", "step", "what"), [(Unseeded, 0, "observation 'speed'"), (UnseededReward, 2, "reward")]
)
def test_what_a_seed_does_not_repeat(environment, step, what):
    report = quick(environment)
    assert report.ok and (report.fault.kind, report.fault.episode, report.fault.step) == ("random", 0, step)
    assert f"led to another {what}" in report.fault.sentence
    assert quick(environment()).fault.kind == "random"  # an object too


def test_a_fault_in_the_first_observation():
    class Never(Plain):
        def seen(self):
            return None

    report = quick(Never)
    assert (report.fault.episode, report.fault.step) == (0, 0) and not report.ok and report.steps == 0
    assert "random play" in str(report)


def test_episodes_that_do_not_end():
    assert "no episode ended; if none ever ends, give a time limit" in str(quick(Endless))
    report = quick(Endless, time_limit=20)
    assert report.lengths == [20] * 3 and report.terminated == 0 and report.time_limit == 20


def test_it_ends_in_time():
    class Slow(Plain):
        def answer(self, wrong):
            import time

            time.sleep(0.02)
            return super().answer(wrong)

    report = quick(Slow(), steps=10**9, seconds=0.3)
    assert 2 <= report.steps <= 20 and report.seconds < 1


def test_options_are_those_of_an_agent():
    report = quick(EnvironmentSource("CartPole-v1", pixels=True, image_size=32), steps=5)
    assert report.observations[0].shape == (32, 32, 3)
    report = quick("CartPole-v1", action_repeat=2, time_limit=10, steps=50)
    assert report.action_repeat == 2 and max(report.lengths) <= 5

    class Map(Plain):
        observation_space = gymnasium.spaces.Box(0, 255, (32, 32), np.uint8)

        def seen(self):
            return np.zeros((32, 32), np.uint8)

    assert quick(Map, parts={"image": "vector"}).observations[0].kind == "vector"


def test_the_estimate_of_a_run():
    report = reverie.check("CartPole-v1", steps=100, preset="quick")
    estimate = report.estimate
    assert (estimate.agent, estimate.preset, estimate.steps) == ("dreamer-v3", "quick", 40_000)
    assert estimate.updates > 1_000 and estimate.parameters > 100_000 and estimate.seconds > 10
    assert 50e6 < estimate.memory < 100e9 and 1e6 < estimate.disk < 1e9
    assert "estimate          dreamer-v3, preset quick: 40,000 steps" in str(report)


def test_what_is_refused():
    for options in ({"steps": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"seed": -1}):
        with pytest.raises(ConfigError, match="steps and seconds must be above 0"):
            quick(Plain, **options)
    with pytest.raises(ConfigError, match="in stages"):
        reverie.check(Plain, agent="world-models")
    with pytest.raises(ReverieError, match="no environment"):
        quick("Nope-v0")

    class Wordy(Plain):
        observation_space = gymnasium.spaces.Dict({"words": gymnasium.spaces.Graph(gymnasium.spaces.Discrete(2), None)})

    with pytest.raises(SpaceError):
        quick(Wordy)


def test_the_environment_s_own_warnings_are_not_swallowed():
    class Warns(Plain):
        def answer(self, wrong):
            import warnings

            if wrong:
                warnings.warn("mine", stacklevel=1)
            return super().answer(wrong)

    with pytest.warns(UserWarning, match="mine"):
        assert quick(Warns()).faults == []


def test_on_the_command_line(capsys):
    gymnasium.register("Raises-v0", entry_point=Raises)
    try:
        assert main(["check", "CartPole-v1", "--steps", "50", "--no-estimate"]) == 0
        assert "discrete, 2 choices" in capsys.readouterr().out
        assert main(["check", "--pixels", "--env", "CartPole-v1", "--steps", "9", "--no-estimate"]) == 0
        assert "image, 64 x 64 x 3 pixels" in capsys.readouterr().out
        assert main(["check", "Raises-v0", "--no-estimate"]) == 2
        assert "episode 2, step 3: step of Raises-v0 raised ZeroDivisionError" in capsys.readouterr().out
        for words, message in (
            (["check", "Nope-v0"], "there is no environment"),
            (["check", "CartPole-v1", "--agent", "dreamer"], "did you mean"),
            (["check", "CartPole-v1", "--preset", "fast"], "has no preset"),
            (["check", "CartPole-v1", "--part", "x"], "NAME=KIND"),
        ):
            assert main(words) == 2
            assert message in capsys.readouterr().err
    finally:
        gymnasium.registry.pop("Raises-v0")


def test_parts_are_left_out_and_types_checked_as_in_training():
    class Two(Plain):
        observation_space = gymnasium.spaces.Dict(a=Plain.observation_space, b=gymnasium.spaces.Discrete(2))

        def reset(self, **options):
            observation, info = super().reset(**options)
            return {"a": observation, "b": 0}, info

        def step(self, action):
            observation, *rest = super().step(action)
            return {"a": observation, "b": 1}, *rest

    report = reverie.check(Two, ignore=["b"], steps=20, estimate=False)
    assert report.ok and all(part.name.startswith("a/") for part in report.observations)
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        reverie.check(Two, seed="1")
