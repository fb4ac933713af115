"""When updates are made and when actions are random, and runs of the agents before DreamerV3."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from older_runs import OPTIONS
from run_helpers import assert_same_run, metrics, replay_rows, train

from reverie.agents.dreamer_v1 import DreamerV1Config
from reverie.agents.planet import PlaNetConfig
from reverie.agents.registry import AGENTS, make_config, preset_values, presets
from reverie.agents.schedule import Schedule
from reverie.spaces import ActionPart, Interface, ObservationPart
from reverie.training import trainer
from reverie.training.settings import TrainSettings
from reverie.training.trainer import Trainer
from reverie.training.updater import Updater


class Counting(Updater):
    """Counts updates instead of making them."""

    def __init__(self, schedule, windows=1):
        config = SimpleNamespace(batch_size=1, schedule=lambda: schedule)
        super().__init__(SimpleNamespace(), SimpleNamespace(num_windows=windows), config)

    def update(self):
        self.updates += 1


def play(schedule, steps, length=100, environments=1):
    """Updates after every step of environments whose episodes have the same length."""
    updater, made, episodes = Counting(schedule), [], 0
    for step in range(environments, steps + 1, environments):
        new = environments if step // environments % length == 0 else 0
        episodes += new
        made.append(updater.learn(step, environments, episodes, new))
    return made


def test_planet_makes_a_hundred_updates_for_every_episode_after_five():
    made = play(PlaNetConfig().schedule(), 800)
    ends = {step + 1: count for step, count in enumerate(made) if count}
    assert ends == {500: 100, 600: 100, 700: 100, 800: 100}


def test_episodes_that_end_together_give_their_updates_together():
    made = play(PlaNetConfig().schedule(), 1200, environments=4)
    # Four, then eight episodes: the warm-up ends with eight, then four more give four hundred.
    assert {index: count for index, count in enumerate(made) if count} == {199: 100, 299: 400}


def test_dreamer_v1_makes_a_hundred_updates_every_five_hundred_steps():
    made = play(DreamerV1Config().schedule(), 4000, length=10**6)
    assert {step + 1: count for step, count in enumerate(made) if count} == {
        2500: 100,
        3000: 100,
        3500: 100,
        4000: 100,
    }


def test_dreamer_v2_makes_one_update_every_five_steps():
    made = play(make_config("dreamer-v2", {}, "dmc").schedule(), 1100, length=10**6)
    assert sum(made[:999]) == 0 and made[999] == 100
    assert made[1000:] == [0, 0, 0, 0, 1] * 20


def test_dreamer_v3_spreads_its_updates_and_does_not_wait_for_episodes():
    config = make_config("dreamer-v3", {"replay_ratio": 512.0, "warmup_steps": 10})
    assert config.schedule() == Schedule(10, per_step=0.5, newest_first=True)
    assert play(config.schedule(), 16) == [0] * 9 + [1, 0, 1, 0, 1, 0, 1]


PRESETS = [(agent, preset) for agent in AGENTS for preset in presets(agent)]
KINDS = {
    "vectors": Interface((ObservationPart("o", "vector", (3,)),), (ActionPart("action", "continuous", 1),)),
    "pictures": Interface((ObservationPart("o", "image", (64, 64, 3)),), (ActionPart("action", "discrete", 1, (3,)),)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("agent", "preset"), PRESETS)
def test_every_preset_makes_the_updates_that_its_numbers_promise(agent, preset, kind):
    config = make_config(agent, {}, preset, KINDS[kind])
    schedule, length = config.schedule(), 100
    steps = max(2 * schedule.warmup_steps, 3 * schedule.warmup_episodes * length)
    made = sum(play(schedule, steps, length))
    if agent == "planet":
        promised = config.updates * (1 + steps // length - config.random_episodes)
    elif agent == "dreamer-v1":
        promised = config.updates * (1 + (steps - config.warmup_steps) // config.update_every)
    else:
        rate = config.replay_ratio / (config.batch_size * config.batch_length)
        promised = getattr(config, "first_updates", 1) + int(rate * (steps - config.warmup_steps) + 1e-6)
    assert made == promised == schedule.updates_after(steps, steps // length)
    assert made >= 10
    assert schedule.updates_after(schedule.warmup_steps - 1, schedule.warmup_episodes - 1) == 0


@pytest.mark.parametrize(("agent", "preset"), PRESETS)
def test_a_run_of_a_presets_own_length_learns(agent, preset):
    for interface in KINDS.values():
        values = preset_values(agent, preset, interface)
        schedule = make_config(agent, {}, preset, interface).schedule()
        assert schedule.updates_after(values.get("steps", TrainSettings.steps), 10**6) >= 100


def test_agents_without_first_updates_learn_all_the_same():
    # The published code at the time of DreamerV2's paper: no update before the agent acts, then one every four steps.
    made = play(Schedule(8, warmup_actions="random", first=0, per_step=0.25), 20)
    assert [step + 1 for step, count in enumerate(made) if count] == [12, 16, 20]


def test_many_parts_make_whole_updates():
    # 125 times 0.8 is 99.99999999999999 as a sum.
    made = play(Schedule(0, first=1, per_step=0.8, burst=100), 501)
    assert {step: count for step, count in enumerate(made) if count} == {0: 1, 125: 100, 250: 100, 375: 100, 500: 100}


def test_whether_the_warm_up_is_over_survives_a_checkpoint():
    before, after = (Counting(Schedule(2, first=0, per_step=0.5)) for _ in range(2))
    assert [before.learn(step, 1) for step in (1, 2)] == [0, 0]
    after.agent, after._latents = SimpleNamespace(device="cpu"), None
    after.restore(*before.state())
    assert not after.warming_up(2, 0)
    assert [after.learn(step, 1) for step in (3, 4)] == [0, 1]


def test_nothing_is_learned_before_there_is_a_window():
    updater = Counting(Schedule(2, first=3, per_step=1), windows=0)
    assert updater.warming_up(5, 0) and updater.learn(5, 5) == 0
    updater.replay.num_windows = 1
    assert updater.learn(6, 1) == 3
    assert not updater.warming_up(6, 0)
    assert updater.learn(7, 1) == 1


@pytest.mark.parametrize("agent", OPTIONS)
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(agent, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, agent=agent, **OPTIONS[agent]) == 0
    advance, steps = Trainer._advance, []

    def stop_soon(self):
        advance(self)
        steps.append(self.env_steps)
        self._interruption.requested = len(steps) % 19 == 0

    monkeypatch.setattr(Trainer, "_advance", stop_soon)
    codes = [130]
    while codes[-1] == 130:
        codes.append(train(parts, agent=agent, **OPTIONS[agent]))
    assert codes[-1] == 0 and len(codes) > 4
    assert_same_run(whole, parts)
    assert metrics(whole)[-1]["updates"] > 5


@pytest.mark.parametrize("agent", OPTIONS)
def test_the_first_actions_are_random(agent, tmp_path):
    assert train(tmp_path / "run", agent=agent, env="Pendulum-v1", steps=60, **OPTIONS[agent]) == 0
    actions = replay_rows(tmp_path / "run")[0]["action", 0].flatten()
    # Uniform numbers, which neither the first policies nor plans give: these lean to the bounds or to zero.
    quarters = np.histogram(actions, 4, (-1, 1))[0] / len(actions)
    assert quarters == pytest.approx([0.25] * 4, abs=0.15)


@pytest.mark.parametrize("agent", OPTIONS)
def test_a_run_leaves_a_dream_video_and_scores(agent, tmp_path):
    run = tmp_path / "run"
    assert train(run, agent=agent, steps=200, **{**OPTIONS[agent], "videos": True}) == 0
    (video,) = (run / "videos").glob("open_loop_*.mp4")
    assert video.stat().st_size > 1000
    (score,) = json.loads((run / "scores.json").read_text())
    assert len(score["returns"]) == 2


@pytest.mark.parametrize(("agent", "first"), [("dreamer-v3", True), ("dreamer-v2", False), ("planet", False)])
def test_only_dreamer_v3_serves_new_windows_first(agent, first, tmp_path, monkeypatch):
    asked = []

    class Replay(trainer.SequenceReplay):
        def __init__(self, *arguments, online, **options):
            asked.append(online)
            super().__init__(*arguments, online=online, **options)

    monkeypatch.setattr(trainer, "SequenceReplay", Replay)
    assert train(tmp_path / "run", agent=agent, steps=20, **OPTIONS.get(agent, {})) == 0
    assert asked == [first]
