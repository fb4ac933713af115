"""Real play as a film: what the environment shows, under its title, with episode, step, reward and return so far."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reverie.dream.canvas import BACKGROUND, TITLE_HEIGHT, text
from reverie.dream.pictures import as_rgb, write_video
from reverie.dream.scene import Scene
from reverie.envs import EnvironmentAdapter, EnvironmentPool, Steps
from reverie.errors import ConfigError

LEAST_WIDTH, MOST_WIDTH, MOST_HEIGHT = 480, 1280, 960
"""Pixels. Smaller pictures are enlarged by a whole factor without smoothing, larger ones shrunk."""
MOST_FRAMES = {".mp4": 6_000, ".gif": 600}
"""Frames of a film by the ending of its name; an MP4 of so many takes 200 seconds at 30 frames per second."""
RECORDED_FRAMES, RECORDED_BYTES = 4, 10**9
"""Episodes are played side by side and shown one after the other, so that more is recorded than can be shown: so many
times the frames of a film, and at most so many bytes."""
USUAL_FPS, MOST_FPS = 30, 60
"""Frames per second where the environment does not say how fast it is, and where it says that it is very fast."""
PAUSE = 0.5
"""Seconds for which the end of an episode is shown."""
HUMAN = "human"
"""Name that stands for a window in the place of a file."""


class Audience(Protocol):
    """Sees what is played."""

    live: bool
    """Whether it looks at one episode at a time."""

    @property
    def gone(self) -> bool:
        """Whether it has seen enough."""
        ...

    def see(self, pool: EnvironmentPool, steps: Steps, lengths: Any, totals: Any, playing: Any) -> None:
        """Looks at one time step of E environments.

        Args:
            pool: made with `render`.
            steps: what it shows now.
            lengths: decisions in the episode so far, int [E].
            totals: return so far, float [E].
            playing: whether the episode counts, bool [E].
        """
        ...

    def end(self, e: int) -> None:
        """The episode of environment `e` has ended, and is the next in the order of the results."""
        ...


class Pictures:
    """Finds a picture of every environment: its own frame, an image that it observes, or its drawn state.

    Args:
        scene: what is known of the task.
        name: of the environment.
    """

    def __init__(self, scene: Scene, name: str) -> None:
        self._scene, self._name = scene, name
        self._last: list[NDArray[np.uint8]] | None = None
        self._renders = True

    def of(self, pool: EnvironmentPool, steps: Steps) -> list[NDArray[np.uint8]]:
        """One picture, uint8 [H, W, 3], of each environment.

        Raises:
            ConfigError: there is nothing to see.
        """
        frames = pool.render() if self._renders else None
        if frames is not None:
            self._last = [_picture(frame) for frame in frames]
        elif self._last is None or not self._renders:
            self._renders = False
            self._last = self._observed(pool, steps)
        return self._last  # a worker that has died shows its last frame until it plays again

    def _observed(self, pool: EnvironmentPool, steps: Steps) -> list[NDArray[np.uint8]]:
        for part in pool.interface.observations:
            if part.kind == "image":
                newest = steps.observation[part.name][..., -part.newest_channels :]
                return [_picture(image) for image in newest]
        if self._scene.renderer is not None:
            return [self._scene.renderer.frame(values) for values in steps.observation[self._scene.part]]
        raise ConfigError(
            f"{self._name} renders no frames and observes no pictures, so there is nothing to see: give it "
            f"render_mode='rgb_array' and a render() that returns uint8 (height, width, 3)"
        )


def _picture(frame: Any) -> NDArray[np.uint8]:
    """A frame as uint8 [H, W, 3]; gray ones, and those with another number of channels, included."""
    array = np.asarray(frame)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise ConfigError(
            f"render() returned an array of dtype {array.dtype} and shape {array.shape}, but a film needs frames of "
            f"dtype uint8 and shape (height, width, 3): correct render()"
        )
    return np.ascontiguousarray(as_rgb(array))


def composed(picture: NDArray[np.uint8], title: str, caption: str) -> NDArray[np.uint8]:
    """A frame of the film: title, caption, and below them the picture, at least 480 pixels wide.

    Args:
        picture: uint8 [H, W, 3].
        title: first line.
        caption: second line.

    Returns:
        uint8 [H', W', 3] with even sides, which depend on nothing but those of the picture.
    """
    height, width = picture.shape[:2]
    factor = min(-(-LEAST_WIDTH // width), MOST_HEIGHT // height)
    if factor > 1:
        picture = picture.repeat(factor, 0).repeat(factor, 1)
    elif width > MOST_WIDTH or height > MOST_HEIGHT:
        picture = _shrunk(picture, min(MOST_WIDTH / width, MOST_HEIGHT / height))
    height, width = picture.shape[:2]
    full = max(width, LEAST_WIDTH)
    full += full % 2
    top, left = 2 * TITLE_HEIGHT, (full - width) // 2
    frame = np.full((top + height + height % 2, full, 3), BACKGROUND, np.uint8)
    frame[:TITLE_HEIGHT] = text(title, full, TITLE_HEIGHT)
    frame[TITLE_HEIGHT:top] = text(caption, full, TITLE_HEIGHT)
    frame[top : top + height, left : left + width] = picture
    return frame


def _shrunk(picture: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = (max(1, round(side * share)) for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


def caption(episode: int, step: int, reward: float, total: float) -> str:
    """What stands under the title; episodes count from 0, as in what `reverie evaluate` prints."""
    return f"episode {episode} · step {step:,} · reward {reward:,.2f} · return {total:,.2f}"


def usual_fps(adapter: EnvironmentAdapter) -> int:
    """Frames per second at which the environment runs as its makers meant it, one frame for each decision."""
    given = adapter.environment.metadata.get("render_fps") or USUAL_FPS
    return int(np.clip(round(given / adapter.action_repeat), 1, MOST_FPS))


@dataclass(frozen=True)
class _Shot:
    """Where a picture was recorded, and what is written above it."""

    offset: int
    bytes: int
    shape: tuple[int, ...]
    step: int
    reward: float
    total: float


class Film:
    """Records episodes that are played side by side, and writes them to a video one after the other.

    Pictures wait, compressed, in an unnamed file beside the video, so that memory does not grow with them.

    Args:
        path: ends in `.mp4` or `.gif`; its folder is made if missing.
        pictures: of the environment.
        title: first line of every frame.
        fps: frames per second.

    Raises:
        ConfigError: the name has another ending, is that of a folder, or `fps` is out of range.
        OSError: the folder cannot be written.
    """

    live = False

    def __init__(self, path: Path, pictures: Pictures, title: str, fps: int) -> None:
        check_film(path, fps)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.fps = path, fps
        self._pictures, self._title = pictures, title
        self._most = MOST_FRAMES[path.suffix]
        self._file = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 (closed by `close`)
        self._recorded = self._steps = 0
        self._open: dict[int, list[_Shot]] = {}
        self._ended: list[list[_Shot]] = []

    @property
    def gone(self) -> bool:
        """A film is made to the end."""
        return False

    def see(self, pool: EnvironmentPool, steps: Steps, lengths: Any, totals: Any, playing: Any) -> None:
        """See `Audience`."""
        self._steps += int(playing.sum())
        if self._recorded >= RECORDED_FRAMES * self._most or self._file.tell() >= RECORDED_BYTES:
            return
        pictures = self._pictures.of(pool, steps)
        for e in np.flatnonzero(playing).tolist():
            packed = zlib.compress(pictures[e].tobytes(), 1)
            where = self._file.tell(), len(packed), pictures[e].shape
            self._file.write(packed)
            self._open.setdefault(e, []).append(
                _Shot(*where, step=int(lengths[e]), reward=float(steps.reward[e]), total=float(totals[e]))
            )
            self._recorded += 1

    def end(self, e: int) -> None:
        """See `Audience`."""
        self._ended.append(self._open.pop(e, []))

    def save(self) -> None:
        """Writes the video; warns if it does not show all that was played."""
        write_video(self.path, self._frames(), self.fps)
        shown = min(sum(map(len, self._ended)), self._most)
        if shown < self._steps:
            warnings.warn(
                f"{self.path} shows {shown:,} of {self._steps:,} pictures, since a video ending in {self.path.suffix} "
                f"holds at most {self._most:,}; play fewer episodes, or give an episode limit",
                stacklevel=2,
            )

    def close(self) -> None:
        """Gives up what was recorded."""
        self._file.close()

    def _frames(self) -> Iterator[NDArray[np.uint8]]:
        """The frames of the film, all of the size of the first."""
        left, size = self._most, None
        for number, shots in enumerate(self._ended):
            for position, shot in enumerate(shots[:left], start=1):
                words = caption(number, shot.step, shot.reward, total=shot.total)
                frame = composed(self._picture(shot), self._title, words)
                size = size or frame.shape
                frame = frame if frame.shape == size else _fitted(frame, size)
                yield from [frame] * (round(PAUSE * self.fps) if position == len(shots) else 1)
            left = max(0, left - len(shots))

    def _picture(self, shot: _Shot) -> NDArray[np.uint8]:
        self._file.seek(shot.offset)
        return np.frombuffer(zlib.decompress(self._file.read(shot.bytes)), np.uint8).reshape(shot.shape)


def _fitted(frame: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """A frame of an environment that has changed the size of its pictures: cut off or filled up."""
    result = np.full(size, BACKGROUND, np.uint8)
    kept = frame[: size[0], : size[1]]
    result[: kept.shape[0], : kept.shape[1]] = kept
    return result


def check_film(path: Path, fps: int | None = None) -> None:
    """Refuses what cannot be a video before anything is played.

    Raises:
        ConfigError: the name has another ending than `.mp4` or `.gif`, is that of a folder, or `fps` is out of range.
    """
    if path.suffix not in MOST_FRAMES:
        raise ConfigError(f"the video is an MP4 or a GIF, so its name must end in .mp4 or .gif, got {path}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; choose another name for the video")
    if fps is not None and not 1 <= fps <= 240:
        raise ConfigError(f"fps must be 1 to 240 frames per second, got {fps}")


class Window:
    """Shows episodes in a window while they are played, one at a time; closing it, or Escape, ends the play.

    Args:
        pictures: of the environment.
        title: first line of every frame.
        fps: frames per second.
    """

    live = True

    def __init__(self, pictures: Pictures, title: str, fps: int) -> None:
        if no_display():
            warnings.warn("there is no display here, so the window cannot be seen; write a video instead", stacklevel=2)
        self._pictures, self._title, self._fps = pictures, title, fps
        self._number, self._closed = 0, False
        self._screen: Any = None
        self._clock: Any = None

    @property
    def gone(self) -> bool:
        """Whether the window was closed."""
        return self._closed

    def see(self, pool: EnvironmentPool, steps: Steps, lengths: Any, totals: Any, playing: Any) -> None:
        """See `Audience`; waits until the frame is due."""
        import pygame

        words = caption(self._number, int(lengths[0]), float(steps.reward[0]), total=float(totals[0]))
        frame = composed(self._pictures.of(pool, steps)[0], self._title, words)
        if self._screen is None:
            pygame.display.init()
            self._screen = pygame.display.set_mode((frame.shape[1], frame.shape[0]))
            self._clock = pygame.time.Clock()
            pygame.display.set_caption(self._title)
        self._screen.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        for event in pygame.event.get():
            escaped = event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
            self._closed |= escaped or event.type == pygame.QUIT
        self._clock.tick(self._fps)

    def end(self, e: int) -> None:
        """See `Audience`."""
        self._number += 1

    def save(self) -> None:
        """A window leaves nothing."""

    def close(self) -> None:
        """Closes the window."""
        if self._screen is not None:
            import pygame

            pygame.display.quit()
            self._screen = None


def no_display() -> bool:
    """Whether no window can be seen here."""
    return sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()


def audience_of(video: str | Path, adapter: EnvironmentAdapter, title: str, fps: int | None) -> Film | Window:
    """What `video` asks for: a film in a file, or a window for the name `human`.

    Args:
        video: name of the file, or `human`.
        adapter: of an environment like those that will be played, which is left alone.
        title: first line of every frame.
        fps: frames per second; by default as the environment's makers meant it.

    Raises:
        ConfigError: see `check_film`.
    """
    pictures = Pictures(Scene.of(adapter), adapter.name)
    chosen = usual_fps(adapter) if fps is None else fps
    if str(video) == HUMAN:
        return Window(pictures, title, chosen)
    return Film(Path(video), pictures, title, fps=chosen)
