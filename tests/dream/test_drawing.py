"""Predictions drawn with what is known of their task: names, title, actions and the task's own renderer."""

import time

import gymnasium
import numpy as np
import pytest
from PIL import Image

from reverie.dream.canvas import IMAGINED_COLOR, OBSERVED_COLOR, TITLE_HEIGHT, text
from reverie.dream.drawing import Drawing, OpenLoop
from reverie.dream.open_loop import save_open_loop
from reverie.dream.scene import Scene
from reverie.envs import EnvironmentSource, make
from reverie.envs.state_renderer import StateRenderer

STEPS, CONTEXT, TITLE = 12, 6, "dreamer-v3 on CartPole-v1, step 8,000"


def played(name, sequences=2, steps=STEPS, part="observation", **shapes):
    """A prediction whose truth and model are real states of an environment, one step apart."""
    environment = gymnasium.make(name)
    adapter = make(name)
    truth, actions = [], []
    for seed in range(sequences):
        environment.action_space.seed(seed)
        rows, taken = [environment.reset(seed=seed)[0]], []
        for _ in range(steps):
            action = environment.action_space.sample()
            rows.append(environment.step(action)[0])
            taken.append(adapter.encode_action(action))
        truth.append(rows)
        actions.append(taken)
    states = np.array(truth, np.float32)
    pair = (np.ones((sequences, steps)), np.ones((sequences, steps)))
    result = OpenLoop({part: states[:, :-1]}, {part: states[:, 1:]}, pair, pair, CONTEXT, np.array(actions))
    return result, Scene.of(adapter)


def titled(picture):
    """Whether the title stands at the top of a picture."""
    expected = text(TITLE, 300, TITLE_HEIGHT)
    return np.array_equal(picture[:TITLE_HEIGHT, :300], expected)


def test_classic_tasks_show_reality_above_the_dream():
    result, scene = played("CartPole-v1")
    frames = Drawing(result, scene, TITLE).frames
    assert len(frames) == STEPS and titled(frames[0])
    renderer = StateRenderer.of(gymnasium.make("CartPole-v1"))
    height, width = renderer.frame(np.zeros(4), shrink=3).shape[:2]
    for row, parts in enumerate((result.truth, result.model)):
        for column in range(2):
            top, left = TITLE_HEIGHT + 28 + row * (height + 12), 68 + column * (width + 12)
            border = [tuple(frame[top + 1, left + 1]) for frame in frames]
            assert border == [OBSERVED_COLOR] * CONTEXT + [IMAGINED_COLOR] * (STEPS - CONTEXT)
            drawn = frames[7, top + 4 : top + 4 + height, left + 4 : left + 4 + width]
            assert np.array_equal(drawn, renderer.frame(parts["observation"][column, 7], shrink=3))


def test_the_torque_of_pendulum_is_that_of_the_action_before():
    result, scene = played("Pendulum-v1", sequences=1)
    frames = Drawing(result, scene).frames
    environment = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
    environment.reset(seed=0)
    environment.action_space.seed(0)
    environment.step(environment.action_space.sample())
    import pygame

    environment.render()
    expected = pygame.transform.smoothscale(environment.unwrapped.screen, (166, 166))
    drawn = frames[1, 28 + 4 : 28 + 4 + 166, 68 + 4 : 68 + 4 + 166]
    difference = drawn.astype(int) - pygame.surfarray.array3d(expected).swapaxes(0, 1)
    assert (difference != 0).any(-1).mean() < 0.001


def test_curves_have_names_title_and_actions():
    result, scene = played("CartPole-v1")
    known = Drawing(result, scene, TITLE).board.picture
    assert titled(known)
    without = OpenLoop(result.truth, result.model, result.reward, result.going_on, CONTEXT)
    assert known.shape[0] - Drawing(without, scene, TITLE).board.picture.shape[0] == 54  # the row of the actions
    unnamed = Drawing(result, Scene(variables=scene.variables, choices=scene.choices), TITLE).board.picture
    assert unnamed.shape == known.shape
    different = (unnamed != known).any((0, 2))
    assert different[:204].any() and not different[204:].any()  # names on the left, nothing else


def test_actions_are_shown_in_the_units_of_the_environment():
    result, scene = played("Pendulum-v1")
    (row,) = scene.action_rows(result.actions)
    assert row.name == "torque [N m]" and row.held
    np.testing.assert_allclose(row.truth, 2 * result.actions[..., 0])
    result, scene = played("LunarLander-v3", steps=10)
    (row,) = scene.action_rows(result.actions)
    assert row.choices == ("no engine", "left engine", "main engine", "right engine")
    np.testing.assert_array_equal(row.truth, result.actions.argmax(-1))


def test_images_beside_numbers_get_title_and_actions(tmp_path):
    result, scene = played("Hopper-v5")
    images = np.zeros((2, STEPS, 32, 32, 3), np.uint8)
    result.truth["image"] = result.model["image"] = images
    bare = Drawing(OpenLoop(result.truth, result.model, result.reward, result.going_on, CONTEXT)).frames
    frames = Drawing(result, scene, TITLE).frames
    assert len(frames) == STEPS and titled(frames[0])
    assert frames.shape[1] > bare.shape[1] + TITLE_HEIGHT + 3 * 46  # three torques
    assert [path.name for path in save_open_loop(result, tmp_path / "both.gif", scene, TITLE)] == [
        "both.gif",
        "both.png",
    ]
    assert Image.open(tmp_path / "both.gif").n_frames > 1


def test_any_source_has_its_scene():
    for source in ("CartPole-v1", lambda: gymnasium.make("CartPole-v1"), gymnasium.make("CartPole-v1")):
        scene = Scene.of_source(EnvironmentSource(source))
        assert scene.renderer is not None and scene.names["observation"][2] == "pole angle [rad]"
        assert scene.choices == ("push left", "push right")
    pixels = Scene.of_source(EnvironmentSource("CartPole-v1", pixels=True))
    assert pixels.renderer is None and not pixels.names and pixels.choices == scene.choices


@pytest.mark.parametrize("rendered", [True, False])
def test_a_drawing_costs_little(rendered, tmp_path):
    result, scene = played("CartPole-v1", sequences=3, steps=8)
    repeated = {name: np.tile(value, (2, 7, 1))[:, :50] for name, value in result.truth.items()}
    pair = (np.ones((6, 50)), np.ones((6, 50)))
    result = OpenLoop(repeated, repeated, pair, pair, 25, np.tile(result.actions, (2, 7, 1))[:, :50])
    scene = scene if rendered else Scene(scene.names, scene.variables, scene.choices)
    Drawing(result.first(1), scene, most_frames=2).save(tmp_path / "first.mp4")  # imports and fonts
    start = time.process_time()
    drawing = Drawing(result, scene, TITLE, most_frames=25)
    assert len(drawing.frames) == 25 and drawing.fps == 6
    drawing.save(tmp_path / "dream.mp4")
    assert time.process_time() - start < 2.5  # 0.4 on an idle machine; axes drawn for every frame took ten times that
