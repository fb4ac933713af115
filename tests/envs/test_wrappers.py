import gymnasium
import numpy as np
import pytest
from env_helpers import Scripted

from reverie.envs.wrappers import RenderedObservation, ResizeImages, resize_image
from reverie.errors import EnvironmentProblem


def test_shrinking_averages_over_areas():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    # Top left: (0 + 10 + 40 + 50) / 4 = 25, and so on, 20 to the right and 80 down.
    assert resize_image(image, (2, 2))[..., 0].tolist() == [[25, 45], [105, 125]]


def test_thin_lines_are_not_lost():
    image = np.zeros((400, 600, 3), np.uint8)
    image[:, 301] = 255
    assert resize_image(image, (64, 64)).max() > 20


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9])
def test_channels_do_not_mix(channels):
    image = np.zeros((50, 60, channels), np.uint8)
    image[...] = np.arange(channels) * 20
    for size in ((32, 32), (100, 40), (80, 90)):
        resized = resize_image(image, size)
        assert resized.shape == (*size, channels) and resized.dtype == np.uint8
        assert (resized == np.arange(channels) * 20).all()


def test_same_size_is_a_copy():
    image = np.zeros((32, 32, 3), np.uint8)
    resized = resize_image(image, (32, 32))
    image[:] = 1
    assert (resized == 0).all()


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (gymnasium.spaces.Box(0, 255, (3, 40, 50), np.uint8), np.full((3, 40, 50), 51, np.uint8)),
        (gymnasium.spaces.Box(0, 255, (40, 50), np.uint8), np.full((40, 50), 51, np.uint8)),
        (gymnasium.spaces.Box(0, 1, (40, 50, 3), np.float32), np.full((40, 50, 3), 0.2, np.float32)),
    ],
)
def test_every_layout_of_images(space, value):
    wrapped = ResizeImages(
        Scripted((value, 1), space=gymnasium.spaces.Tuple((space, gymnasium.spaces.Discrete(2)))), (32, 36)
    )
    (image, number), _ = wrapped.reset(seed=0)
    assert wrapped.observation_space[0].contains(image) and image.shape[:2] == (32, 36)
    assert (image == 51).all() and number == 1


def test_images_that_do_not_fit_their_space():
    space = gymnasium.spaces.Box(0, 255, (40, 40, 3), np.uint8)
    for value in (np.zeros((40, 41, 3), np.uint8), np.zeros((40, 40, 3), np.float32)):
        with pytest.raises(EnvironmentProblem, match="make the environment return what it declares"):
            ResizeImages(Scripted(value, space=space), (32, 32)).reset()
    space = gymnasium.spaces.Box(0, 1, (40, 40, 3), np.float32)
    with pytest.raises(EnvironmentProblem, match="NaN"):
        ResizeImages(Scripted(np.full((40, 40, 3), np.nan, np.float32), space=space), (32, 32)).reset()


class Drawn(gymnasium.Env):
    """Draws frames in `render_size`, or 100 x 100 where that is something else."""

    observation_space = action_space = gymnasium.spaces.Discrete(2)
    render_mode = "rgb_array"

    def __init__(self, render_size):
        self.render_size = render_size

    def render(self):
        return np.zeros((*(self.render_size if isinstance(self.render_size, tuple) else (100, 100)), 3), np.uint8)


def test_frames_are_drawn_in_the_size_that_is_wanted_where_the_environment_can():
    environment = Drawn((240, 320))
    wrapped = RenderedObservation(gymnasium.wrappers.TimeLimit(environment, 3), (40, 48))
    assert environment.render_size == (40, 48) and wrapped.observation(0).shape == (40, 48, 3)
    other = Drawn(100)
    assert RenderedObservation(other, (40, 48)).observation(0).shape == (40, 48, 3)
    assert other.render_size == 100, "an attribute of another meaning is left alone"
