"""Pictures and videos of what a world model predicts: truth, model and error side by side.

Pure functions of arrays; nothing here knows environments or agents. A prediction covers T steps: the model observed
the first `context` of them and imagined the rest.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reverie.dream.canvas import BACKGROUND, IMAGINED_COLOR, OBSERVED_COLOR, stack_frames, text
from reverie.dream.plots import Board, Row
from reverie.safe_files import replacing

LABEL_WIDTH = 58
MOST_DIMENSIONS, MOST_COLUMNS = 8, 3
CELL_GAP = 4
_CELL_PIXELS = 128  # smallest longer side of one image in a comparison
_HEADER_HEIGHT = 28


def comparison_frames(
    truth: np.ndarray, model: np.ndarray, context: int, border: int = 4, left: int = LABEL_WIDTH
) -> np.ndarray:
    """Draws true and predicted image sequences as the frames of a video: rows of truth, model and error.

    The error is (model - truth + 255) / 2 as in the Dreamer papers: gray where they agree.

    Args:
        truth: uint8 [B, T, H, W, C]; C = 1 is gray, of more than 3 channels the first 3 are shown.
        model: uint8, same shape.
        context: number of steps that the model observed, 0 to T.
        border: see `image_grid`.
        left: see `image_grid`.

    Returns:
        uint8 [T, H', W', 3] with even H' and W', as H.264 needs.

    Raises:
        ValueError: shapes or types differ from the above.
    """
    _check_images(truth, model, context)
    truth, model = as_rgb(truth), as_rgb(model)
    error = ((model.astype(np.int16) - truth.astype(np.int16) + 255) // 2).astype(np.uint8)
    return image_grid({"truth": truth, "model": model, "error": error}, context, border, left=left)


def image_grid(
    rows: Mapping[str, np.ndarray],
    context: int,
    border: int = 4,
    left: int = LABEL_WIDTH,
    shown: Sequence[int] | np.ndarray | None = None,
    steps: int | None = None,
) -> np.ndarray:
    """Image sequences side by side as the frames of a video: labeled rows, and one column per sequence.

    The border of a cell is green while the model observes and red once it imagines. Small images are enlarged by a
    whole factor, without smoothing.

    Args:
        rows: label -> uint8 [B, T, H, W, 3].
        context: number of steps that the model observed.
        border: width of the colored border in pixels of the result.
        left: width of the labels in pixels.
        shown: numbers of the T steps, from 0, where some steps of a sequence are left out.
        steps: of the whole sequence; T by default.

    Returns:
        uint8 [T, H', W', 3] with even H' and W'.
    """
    batch, count, height, width, _ = next(iter(rows.values())).shape
    numbers = np.arange(count) if shown is None else np.asarray(shown)
    observed = int((numbers < context).sum())
    factor = enlargement(height, width)
    cell_height, cell_width = height * factor + 2 * border, width * factor + 2 * border
    total_height = _HEADER_HEIGHT + len(rows) * (cell_height + CELL_GAP)
    total_width = max(left + batch * (cell_width + CELL_GAP), left + 222)
    frames = np.full((count, total_height + total_height % 2, total_width + total_width % 2, 3), BACKGROUND, np.uint8)
    for row, (label, images) in enumerate(rows.items()):
        top = _HEADER_HEIGHT + row * (cell_height + CELL_GAP)
        middle = top + (cell_height - 20) // 2
        frames[:, middle : middle + 20, :LABEL_WIDTH] = text(label, LABEL_WIDTH, 20)
        for column in range(batch):
            start = left + column * (cell_width + CELL_GAP)
            cell = frames[:, top : top + cell_height, start : start + cell_width]
            cell[:observed] = OBSERVED_COLOR
            cell[observed:] = IMAGINED_COLOR
            enlarged = images[column].repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else images[column]
            cell[:, border : cell_height - border, border : cell_width - border] = enlarged
    for frame, step in zip(frames, numbers.tolist(), strict=True):
        _draw_header(frame, step, steps or count, context=context, left=left)
    return frames


def enlargement(height: int, width: int) -> int:
    """The whole factor by which images of a size are enlarged."""
    return max(1, -(-_CELL_PIXELS // max(height, width)))


def dream_frame(
    history: Sequence[Mapping[str, np.ndarray]], names: Mapping[str, Sequence[str]] | None = None
) -> np.ndarray:
    """What is dreamed at the newest of some steps: images one below the other, or curves of the numbers so far.

    Args:
        history: for each step the parts of one observation; images are uint8 [H, W, C], all else is [N].
        names: part name -> names of its entries, where they are known.

    Returns:
        uint8 [H', W', 3] with even sides.
    """
    images = [value for value in history[-1].values() if value.dtype == np.uint8 and value.ndim == 3]
    if images:
        enlarged = []
        for image in images:
            factor = enlargement(*image.shape[:2])
            enlarged.append(as_rgb(image[None]).repeat(factor, 1).repeat(factor, 2))
        frame = stack_frames(enlarged)[0]
        return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), constant_values=BACKGROUND)
    labels = [name for part, value in history[-1].items() for name in entry_names(part, value.shape[-1], names)]
    values = np.stack([np.concatenate(list(step.values())) for step in history])  # [T, N]
    rows = [Row(label, None, line[None]) for label, line in zip(labels, values.T, strict=True)]
    return Board(rows[:MOST_DIMENSIONS], context=0, cell_width=300, legend=False).picture


def entry_names(part: str, size: int, names: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Names for the entries of a part: those that are known, or `part[0]`, `part[1]`, ..."""
    return list((names or {}).get(part) or [f"{part}[{index}]" for index in range(size)])


