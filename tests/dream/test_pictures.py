import io
import os
import time

import av
import numpy as np
import pytest
from PIL import Image

from reverie.dream.canvas import IMAGINED_COLOR, OBSERVED_COLOR
from reverie.dream.pictures import (
    comparison_frames,
    comparison_plot,
    comparison_plot_frames,
    encode_gif,
    write_mp4,
)

LABELS, HEADER, GAP = 58, 28, 4  # layout in pixels


def images(batch=2, steps=6, height=64, width=64, channels=3):
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (batch, steps, height // 2, width // 2, channels), dtype=np.uint8)
    return blocks.repeat(2, axis=2).repeat(2, axis=3)


def test_cells_hold_truth_model_and_error():
    truth = images()
    model = images()[:, ::-1].copy()
    frames = comparison_frames(truth, model, context=2, border=4)
    assert frames.dtype == np.uint8 and frames.shape[0] == 6 and frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    cell = 128 + 2 * 4  # 64 pixels enlarged twice
    assert frames.shape[1:3] == (HEADER + 3 * (cell + GAP), LABELS + 2 * (cell + GAP) + (LABELS % 2))
    for row in range(3):
        for column in range(2):
            top, left = HEADER + row * (cell + GAP) + 4, LABELS + column * (cell + GAP) + 4
            got = frames[3, top : top + 128 : 2, left : left + 128 : 2].astype(int)
            a, b = truth[column, 3].astype(int), model[column, 3].astype(int)
            np.testing.assert_array_equal(got, (a, b, (b - a + 255) // 2)[row])


def test_border_is_green_then_red():
    frames = comparison_frames(images(), images(), context=2, border=2)
    row, column = HEADER + 1, LABELS + 40
    assert [tuple(frame[row, column]) for frame in frames] == [OBSERVED_COLOR] * 2 + [IMAGINED_COLOR] * 4


@pytest.mark.parametrize(("context", "color"), [(0, IMAGINED_COLOR), (6, OBSERVED_COLOR)])
def test_context_may_be_nothing_or_everything(context, color):
    frames = comparison_frames(images(), images(), context=context)
    assert {tuple(frame[HEADER, LABELS]) for frame in frames} == {color}


@pytest.mark.parametrize(("channels", "expected"), [(1, [0, 0, 0]), (2, [0, 1, None]), (3, [0, 1, 2]), (4, [0, 1, 2])])
def test_channels_become_three(channels, expected):
    truth = images(1, 1, channels=channels)
    pixel = comparison_frames(truth, truth, context=1, border=4)[0, HEADER + 4, LABELS + 4]
    values = [0 if channel is None else int(truth[0, 0, 0, 0, channel]) for channel in expected]
    assert pixel.tolist() == values


@pytest.mark.parametrize(("size", "longer_side"), [((7, 5), 133), ((96, 96), 192), ((210, 160), 210)])
def test_small_images_are_enlarged_by_a_whole_factor(size, longer_side):
    truth = np.zeros((1, 1, *size, 3), np.uint8)
    frame = comparison_frames(truth, truth, context=0, border=0)[0]
    black = (frame[HEADER : HEADER + longer_side + 10, LABELS + 1] == 0).all(-1)
    assert black.sum() == longer_side + 6  # 4 pixels of gap, then the first 6 rows of the model
    assert not black[longer_side : longer_side + GAP].any()


def test_labels_and_step_number_are_written():
    truth = np.full((1, 3, 64, 64, 3), 255, np.uint8)
    frames = comparison_frames(truth, truth, context=1, border=0)
    for row in range(3):
        top = HEADER + row * (128 + GAP)
        assert (frames[0, top : top + 128, :LABELS] < 100).any()
    headers = frames[:, :HEADER]
    assert (headers[0] != headers[1]).any() and (headers[1] != headers[2]).any()


def test_wrong_images_are_refused():
    good = images()
    for truth, model, context in (
        (good, good[:1], 1),
        (good.astype(np.float32), good, 1),
        (good[0], good[0], 1),
        (good, good, 7),
        (good[:, :0], good[:, :0], 0),
    ):
        with pytest.raises(ValueError, match="Expected"):
            comparison_frames(truth, model, context)


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate


def test_mp4_decodes_to_the_same_video(tmp_path):
    y, x = np.mgrid[:64, :64]
    truth = np.stack([np.stack([2 * x + t, 3 * y, 2 * y + t], -1) for t in range(20)])[None].astype(np.uint8)
    truth = truth.repeat(4, axis=0)
    frames = comparison_frames(truth, truth, context=5)
    path = tmp_path / "videos" / "dream.mp4"
    write_mp4(path, frames, fps=15)
    assert os.listdir(path.parent) == ["dream.mp4"]
    assert path.stat().st_size < 1_000_000
    video, codec, pixel_format, rate = decoded(path)
    assert video.shape == frames.shape
    assert (codec, pixel_format, rate) == ("h264", "yuv420p", 15)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # faststart
    border = video[:, HEADER + 20 : HEADER + 100, LABELS + 1 : LABELS + 3].mean(axis=(1, 2))  # [T, 3]
    assert (border[:5, 1] > border[:5, 0] + 60).all() and (border[5:, 0] > border[5:, 1] + 60).all()
    assert np.abs(video.astype(int) - frames.astype(int)).mean() < 6


def test_mp4_of_odd_size_is_padded(tmp_path):
    write_mp4(tmp_path / "odd.mp4", np.full((3, 33, 47, 3), 128, np.uint8))
    assert decoded(tmp_path / "odd.mp4")[0].shape == (3, 34, 48, 3)


def test_failed_mp4_leaves_nothing(tmp_path):
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_mp4(tmp_path / "taken.mp4", np.zeros((2, 32, 32, 3), np.uint8))
    assert os.listdir(tmp_path) == ["taken.mp4"]
    with pytest.raises(ValueError, match="Expected uint8 frames"):
        write_mp4(tmp_path / "float.mp4", np.zeros((2, 32, 32, 3)))


def test_gif_holds_every_frame():
    frames = comparison_frames(images(steps=9), images(steps=9), context=3)
    gif = Image.open(io.BytesIO(encode_gif(frames, fps=20)))
    assert gif.n_frames == 9 and gif.info["loop"] == 0 and gif.info["duration"] == 50
    gif.seek(5)
    border = np.asarray(gif.convert("RGB"))[HEADER + 1, LABELS + 40].astype(int)
    assert np.abs(border - IMAGINED_COLOR).max() < 40


def sequences(batch=4, steps=30, size=3):
    truth = np.cumsum(np.random.default_rng(0).normal(size=(batch, steps, size)), axis=1)
    return truth, truth + np.linspace(0, 2, steps)[None, :, None]


def test_plot_grows_with_rows_and_is_limited():
    truth, model = sequences()
    plot = comparison_plot(truth, model, 10, ["a", "b", "c"])
    assert plot.dtype == np.uint8 and plot.ndim == 3 and plot.shape[0] % 2 == plot.shape[1] % 2 == 0
    extra = (truth[..., 0], model[..., 0])
    assert comparison_plot(truth, model, 10, reward=extra, continues=extra).shape[0] > plot.shape[0]
    wide = comparison_plot(*sequences(size=8), 10)
    wider = comparison_plot(*sequences(size=40), 10)
    assert wide.shape == wider.shape
    assert comparison_plot(truth[:1], model[:1], 0).shape[1] < plot.shape[1]


def test_plot_animation_reveals_the_plot():
    truth, model = sequences(batch=2, steps=12)
    frames = comparison_plot_frames(truth, model, 4)
    plot = comparison_plot(truth, model, 4)
    assert frames.shape == (12, *plot.shape) and frames.dtype == np.uint8
    differing = [(frame != plot).any(axis=-1).sum() for frame in frames]
    assert differing[-1] < differing[5] < differing[0]
    red = (frames == np.array(IMAGINED_COLOR)).all(-1).sum(axis=(1, 2))
    green = (frames == np.array(OBSERVED_COLOR)).all(-1).sum(axis=(1, 2))
    assert (green[:4] > 0).all() and (green[4:] == 0).all() and (red[:4] == 0).all() and (red[4:] > 0).all()


def test_plot_animation_is_fast_and_short(tmp_path):
    truth, model = sequences(steps=500, size=8)
    comparison_plot(truth[:1, :2, :1], model[:1, :2, :1], 0)  # imports and fonts
    start = time.perf_counter()
    frames = comparison_plot_frames(truth, model, 50, max_frames=60)
    assert time.perf_counter() - start < 15
    assert len(frames) == 60
    write_mp4(tmp_path / "plot.mp4", frames)
    assert (tmp_path / "plot.mp4").stat().st_size < 1_000_000


def test_wrong_vectors_are_refused():
    truth, model = sequences()
    for arguments in (
        (truth, model[:, :5], 3),
        (truth[0], model[0], 3),
        (truth, model, 31),
        (truth, model, 3, ["a"]),
        (truth, model, 3, None, (truth, model)),
    ):
        with pytest.raises(ValueError, match="Expected"):
            comparison_plot(*arguments)


def test_non_finite_predictions_are_drawn():
    truth, model = sequences()
    model[:, 15:] = np.nan
    assert comparison_plot_frames(truth, model, 10).shape[0] == 30
