"""The fast CarRacing against Gymnasium's own: same rewards, nearly the same pictures."""

import copy
import pickle
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reverie.envs import make
from reverie.envs.extras import extra_for, list_environments
from reverie.envs.suites import OPTIONAL_TASKS
from reverie.errors import ConfigError, EnvironmentProblem

pytest.importorskip("Box2D")
pytest.importorskip("pygame")

from gymnasium.envs.box2d.car_racing import CarRacing as Stock
from PIL import Image

from reverie.envs.suites.car_racing import CarRacing, mark_on_tyre, zoom_at
from reverie.envs.suites.world_models_car_racing import WorldModelsCarRacing

ROAD, INDICATORS = slice(0, 84), slice(84, 96)


class Blind(Stock):
    """The stock physics without any drawing."""

    def _render(self, mode):
        return np.zeros((96, 96, 3), np.uint8)


def road_actions(seed, count):
    """Actions that follow the road of a seed, not too well; [count, 3]."""
    environment, chosen = Blind(), []
    environment.reset(seed=seed)
    generator = np.random.default_rng(seed)
    track = np.array(environment.track)[:, 2:]
    for step in range(count):
        hull = environment.car.hull
        nearest = np.square(track - hull.position).sum(1).argmin()
        ahead = track[(nearest + 5) % len(track)] - hull.position
        error = (np.arctan2(-ahead[0], ahead[1]) - hull.angle + np.pi) % (2 * np.pi) - np.pi
        if step % 8 == 0:
            noise, gas, brake = generator.uniform(-0.3, 0.3), generator.uniform(0.1, 0.5), generator.choice([0, 0.3, 1])
        fast = np.hypot(*hull.linearVelocity) > 35
        chosen.append(np.array([np.clip(noise - error, -1, 1), 0 if fast else gas, brake if fast else 0], np.float32))
        environment.step(chosen[-1])
    return chosen


def drive(environment, seed, choices):
    """Observations [T + 1, 96, 96, 3] and (reward, terminated, truncated, info) of each step."""
    observations, results = [environment.reset(seed=seed)[0]], []
    for action in choices:
        observation, *result = environment.step(action)
        observations.append(observation)
        results.append(tuple(result))
        if result[1]:
            break
    return np.array(observations), results


def difference(first, second, rows):
    """Mean absolute difference of each frame in gray levels, [T]."""
    return np.abs(first[:, rows].astype(int) - second[:, rows]).mean((1, 2, 3))


@pytest.mark.parametrize("seed", [0, 1])
def test_rewards_are_the_same_and_pictures_nearly(seed):
    choices = road_actions(seed, 300)
    stock_frames, stock_results = drive(Stock(), seed, choices)
    frames, results = drive(CarRacing(), seed, choices)
    assert results == stock_results
    assert len(results) == 300 and sum(reward > 0 for reward, *_ in results) > 30
    assert frames.dtype == np.uint8
    road = difference(stock_frames, frames, ROAD)
    assert road.mean() < 0.3 and road.max() < 0.6
    assert road[:50].mean() < 0.4, "the camera comes nearer"
    assert difference(stock_frames, frames, INDICATORS).mean() < 0.5
    # A shift of the picture by one pixel would be seen: it makes several times the difference.
    for axis in (1, 2):
        assert difference(stock_frames, np.roll(frames, 1, axis), ROAD).mean() > 4 * road.mean()


def test_the_car_is_drawn_as_in_the_stock_picture():
    choices = np.tile(np.array([-1, 0.3, 0], np.float32), (70, 1))
    stock_frames, _ = drive(Stock(), 3, choices)
    frames, _ = drive(CarRacing(), 3, choices)
    box = (slice(60, 71), slice(66, 78), slice(44, 52))
    assert np.abs(stock_frames[box].astype(int) - frames[box]).mean() < 6
    assert ((frames[60:, 66:78, 44:52, 0] > 150) & (frames[60:, 66:78, 44:52, 1] < 60)).any((1, 2)).all()


def test_leaving_the_field_ends_the_episode_as_in_the_stock_environment():
    choices = np.tile(np.array([0, 0.3, 0], np.float32), (400, 1))
    _, stock_results = drive(Blind(), 5, choices)
    frames, results = drive(CarRacing(), 5, choices)
    assert results == stock_results
    assert results[-1][:2] == (-100, True)
    assert results[-1][3] == {"lap_finished": False}
    assert (frames[-1][:20] == 0).any(), "beyond the field all is black"