def comparison_board(
    truth: np.ndarray,
    model: np.ndarray,
    context: int,
    names: Sequence[str] | None = None,
    reward: tuple[np.ndarray, np.ndarray] | None = None,
    continues: tuple[np.ndarray, np.ndarray] | None = None,
    actions: Sequence[Row] = (),
    title: str = "",
) -> Board:
    """True and predicted vectors over time.

    One row per dimension (the first 8), then reward and continue probability and the actions if given; one column per
    sequence (the first 3). Truth is solid, the model dashed, the imagined region shaded.

    Args:
        truth: float [B, T, N], in the units of the environment.
        model: float [B, T, N], same units.
        context: number of steps that the model observed, 0 to T.
        names: N names of the dimensions; `0`, `1`, ... if left out.
        reward: true and predicted reward, each float [B, T].
        continues: true and predicted probability that the episode continues, each float [B, T].
        actions: rows of the actions, [B, T] each.
        title: the first line.

    Raises:
        ValueError: shapes disagree.
    """
    if truth.ndim != 3 or truth.shape != model.shape or 0 in truth.shape:
        raise ValueError(f"Expected two arrays of one shape [B, T, N], got {truth.shape} and {model.shape}.")
    batch, steps, size = truth.shape
    if not 0 <= context <= steps:
        raise ValueError(f"Expected a context of 0 to {steps} steps, got {context}.")
    labels = list(names) if names is not None else [str(index) for index in range(size)]
    if len(labels) != size:
        raise ValueError(f"Expected {size} names, one per dimension, got {len(labels)}.")
    columns, dimensions = min(batch, MOST_COLUMNS), min(size, MOST_DIMENSIONS)
    rows = [Row(labels[index], truth[:columns, :, index], model[:columns, :, index]) for index in range(dimensions)]
    for name, pair in (("reward", reward), ("continue", continues)):
        if pair is None:
            continue
        if pair[0].shape != (batch, steps) or pair[1].shape != (batch, steps):
            raise ValueError(
                f"Expected two arrays [{batch}, {steps}] for {name}, got {pair[0].shape} and {pair[1].shape}."
            )
        rows.append(Row(name, pair[0][:columns], pair[1][:columns]))
    rows += [replace(row, truth=row.truth[:columns]) for row in actions if row.truth is not None]
    note = f"{dimensions} of {size} dimensions, {columns} of {batch} sequences"
    shown = note if size > dimensions or batch > columns else ""
    return Board(rows, context, title, headings=[f"sequence {column + 1}" for column in range(columns)], note=shown)


