"""An open-loop prediction as pictures and videos, with what is known of its task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from reverie.dream.canvas import stack_frames, with_title
from reverie.dream.pictures import (
    CELL_GAP,
    LABEL_WIDTH,
    MOST_COLUMNS,
    comparison_board,
    comparison_frames,
    enlargement,
    entry_names,
    image_grid,
    write_video,
)
from reverie.dream.plots import MARGIN, Board, Row, shown_steps
from reverie.dream.scene import Scene
from reverie.safe_files import replacing

MOST_FRAMES = 100
_STEPS_PER_SECOND = 12
_BORDER = 4
_SHRINK = 3
_REALITY_WIDTH = 68


@dataclass
class OpenLoop:
    """Truth and model side by side.

    Attributes:
        truth, model: part name -> [B, T, ...]; images uint8, vectors in the units of the environment.
        reward, going_on: pairs (truth, model), [B, T].
        context: steps that the model was shown.
        actions: flat actions that were taken at each step, [B, T, A], or None.
    """

    truth: dict[str, np.ndarray]
    model: dict[str, np.ndarray]
    reward: tuple[np.ndarray, np.ndarray]
    going_on: tuple[np.ndarray, np.ndarray]
    context: int
    actions: np.ndarray | None = None

    def first(self, count: int) -> OpenLoop:
        """The first `count` sequences only."""
        return OpenLoop(
            {name: value[:count] for name, value in self.truth.items()},
            {name: value[:count] for name, value in self.model.items()},
            (self.reward[0][:count], self.reward[1][:count]),
            going_on=(self.going_on[0][:count], self.going_on[1][:count]),
            context=self.context,
            actions=None if self.actions is None else self.actions[:count],
        )


class Drawing:
    """The pictures of one prediction; each is drawn once, when it is first asked for.

    Args:
        result: truth and model.
        scene: what is known of the task.
        title: the first line of every picture.
        most_frames: of a video of observations without images; a longer sequence is shown at this many of its steps.

    Attributes:
        fps: frames per second at which the video takes 12 steps per second.
    """

    def __init__(
        self, result: OpenLoop, scene: Scene | None = None, title: str = "", most_frames: int = MOST_FRAMES
    ) -> None:
        self.result, self.scene, self.title, self._most_frames = result, scene or Scene(), title, most_frames
        self._images = [name for name, value in result.truth.items() if value.dtype == np.uint8]
        self._steps = result.reward[0].shape[1]
        count = self._steps if self._images else min(self._steps, most_frames)
        self.fps = max(1, round(_STEPS_PER_SECOND * count / self._steps))
        self._numbers = [name for name, value in result.truth.items() if value.dtype != np.uint8]

    @cached_property
    def frames(self) -> np.ndarray:
        """The video, uint8 [T, H, W, 3].

        It shows the images one below the other; without images reality and dream as the renderer of the task draws
        them; or, where it has none, the curves of all numbers.
        """
        if self._images:
            return self._image_frames()
        if self.scene.renderer is not None:
            return self._rendered_frames()
        assert self.board is not None
        return self.board.frames(self._most_frames)

    @cached_property
    def board(self) -> Board | None:
        """The curves of all observations that are not images, with rewards, ends and actions; None without any."""
        if not self._numbers:
            return None
        result, names = self.result, self.scene.names
        truth, model = (
            np.concatenate([values[name].astype(np.float32) for name in self._numbers], -1)
            for values in (result.truth, result.model)
        )
        labels = [name for part in self._numbers for name in entry_names(part, result.truth[part].shape[-1], names)]
        actions = self._action_rows()
        return comparison_board(
            truth,
            model,
            result.context,
            names=labels,
            reward=result.reward,
            continues=result.going_on,
            actions=actions,
            title=self.title,
        )

    def narrow(self, columns: int) -> np.ndarray:
        """The video with at most so many images side by side, uint8 [T, H, W, 3]; true anyway of renders and curves."""
        if not self._images or len(self.result.reward[0]) <= columns:
            return self.frames
        return Drawing(self.result.first(columns), self.scene, self.title).frames

    def save(self, path: Path) -> list[Path]:
        """Writes the video, and where there are observations other than images their curves as a PNG beside it.

        Args:
            path: ends in `.mp4` or `.gif`; its folder is made if missing.

        Returns:
            The files that were written.
        """
        write_video(path, self.frames, self.fps)
        if self.board is None:
            return [path]
        from PIL import Image

        picture = path.with_suffix(".png")
        with replacing(picture) as temporary:
            Image.fromarray(self.board.picture).save(temporary, format="PNG")
        return [path, picture]

    def _action_rows(self) -> list[Row]:
        return self.scene.action_rows(self.result.actions)

    def _image_frames(self) -> np.ndarray:
        """All images, and the actions under the last of them."""
        result, actions = self.result, self._action_rows()
        left = MARGIN if actions else LABEL_WIDTH
        videos = [
            comparison_frames(result.truth[name], result.model[name], result.context, border=_BORDER, left=left)
            for name in self._images
        ]
        if actions:
            height, width = result.truth[self._images[-1]].shape[2:4]
            cell = width * enlargement(height, width) + 2 * _BORDER
            board = Board(actions, result.context, cell_width=cell, gap=CELL_GAP, legend=False)
            videos.append(board.frames(max_frames=self._steps))
        return with_title(stack_frames(videos), self.title)

    def _rendered_frames(self) -> np.ndarray:
        """Reality and dream of the first sequences as the task's own renderer draws them."""
        result, part = self.result.first(MOST_COLUMNS), self.scene.part
        shown = shown_steps(self._steps, self._most_frames)
        rows = {
            "reality": self._rendered(result.truth[part], shown),
            "dream": self._rendered(result.model[part], shown),
        }
        return with_title(
            image_grid(rows, result.context, _BORDER, left=_REALITY_WIDTH, shown=shown, steps=self._steps), self.title
        )

    def _rendered(self, observations: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Small pictures of observations [B, T, N] at some steps: uint8 [B, len(shown), H, W, 3]."""
        renderer = self.scene.renderer
        assert renderer is not None
        actions = self._environment_actions(len(observations))
        return np.stack(
            [
                [renderer.frame(sequence[step], taken[step], _SHRINK) for step in shown]
                for sequence, taken in zip(observations, actions, strict=True)
            ]
        )

    def _environment_actions(self, batch: int) -> list[list[np.ndarray | None]]:
        """The action that led to each observation, in the units of the environment; None at the first."""
        if self.result.actions is None:
            return [[None] * self._steps] * batch
        variables = self.scene.variables
        values = np.stack([variable.values(self.result.actions[:batch]) for variable in variables], -1)
        return [[None, *sequence[:-1]] for sequence in values]
