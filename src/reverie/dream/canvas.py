"""What all pictures share: colors, text, and videos put together as arrays. Images are uint8 [H, W, 3]."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

OBSERVED_COLOR = (60, 180, 75)
IMAGINED_COLOR = (225, 45, 50)
BACKGROUND = 255
INK = 40
GRAY = 120
TITLE_HEIGHT = 26


@functools.lru_cache(maxsize=512)
def text(line: str, width: int, height: int, size: int = 15, ink: int = INK, align: str = "left") -> np.ndarray:
    """One line of text on the background color, uint8 [height, width, 3], centered vertically; not to be written to.

    Args:
        line: the text; what does not fit is cut off.
        width: of the picture in pixels.
        height: of the picture in pixels.
        size: of the letters in pixels.
        ink: gray level, 0 to 255.
        align: `left`, with a margin of 6 pixels, `center` or `right`.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    anchor, x = {"left": ("lm", 6), "center": ("mm", width // 2), "right": ("rm", width)}[align]
    ImageDraw.Draw(canvas).text((x, height // 2), line, fill=(ink,) * 3, font=_font(size), anchor=anchor)
    return np.asarray(canvas)


@functools.cache
def _font(size: int) -> ImageFont | FreeTypeFont:
    from PIL import ImageFont as fonts

    return fonts.load_default(size=size)


def stack_frames(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Puts videos of T frames one below the other, left-aligned on white: uint8 [T, H, W, 3] each -> the same."""
    width = max(video.shape[2] for video in videos)
    padded = [
        np.pad(video, ((0, 0), (0, 0), (0, width - video.shape[2]), (0, 0)), constant_values=BACKGROUND)
        for video in videos
    ]
    return np.concatenate(padded, 1)


def with_title(frames: np.ndarray, title: str) -> np.ndarray:
    """A video with a line of text above it; without text, the video itself."""
    if not title:
        return frames
    steps, _, width, _ = frames.shape
    return np.concatenate(
        [np.broadcast_to(text(title, width, TITLE_HEIGHT), (steps, TITLE_HEIGHT, width, 3)), frames], 1
    )
