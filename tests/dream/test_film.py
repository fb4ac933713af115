"""Films of real play: what is shown, written above it, and left out."""

import av
import gymnasium
import numpy as np
import pytest
from PIL import Image

import reverie
from reverie.cli.main import main
from reverie.dream.film import LEAST_WIDTH, MOST_FRAMES, TITLE_HEIGHT, caption, composed, usual_fps
from reverie.envs import EnvironmentSource
from reverie.errors import ConfigError

TINY = {"size": "100k", "deterministic": 32, "hidden": 16, "units": 16, "variables": 4, "classes": 4}


class Shown(gymnasium.Env):
    """Episodes of `length` steps; frame and observation tell the step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None, length=4, size=(20, 30), observes=False):
        self.render_mode, self.length, self.size, self.observes = render_mode, length, size, observes
        box = gymnasium.spaces.Box
        self.observation_space = box(0, 255, (32, 32, 3), np.uint8) if observes else box(0, 99, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.elapsed = 0
        return self._seen(), {}

    def step(self, action):
        self.elapsed += 1
        return self._seen(), 0.5, self.elapsed == self.length, False, {}

    def render(self):
        return np.full((*self.size, 3), 40 * self.elapsed, np.uint8)

    def _seen(self):
        return np.full(self.observation_space.shape, 10 * self.elapsed, self.observation_space.dtype)


class Blind(Shown):
    """Shows nothing."""

    metadata = {}

    def __init__(self):
        super().__init__()

    render = None


class Sees(Shown):
    """Shows nothing but what it observes."""

    metadata = {}

    def __init__(self):
        super().__init__(observes=True)

    render = None


def agent(environment, **settings):
    return reverie.DreamerV3(environment, run="unused", preset="paper", **{**TINY, **settings})


def frames_of(path):
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return [np.asarray(_at(image, number).convert("RGB")) for number in range(image.n_frames)]
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _at(image, number):
    image.seek(number)
    return image


@pytest.mark.parametrize("side", [(8, 8), (64, 64), (210, 160), (480, 640), (1200, 1600), (1000, 40), (33, 479)])
def test_a_frame_is_wide_enough_and_sharp(side):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*side, 3), np.uint8)
    frame = composed(picture, "agent on Task-v0", caption(0, 1, 0.5, 0.5))
    height, width = frame.shape[:2]
    assert width >= LEAST_WIDTH and height % 2 == width % 2 == 0 and width <= 1280
    assert (frame[: 2 * TITLE_HEIGHT] < 128).any(axis=(1, 2)).sum() > 15  # two lines of letters
    if side[0] <= 210:  # every pixel of the picture is a square of one color
        factor = max(1, min(-(-LEAST_WIDTH // side[1]), 960 // side[0]))
        left = (width - side[1] * factor) // 2
        shown = frame[2 * TITLE_HEIGHT :][: side[0] * factor, left : left + side[1] * factor]
        assert np.array_equal(shown, picture.repeat(factor, 0).repeat(factor, 1))


@pytest.mark.parametrize("vectorization", ["in-process", "workers"])
def test_the_episodes_of_an_evaluation_one_after_the_other(tmp_path, vectorization):
    learner = agent(Shown, vectorization=vectorization)
    path = tmp_path / "new" / "film.mp4"
    result = learner.evaluate(3, video=path, seed=1)
    assert result.returns == [2, 2, 2] == learner.evaluate(3, seed=1).returns
    frames = frames_of(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["film.mp4"]
    shown = [round(frame[200, 200].mean() / 40) for frame in frames]
    assert shown == 3 * [0, 1, 2, 3, *[4] * 10]  # the end stays for half a second of 20 frames per second
    assert frames[0].shape[1] >= LEAST_WIDTH


def test_a_video_changes_nothing_that_is_played(tmp_path):
    learner = agent("CartPole-v1", vectorization="in-process")
    before = learner.evaluate(3, seed=2)
    assert learner.evaluate(3, seed=2, video=tmp_path / "film.gif").returns == before.returns
    assert len(frames_of(tmp_path / "film.gif")) > 20


def test_the_title_and_the_numbers_are_drawn(tmp_path):
    learner = agent(Shown, vectorization="in-process")
    learner.evaluate(1, video=tmp_path / "film.gif")
    first, second, *_ = frames_of(tmp_path / "film.gif")
    same = first[:TITLE_HEIGHT] == second[:TITLE_HEIGHT]
    assert same.mean() > 0.99
    lines = [
        composed(np.zeros((20, 30, 3), np.uint8), "", caption(0, step, reward, total))
        for step, reward, total in ((0, 0.0, 0.0), (1, 0.5, 0.5))
    ]
    for frame, line in zip((first, second), lines, strict=True):
        row = slice(TITLE_HEIGHT, 2 * TITLE_HEIGHT)
        assert np.abs(frame[row].astype(int) - line[row]).mean() < 5


def test_what_is_observed_stands_in_for_frames(tmp_path):
    agent(Sees, vectorization="in-process").evaluate(1, video=tmp_path / "film.mp4")
    assert len(frames_of(tmp_path / "film.mp4")) >= 5
    bare = gymnasium.make("CartPole-v1")  # made without rendering: its state is drawn
    agent(bare).evaluate(1, video=tmp_path / "state.mp4", episode_limit=5)
    assert frames_of(tmp_path / "state.mp4")[0].shape == (452, 600, 3)
    with pytest.raises(ConfigError, match="renders no frames and observes no pictures"):
        agent(Blind, vectorization="in-process").evaluate(1, video=tmp_path / "none.mp4")
    assert not (tmp_path / "none.mp4").exists()


def test_a_long_film_is_cut_off_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(MOST_FRAMES, ".mp4", 7)
    with pytest.warns(UserWarning, match="shows 7 of 10 pictures"):
        agent(Shown, vectorization="in-process").evaluate(2, video=tmp_path / "film.mp4")
    assert [round(frame[200, 200].mean() / 40) for frame in frames_of(tmp_path / "film.mp4")][-2:] == [0, 1]


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("film.avi", None, "must end in"),
        ("film", None, "must end in"),
        ("film.mp4", 0, "fps must be 1 to 240"),
        ("folder.mp4", None, "is a folder"),
    ],
)
def test_what_cannot_be_a_video_is_said_before_anything_is_played(tmp_path, name, fps, message):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ConfigError, match=message):
        agent(Shown).evaluate(1, video=tmp_path / name, fps=fps, watch=lambda playing: pytest.fail("played"))


def test_the_usual_speed():
    for options, fps in (({}, 20), ({"action_repeat": 4}, 5), ({"action_repeat": 90}, 1)):
        adapter = EnvironmentSource(Shown, **options).make()
        assert usual_fps(adapter) == fps


def test_a_window_shows_one_episode_after_the_other(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("DISPLAY", ":0")
    result = agent(Shown).evaluate(2, video="human", fps=200)
    assert result.returns == [2, 2]


def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    saved = tmp_path / "saved"
    agent("CartPole-v1").save(saved)
    assert main(["watch", str(saved), "--episode-limit", "5"]) == 0
    out = capsys.readouterr().out
    assert f"video             {saved / 'videos' / 'play.mp4'}" in out and "length      5" in out
    assert len(frames_of(saved / "videos" / "play.mp4")) == 6 + 24
    for command in (["--video"], ["--video", "--seed", "1"], ["--video", str(tmp_path / "a.gif")]):
        assert main(["evaluate", str(saved), "--episodes", "2", "--episode-limit", "5", *command]) == 0
    assert main(["evaluate", "--video", str(saved), "--episodes", "1", "--episode-limit", "5"]) == 0
    assert (saved / "videos" / "evaluation.mp4").exists() and (tmp_path / "a.gif").exists()
    capsys.readouterr()
    for words, message in (
        (["watch", str(saved), "--env-render", "human"], "no display here"),
        (["watch", str(saved), "--env-render", "human", "--output", "a.mp4"], "a window writes no file"),
        (["watch", str(saved), "--output", "a.avi"], "must end in .mp4 or .gif"),
        (["watch", str(saved), "--episodes", "0"], "episodes must be at least 1"),
        (["evaluate", str(saved), "--video", "a.avi"], "must end in .mp4 or .gif"),
    ):
        monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)  # making an environment sets it
        assert main(words) == 2
        assert message in capsys.readouterr().err
