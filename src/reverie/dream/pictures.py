"""Pictures and videos of what a world model predicts: truth, model and error side by side.

Pure functions of arrays; nothing here knows environments or agents. A prediction covers T steps: the model observed
the first `context` of them and imagined the rest.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBSERVED_COLOUR = (60, 180, 75)
IMAGINED_COLOUR = (225, 45, 50)
_IMAGINED_SHADE = "#e12d32"  # the same red, for Matplotlib
_BACKGROUND = 255
_INK = 40
_CELL_PIXELS = 128  # smallest longer side of one image in a comparison
_LABEL_WIDTH = 58
_HEADER_HEIGHT = 28
_GAP = 4
_PLOT_ROWS = 8
_PLOT_COLUMNS = 3
_ROW_LABELS = ("truth", "model", "error")


def comparison_frames(truth: np.ndarray, model: np.ndarray, context: int, border: int = 4) -> np.ndarray:
    """Draws true and predicted image sequences as the frames of a video.

    Three rows (truth, model, error) and one column a sequence. The border of a cell is green while the model observes
    and red once it imagines. The error is (model - truth + 255) / 2 as in the Dreamer papers: gray where they agree.
    Small images are enlarged by a whole factor, without smoothing.

    Args:
        truth: uint8 [B, T, H, W, C]; C = 1 is gray, of more than 3 channels the first 3 are shown.
        model: uint8, same shape.
        context: number of steps that the model observed, 0 to T.
        border: width of the coloured border in pixels of the result.

    Returns:
        uint8 [T, H', W', 3] with even H' and W', as H.264 needs.

    Raises:
        ValueError: shapes or types differ from the above.
    """
    _check_images(truth, model, context)
    truth, model = _as_rgb(truth), _as_rgb(model)
    error = ((model.astype(np.int16) - truth.astype(np.int16) + 255) // 2).astype(np.uint8)
    batch, steps, height, width, _ = truth.shape
    factor = max(1, -(-_CELL_PIXELS // max(height, width)))
    cell_height, cell_width = height * factor + 2 * border, width * factor + 2 * border
    total_height = _HEADER_HEIGHT + 3 * (cell_height + _GAP)
    total_width = max(_LABEL_WIDTH + batch * (cell_width + _GAP), 280)
    frames = np.full((steps, total_height + total_height % 2, total_width + total_width % 2, 3), _BACKGROUND, np.uint8)
    for row, images in enumerate((truth, model, error)):
        top = _HEADER_HEIGHT + row * (cell_height + _GAP)
        label = _text(_ROW_LABELS[row], _LABEL_WIDTH, 20)
        middle = top + (cell_height - 20) // 2
        frames[:, middle : middle + 20, :_LABEL_WIDTH] = label
        for column in range(batch):
            left = _LABEL_WIDTH + column * (cell_width + _GAP)
            cell = frames[:, top : top + cell_height, left : left + cell_width]
            cell[:context] = OBSERVED_COLOUR
            cell[context:] = IMAGINED_COLOUR
            enlarged = images[column].repeat(factor, axis=1).repeat(factor, axis=2)
            cell[:, border : cell_height - border, border : cell_width - border] = enlarged
    for step in range(steps):
        _draw_header(frames[step], step, steps, context)
    return frames


def stack_frames(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Puts videos of T frames one below the other, left-aligned on white: uint8 [T, H, W, 3] each -> the same."""
    width = max(video.shape[2] for video in videos)
    padded = [
        np.pad(video, ((0, 0), (0, 0), (0, width - video.shape[2]), (0, 0)), constant_values=_BACKGROUND)
        for video in videos
    ]
    return np.concatenate(padded, 1)