def comparison_plot(
    truth: np.ndarray,
    model: np.ndarray,
    context: int,
    names: Sequence[str] | None = None,
    reward: tuple[np.ndarray, np.ndarray] | None = None,
    continues: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """The picture of `comparison_board`, whose arguments these are: uint8 [H, W, 3] with even sides."""
    return comparison_board(truth, model, context, names=names, reward=reward, continues=continues).picture


def comparison_plot_frames(
    truth: np.ndarray,
    model: np.ndarray,
    context: int,
    names: Sequence[str] | None = None,
    reward: tuple[np.ndarray, np.ndarray] | None = None,
    continues: tuple[np.ndarray, np.ndarray] | None = None,
    max_frames: int = 100,
) -> np.ndarray:
    """The video of `comparison_board`: uint8 [min(T, max_frames), H, W, 3] with even sides; see `Board.frames`."""
    return comparison_board(truth, model, context, names=names, reward=reward, continues=continues).frames(max_frames)


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


def as_rgb(images: np.ndarray) -> np.ndarray:
    """Images [..., C] as [..., 3]: gray is repeated, two channels show as red and green, more are cut."""
    channels = images.shape[-1]
    if channels == 1:
        return np.repeat(images, 3, axis=-1)
    if channels == 2:
        return np.concatenate([images, np.zeros_like(images[..., :1])], axis=-1)
    return images[..., :3]


def _draw_header(frame: np.ndarray, step: int, steps: int, context: int, left: int) -> None:
    """Writes the step number and whether the model observes or imagines above the cells, in place."""
    if step < context:
        color, state = OBSERVED_COLOR, "observed"
    else:
        color, state = IMAGINED_COLOR, f"imagined {step - context + 1}"
    frame[9:19, left : left + 10] = color
    line = text(f"step {step + 1} / {steps}   {state}", 220, 22)
    frame[3:25, left + 14 : left + 14 + line.shape[1]] = line[:, : frame.shape[1] - left - 14]


def write_video(path: Path, frames: np.ndarray | Iterable[np.ndarray], fps: int = 12) -> None:
    """Writes an MP4, or an animated GIF where the name ends in `.gif`; see `write_mp4` and `encode_gif`.

    Args:
        path: ends in `.mp4` or `.gif`; its folder is made if missing.
        frames: uint8 [T, H, W, 3], or one frame after the other; an MP4 is written as they come.
        fps: frames per second.

    Raises:
        ValueError: the frames have another shape or type.
        OSError: the disk is full or the folder cannot be written.
    """
    if path.suffix != ".gif":
        write_mp4(path, frames, fps)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    array = frames if isinstance(frames, np.ndarray) else np.stack(list(frames))
    with replacing(path) as temporary:
        temporary.write_bytes(encode_gif(array, fps))


def write_mp4(path: Path, frames: np.ndarray | Iterable[np.ndarray], fps: int = 12) -> None:
    """Writes a video that browsers and players show (H.264, yuv420p, index at the front).

    The file appears under its name only when it is complete.

    Args:
        path: the file to write, ending in `.mp4`; its folder is made if missing.
        frames: uint8 [T, H, W, 3], or one frame after the other; an odd height or width gets one more row or column, a
            copy of the last.
        fps: frames per second.

    Raises:
        ValueError: the frames have another shape or type.
        OSError: the disk is full or the folder cannot be written.
    """
    import av

    if isinstance(frames, np.ndarray):
        _check_frames(frames)
    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        raise ValueError("Expected at least one frame, got none.")
    _check_frames(first[None])
    height, width = first.shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "superfast"})
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 2  # a video is a side job beside training
        for frame in itertools.chain([first], coming):
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", interpolation="FAST_BILINEAR")))
        container.mux(stream.encode(None))


def encode_gif(frames: np.ndarray, fps: int = 12) -> bytes:
    """Encodes an endless animated GIF with one palette of 256 colors for the whole video.

    Args:
        frames: uint8 [T, H, W, 3].
        fps: frames per second; GIF counts hundredths of a second, and browsers slow down above 50.

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
    images[0].save(
        encoded, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False
    )
    return encoded.getvalue()


def _check_frames(frames: np.ndarray) -> None:
    """Refuses an array that is not a video."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"Expected uint8 frames [T, H, W, 3] with T at least 1, got {frames.dtype} {frames.shape}.")
