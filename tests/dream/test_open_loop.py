import av
import numpy as np
import pytest
from PIL import Image

from reverie.dream.open_loop import OpenLoop, choose_sequences, open_loop_frames, save_open_loop
from reverie.dream.pictures import comparison_frames
from reverie.errors import ReverieError


def episode(length, number=0):
    return {"reward": np.full(length, number, np.float32), "x": np.arange(length)}


def test_sequences_are_the_longest_episodes_cut_to_one_length():
    chosen = choose_sequences([episode(n, n) for n in (9, 3, 12, 10, 5)], 50, 3)
    assert chosen["reward"].shape == (3, 9)
    assert chosen["reward"][:, 0].tolist() == [12, 10, 9]
    assert (chosen["x"] == np.arange(9)).all()


def test_short_episodes_do_not_shorten_the_others():
    assert choose_sequences([episode(20), episode(2), episode(9)], 50, 6)["reward"].shape == (1, 20)
    assert choose_sequences([episode(20), episode(2), episode(9)], 16, 6)["reward"].shape == (2, 9)


@pytest.mark.parametrize("lengths", [[], [3, 2]])
def test_nothing_long_enough(lengths):
    with pytest.raises(ReverieError, match="at least 4 steps"):
        choose_sequences([episode(n) for n in lengths], 50, 6)


def result(**shapes):
    generator = np.random.default_rng(0)

    def draw(shape):
        if len(shape) == 3:
            return generator.integers(0, 256, (2, 6, *shape)).astype(np.uint8)
        return generator.normal(size=(2, 6, *shape)).astype(np.float32)

    truth = {name: draw(shape) for name, shape in shapes.items()}
    model = {name: draw(shape) for name, shape in shapes.items()}
    pair = (np.zeros((2, 6)), np.zeros((2, 6)))
    return OpenLoop(truth, model, pair, pair, 3)


def test_every_image_is_shown_and_vectors_beside_them_are_plotted(tmp_path):
    mixed = result(left=(32, 32, 3), numbers=(4,), right=(48, 64, 1))
    frames = open_loop_frames(mixed)
    left, right = (comparison_frames(mixed.truth[name], mixed.model[name], 3) for name in ("left", "right"))
    assert np.array_equal(frames[:, : left.shape[1], : left.shape[2]], left)
    assert np.array_equal(frames[:, left.shape[1] :, : right.shape[2]], right)
    video, picture = save_open_loop(mixed, tmp_path / "dream")
    with av.open(str(video)) as file:
        assert sum(1 for _ in file.decode(video=0)) == 6
    assert Image.open(picture).size[0] > 100


def test_images_alone_need_no_plot(tmp_path):
    assert [path.suffix for path in save_open_loop(result(image=(32, 32, 3)), tmp_path / "dream")] == [".mp4"]