def dream_frame(history: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """What is dreamed at the newest of some steps: images one below the other, or curves of the numbers so far.

    Args:
        history: for each step the parts of one observation; images are uint8 [H, W, C], all else is [N].

    Returns:
        uint8 [H', W', 3] with even sides.
    """
    images = [value for value in history[-1].values() if value.dtype == np.uint8 and value.ndim == 3]
    if images:
        factors = [max(1, -(-_CELL_PIXELS // max(image.shape[:2]))) for image in images]
        enlarged = [
            _as_rgb(image[None]).repeat(factor, 1).repeat(factor, 2)
            for image, factor in zip(images, factors, strict=True)
        ]
        frame = stack_frames(enlarged)[0]
        return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), constant_values=_BACKGROUND)
    return _rendered(_curves(history))


def _curves(history: Sequence[Mapping[str, np.ndarray]]) -> Figure:
    """A figure of the first numbers of an observation over time."""
    from matplotlib.figure import Figure

    names = [f"{name}[{i}]" for name, value in history[-1].items() for i in range(value.shape[-1])][:_PLOT_ROWS]
    values = np.stack([np.concatenate(list(step.values())) for step in history])  # [T, N]
    figure = Figure(figsize=(4.6, 0.9 * len(names) + 0.4), dpi=100, layout="constrained")
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name, line in zip(axes, names, values.T, strict=False):
        axis.plot(line, color="C0", linewidth=1.4)
        axis.plot(len(line) - 1, line[-1], "o", color=_IMAGINED_SHADE, markersize=4)
        axis.set_ylabel(name, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    axes[-1].set_xlabel("dreamed step", fontsize=8)
    return figure


def _check_images(truth: np.ndarray, model: np.ndarray, context: int) -> None:
    """Refuses arrays that are not two batches of image sequences of one shape."""
    if truth.ndim != 5 or truth.shape != model.shape or truth.dtype != np.uint8 or model.dtype != np.uint8:
        raise ValueError(
            f"Expected two uint8 arrays of one shape [B, T, H, W, C], got {truth.dtype} {truth.shape} and "
            f"{model.dtype} {model.shape}."
        )
    if 0 in truth.shape:
        raise ValueError(f"Expected at least one sequence, step, pixel and channel, got the shape {truth.shape}.")
    if not 0 <= context <= truth.shape[1]:
        raise ValueError(f"Expected a context of 0 to {truth.shape[1]} steps, got {context}.")


def _as_rgb(images: np.ndarray) -> np.ndarray:
    """Images [..., C] as [..., 3]: gray is repeated, two channels show as red and green, more are cut."""
    channels = images.shape[-1]
    if channels == 1:
        return np.repeat(images, 3, axis=-1)
    if channels == 2:
        return np.concatenate([images, np.zeros_like(images[..., :1])], axis=-1)
    return images[..., :3]


def _draw_header(frame: np.ndarray, step: int, steps: int, context: int) -> None:
    """Writes the step number and whether the model observes or imagines above the cells, in place."""
    if step < context:
        colour, state = OBSERVED_COLOUR, "observed"
    else:
        colour, state = IMAGINED_COLOUR, f"imagined {step - context + 1}"
    frame[9:19, _LABEL_WIDTH : _LABEL_WIDTH + 10] = colour
    text = _text(f"step {step + 1} / {steps}   {state}", 220, 22)
    frame[3:25, _LABEL_WIDTH + 14 : _LABEL_WIDTH + 14 + text.shape[1]] = text[:, : frame.shape[1] - _LABEL_WIDTH - 14]


def _text(text: str, width: int, height: int) -> np.ndarray:
    """One line of dark text on the background colour, uint8 [height, width, 3]."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (width, height), (_BACKGROUND,) * 3)
    font = ImageFont.load_default(size=15)
    ImageDraw.Draw(canvas).text((6, height // 2), text, fill=(_INK,) * 3, font=font, anchor="lm")
    return np.asarray(canvas)


def write_mp4(path: Path, frames: np.ndarray, fps: int = 12) -> None:
    """Writes a video that browsers and players show (H.264, yuv420p, index at the front).

    The file appears under its name only when it is complete.

    Args:
        path: the file to write, ending in `.mp4`; its folder is made if missing.
        frames: uint8 [T, H, W, 3]; an odd height or width gets one more row or column, a copy of the last.
        fps: frames a second.

    Raises:
        ValueError: the frames have another shape or type.
        OSError: the disk is full or the folder cannot be written.
    """
    import av

    _check_frames(frames)
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "fast"})
            stream.height, stream.width = padded.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 2  # a video is a side job beside training
            for frame in padded:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def encode_gif(frames: np.ndarray, fps: int = 12) -> bytes:
    """Encodes an endless animated GIF with one palette of 256 colours for the whole video.

    Args:
        frames: uint8 [T, H, W, 3].
        fps: frames a second; GIF counts hundredths of a second, and browsers slow down above 50.

    Returns:
        The file content. Frames equal to the one before are merged into a longer display time.

    Raises:
        ValueError: the frames have another shape or type.
    """
    from PIL import Image

    _check_frames(frames)
    sample = frames[np.linspace(0, len(frames) - 1, min(len(frames), 8)).astype(int)]
    shrink = max(1, round((sample.size / 3 / 250_000) ** 0.5))  # at most about 250,000 pixels choose the palette
    sample = sample[:, ::shrink, ::shrink]
    palette = Image.fromarray(sample.reshape(-1, sample.shape[2], 3)).quantize(256)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    encoded = io.BytesIO()
    duration = round(1000 / fps)  # milliseconds
    images[0].save(encoded, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return encoded.getvalue()


def _check_frames(frames: np.ndarray) -> None:
    """Refuses an array that is not a video."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"Expected uint8 frames [T, H, W, 3] with T at least 1, got {frames.dtype} {frames.shape}.")


def comparison_plot(
    truth: np.ndarray,
    model: np.ndarray,
    context: int,
    names: Sequence[str] | None = None,
    reward: tuple[np.ndarray, np.ndarray] | None = None,
    continues: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Plots true and predicted vectors over time.

    One row a dimension (the first 8), then reward and continue probability if given; one column a sequence (the
    first 3). Truth is solid, the model dashed, the imagined region shaded.

    Args:
        truth: float [B, T, N], in the units of the environment.
        model: float [B, T, N], same units.
        context: number of steps that the model observed, 0 to T.
        names: N names of the dimensions; `0`, `1`, ... if left out.
        reward: true and predicted reward, each float [B, T].
        continues: true and predicted probability that the episode continues, each float [B, T].

    Returns:
        uint8 [H, W, 3] with even H and W.

    Raises:
        ValueError: shapes disagree.
    """
    figure, _, _ = _comparison_figure(truth, model, context, names, reward, continues)
    return _rendered(figure)


def comparison_plot_frames(
    truth: np.ndarray,
    model: np.ndarray,
    context: int,
    names: Sequence[str] | None = None,
    reward: tuple[np.ndarray, np.ndarray] | None = None,
    continues: tuple[np.ndarray, np.ndarray] | None = None,
    max_frames: int = 100,
) -> np.ndarray:
    """Animates `comparison_plot`: a cursor moves through time and the lines appear behind it.

    Matplotlib draws twice (with and without the lines); every frame is put together from these two pictures.

    Args:
        truth: as for `comparison_plot`; so are the other arguments up to `continues`.
        model: float [B, T, N].
        context: number of steps that the model observed.
        names: names of the dimensions.
        reward: true and predicted reward, each float [B, T].
        continues: true and predicted continue probability, each float [B, T].
        max_frames: longer sequences are shown at this many evenly spaced steps.

    Returns:
        uint8 [min(T, max_frames), H, W, 3] with even H and W.

    Raises:
        ValueError: shapes disagree.
    """
    figure, axes, lines = _comparison_figure(truth, model, context, names, reward, continues)
    full = _rendered(figure)
    for line in lines:
        line.set_visible(False)
    empty = _rendered(figure)
    steps = truth.shape[1]
    shown = np.linspace(0, steps - 1, min(steps, max_frames)).round().astype(int)
    frames = np.repeat(empty[None], len(shown), axis=0)
    figure_height = int(figure.bbox.height)
    for axis in axes.flat:
        box = axis.get_window_extent()
        top, bottom = round(figure_height - box.y1), round(figure_height - box.y0)
        left, right = int(box.x0), int(box.x1)
        for frame, step in zip(frames, shown, strict=True):
            cursor = round(float(axis.transData.transform((step, 0.0))[0]))
            frame[top:bottom, left:cursor] = full[top:bottom, left:cursor]
            colour = OBSERVED_COLOUR if step < context else IMAGINED_COLOUR
            frame[top:bottom, max(cursor - 1, left) : min(cursor + 1, right)] = colour
    return frames


def _comparison_figure(
    truth: np.ndarray,
    model: np.ndarray,
    context: int,
    names: Sequence[str] | None,
    reward: tuple[np.ndarray, np.ndarray] | None,
    continues: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[Figure, np.ndarray, list[Any]]:
    """Draws the figure of `comparison_plot`; returns it with its axes [rows, columns] and all lines."""
    from matplotlib.figure import Figure

    rows = _plot_rows(truth, model, context, names, reward, continues)
    columns = min(truth.shape[0], _PLOT_COLUMNS)
    size = (1.0 + 3.2 * columns, 0.9 + 1.15 * len(rows))  # inches
    figure = Figure(figsize=size, dpi=90, layout="constrained")
    axes = figure.subplots(len(rows), columns, sharex=True, sharey="row", squeeze=False)
    lines: list[Any] = []
    for row, (name, true_values, model_values) in enumerate(rows):
        for column in range(columns):
            lines += _plot_cell(axes[row, column], true_values[column], model_values[column], context)
        axes[row, 0].set_ylabel(name, fontsize=9)
    for column in range(columns):
        axes[0, column].set_title(f"sequence {column + 1}", fontsize=10)
        axes[-1, column].set_xlabel("step", fontsize=9)
        axes[-1, column].xaxis.get_major_locator().set_params(integer=True)
    if truth.shape[2] > _PLOT_ROWS or truth.shape[0] > columns:
        dimensions = min(truth.shape[2], _PLOT_ROWS)
        note = f"{dimensions} of {truth.shape[2]} dimensions, {columns} of {truth.shape[0]} sequences"
        figure.supxlabel(note, fontsize=8, color="0.4")
    figure.legend(*_legend(), loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure, axes, lines


def _plot_rows(
    truth: np.ndarray,
    model: np.ndarray,
    context: int,
    names: Sequence[str] | None,
    reward: tuple[np.ndarray, np.ndarray] | None,
    continues: tuple[np.ndarray, np.ndarray] | None,
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The rows of the plot as (name, truth [B, T], model [B, T]), after a check of all shapes."""
    if truth.ndim != 3 or truth.shape != model.shape or 0 in truth.shape:
        raise ValueError(f"Expected two arrays of one shape [B, T, N], got {truth.shape} and {model.shape}.")
    batch, steps, size = truth.shape
    if not 0 <= context <= steps:
        raise ValueError(f"Expected a context of 0 to {steps} steps, got {context}.")
    labels = list(names) if names is not None else [str(index) for index in range(size)]
    if len(labels) != size:
        raise ValueError(f"Expected {size} names, one a dimension, got {len(labels)}.")
    rows = [(labels[index], truth[:, :, index], model[:, :, index]) for index in range(min(size, _PLOT_ROWS))]
    for name, pair in (("reward", reward), ("continue", continues)):
        if pair is None:
            continue
        if pair[0].shape != (batch, steps) or pair[1].shape != (batch, steps):
            raise ValueError(
                f"Expected two arrays [{batch}, {steps}] for {name}, got {pair[0].shape} and {pair[1].shape}."
            )
        rows.append((name, pair[0], pair[1]))
    return rows


def _plot_cell(axis: Axes, truth: np.ndarray, model: np.ndarray, context: int) -> list[Any]:
    """Draws one dimension of one sequence, truth [T] and model [T]; returns the two lines."""
    steps = len(truth)
    axis.axvspan(context - 0.5, steps - 0.5, color=_IMAGINED_SHADE, alpha=0.08, linewidth=0)
    true_line = axis.plot(truth, color="0.15", linewidth=1.6)
    model_line = axis.plot(model, color="tab:blue", linewidth=1.6, linestyle=(0, (4, 1.5)))
    axis.set_xlim(-0.5, steps - 0.5)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    return [*true_line, *model_line]


def _legend() -> tuple[list[Any], list[str]]:
    """Handles and labels of the legend, free of the lines so that it stays when these are hidden."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color="0.15", linewidth=1.6),
        Line2D([], [], color="tab:blue", linewidth=1.6, linestyle=(0, (4, 1.5))),
        Patch(color=_IMAGINED_SHADE, alpha=0.15, linewidth=0),
    ]
    return handles, ["truth", "model", "imagined"]


def _rendered(figure: Figure) -> np.ndarray:
    """The picture of a figure, uint8 [H, W, 3] with even H and W."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[..., :3]
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