def test_keywords_pass_through():
    settings = {"lap_complete_percent": 0.01, "domain_randomize": True, "continuous": False}
    choices = np.repeat([3, 1, 3, 2], 20)
    stock_frames, stock_results = drive(Stock(**settings), 2, choices)
    frames, results = drive(CarRacing(**settings), 2, choices)
    assert results == stock_results
    assert difference(stock_frames, frames, ROAD).mean() < 0.6
    assert gymnasium.make("reverie/CarRacing-v0", lap_complete_percent=1.0).unwrapped.lap_complete_percent == 1.0
    plain, _ = drive(CarRacing(), 2, [])
    assert (frames[0] != plain[0]).any()


def test_same_seed_same_episode_and_observations_are_kept_apart():
    environment = CarRacing()
    first, _ = drive(environment, 4, road_actions(4, 40))
    other, _ = drive(environment, 5, road_actions(4, 40))
    again, _ = drive(environment, 4, road_actions(4, 40))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != other[0]).any()
    kept = environment.reset(seed=0)[0]
    before = kept.copy()
    kept[:] = 0
    np.testing.assert_array_equal(environment.reset(seed=0)[0], before)


def test_touched_tiles_lose_their_shade():
    """The shades of untouched tiles tell where the car has not been; both pictures forget them on contact."""
    environment = CarRacing()
    environment.reset(seed=0)
    before = environment.road[4].color.copy()
    for _ in range(40):
        environment.step(np.array([0, 0.5, 0], np.float32))
    touched = [tile.idx for tile in environment.road if tile.road_visited]
    assert 4 in touched
    np.testing.assert_allclose(environment.road[4].color, environment.road_color)
    assert (before != environment.road_color).all(), "two of three tiles have a shade until they are touched"
    assert all(np.shares_memory(tile.color, environment.road_poly[0][1].base) for tile in environment.road)


def test_id_check_and_rendering():
    environment = gymnasium.make("reverie/CarRacing-v0", render_mode="rgb_array")
    assert environment.spec.max_episode_steps == 1000
    check_env(environment.unwrapped, skip_render_check=True)
    stock = Stock(render_mode="rgb_array")
    stock.reset(seed=1)
    environment.reset(seed=1)
    np.testing.assert_array_equal(environment.render(), stock.render())
    assert make("reverie/CarRacing-v0").interface.observations[0].shape == (96, 96, 3)


def test_supersample():
    with pytest.raises(ConfigError, match="supersample is 9, but it must be from 1 to 8"):
        CarRacing(supersample=9)
    choices = road_actions(0, 60)
    stock_frames, _ = drive(Stock(), 0, choices)
    pictures = [drive(CarRacing(supersample=samples), 0, choices)[0] for samples in (1, 4)]
    errors = [difference(stock_frames, frames, ROAD)[50:].mean() for frames in pictures]
    assert errors[1] < errors[0] < 1
    assert pickle.loads(pickle.dumps(CarRacing(supersample=3, continuous=False))).supersample == 3
    assert not copy.deepcopy(CarRacing(supersample=3, continuous=False)).continuous


def test_zoom_and_marks():
    assert zoom_at(0) == pytest.approx(0.6)
    assert zoom_at(0.5) == pytest.approx(8.4)  # half of 0.6 and half of 16.2
    assert zoom_at(7) == pytest.approx(16.2)
    assert mark_on_tyre(0.5) is None  # sin 0.5 and sin 1.7 are both positive
    assert mark_on_tyre(np.pi) == pytest.approx((-1, np.cos(np.pi + 1.2)))
    assert mark_on_tyre(2.5) == pytest.approx((-1, np.cos(3.7)))  # sin 2.5 > 0: it begins at the very end


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for module in [name for name in sys.modules if "box2d" in name or name.endswith("suites.car_racing")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(EnvironmentProblem, match=r"'reverie/CarRacing-v0' needs .*pip install \"reverie-rl\[box2d\]\""):
        make("reverie/CarRacing-v0")


def test_the_task_of_world_models():
    seen = gymnasium.make("reverie/WorldModelsCarRacing-v0").unwrapped
    assert seen.lap_complete_percent == 1.0
    check_env(seen, skip_render_check=True)
    # Steering as it is, gas from -1..1 to 0..1, the positive part of the brake (released code, `model.py`).
    choices = road_actions(6, 120)
    flat = [np.array([steering, 2 * gas - 1, brake or -0.7], np.float32) for steering, gas, brake in choices]
    frames, results = drive(CarRacing(lap_complete_percent=1.0), 6, choices)
    small, same = drive(WorldModelsCarRacing(), 6, flat)
    np.testing.assert_allclose([row[0] for row in same], [row[0] for row in results], atol=1e-9)
    road = np.array(Image.fromarray(frames[70][:84]).resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(small[70].astype(int), road, atol=2)


def test_optional_tasks_are_listed_and_documented():
    page = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    listed = {row["id"]: row["extra"] for row in list_environments()}
    for name, task in OPTIONAL_TASKS.items():
        assert listed[name] == extra_for(name).name == task.extra
        assert f"| `{name}` | `{task.extra}` |" in page
