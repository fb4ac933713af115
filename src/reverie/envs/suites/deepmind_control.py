"""Tasks of the DeepMind Control Suite (Tassa et al., 2018): simulated bodies with continuous actions."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.envs.extras import missing_package
from reverie.errors import ConfigError, EnvironmentProblem

CAMERAS = {"quadruped": 2}
"""Cameras of the Dreamer papers where it is not the first, 0: from there the quadruped is seen as a whole."""
RENDERING_REMEDY = (
    "without a display, install EGL (Debian and Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri; drivers "
    "of NVIDIA include it) and set MUJOCO_GL=egl before dm_control is imported, or install libosmesa6 and set "
    "MUJOCO_GL=osmesa"
)

Observation = dict[str, NDArray[np.float32]]


class DeepMindControl(gymnasium.Env[Any, NDArray[np.float32]]):
    """One task of dm_control's suite. One step is one frame: one control step of the task.

    Observation: the vectors of the task by their names, float32; single numbers have the shape [1].
    Action: float32 [A] within the bounds of the task, -1 to 1 except for the quadruped's.
    Reward: 0 to 1 per frame. An episode ends only if the task itself ends it: with discount 0 it terminates, with any
    other it is truncated. None of the 20 tasks of the Dreamer papers ever does. The 1000 frames of an episode are the
    time limit of the registered ids, which truncates; dm_control's own limit, the same 1000 frames, is switched off.

    The same seed and actions repeat an episode bit for bit on one machine.

    Pictures come from MuJoCo's renderer in the task's own quality. Where there is no display, EGL makes them, which
    needs neither a window system nor a GPU. dm_control chooses a renderer when it is first imported, so the
    environment variable MUJOCO_GL, which overrides the choice, must be set before.

    Args:
        domain: for example `walker`.
        task: for example `walk`.
        render_mode: None or `rgb_array`.
        render_size: height and width of frames in pixels; where pixels are observed, they are rendered in the size in
            which they are observed.
        camera: number or name of the camera; by default that of the Dreamer papers.

    Attributes:
        control: the environment of dm_control, with `physics` and `task`.

    Raises:
        EnvironmentProblem: the package dm_control is not installed, the suite has no such task, or frames are wanted
            and cannot be rendered here.
        ConfigError: `camera` or `render_size` does not exist.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(
        self,
        domain: str,
        task: str,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (240, 320),
        camera: int | str | None = None,
    ) -> None:
        self._name = f"dmc/{domain}-{task}-v0"
        if importlib.util.find_spec("dm_control") is None:
            raise missing_package(self._name, ModuleNotFoundError("no module named 'dm_control'"))
        suite, problem = _import_suite()
        if render_mode == "rgb_array" and problem:
            raise self._cannot_render(problem)
        if (domain, task) not in suite.ALL_TASKS:
            tasks = sorted(name for known, name in suite.ALL_TASKS if known == domain)
            choices = f"the tasks {tasks}" if tasks else f"the domains {sorted({name for name, _ in suite.ALL_TASKS})}"
            raise EnvironmentProblem(f"dm_control has no task {task!r} of a domain {domain!r}; choose from {choices}")
        self.render_mode = render_mode
        self.render_size = (render_size[0], render_size[1])  # a list, where it was read from config.json
        with _without_warnings():
            self.control = suite.load(domain, task, task_kwargs={"time_limit": float("inf"), "random": 0})
        self.camera = CAMERAS.get(domain, 0) if camera is None else camera
        self._check_frames()
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / self.control.control_timestep())}
        self._vectors: dict[str, gymnasium.Space[Any]] = {
            name: gymnasium.spaces.Box(-np.inf, np.inf, array.shape or (1,), np.float32)
            for name, array in self.control.observation_spec().items()
        }
        self.observation_space = gymnasium.spaces.Dict(self._vectors)
        bounds = self.control.action_spec()
        self.action_space = gymnasium.spaces.Box(
            bounds.minimum.astype(np.float32), bounds.maximum.astype(np.float32), dtype=np.float32
        )
        self._playing = False
        self._closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode, which depends on nothing but the seed and the number of resets since it was given.

        Raises:
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        if self._closed:
            raise gymnasium.error.ClosedEnvironmentError("reset() was called after close(): make a new environment")
        super().reset(seed=seed)
        self.control.task.random.seed(int(self.np_random.integers(2**32)))
        self._playing = True
        return self._converted(self.control.reset().observation), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one frame; `info` holds the discount of dm_control.

        Raises:
            gymnasium.error.ResetNeeded: if no episode is open.
        """
        if not self._playing:
            raise gymnasium.error.ResetNeeded("step() was called, but no episode is open: call reset() first")
        moment = self.control.step(np.asarray(action, np.float64))
        self._playing = not moment.last()
        terminated = bool(moment.last() and moment.discount == 0)
        truncated = bool(moment.last() and moment.discount > 0)
        info = {"discount": float(moment.discount)}
        return self._converted(moment.observation), float(moment.reward), terminated, truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """The current frame, uint8 [H, W, 3] of `render_size`, or None without a render mode.

        Raises:
            EnvironmentProblem: if the renderer that dm_control chose does not work.
        """
        if self.render_mode != "rgb_array" or self._closed:
            return None
        height, width = self.render_size
        try:
            frame: NDArray[np.uint8] = self.control.physics.render(height, width, camera_id=self.camera)
        except Exception as error:
            from dm_control._render import BACKEND

            raise self._cannot_render(f"the renderer {BACKEND!r} raised {type(error).__name__}: {error}") from error
        return frame

    def close(self) -> None:
        """Free the simulator and its renderer."""
        if not self._closed:
            self.control.physics.free()
        self._closed, self._playing = True, False

    def _converted(self, observation: dict[str, Any]) -> Observation:
        """Numbers of dm_control as float32 vectors."""
        return {name: np.array(observation[name], np.float32).reshape(box.shape) for name, box in self._vectors.items()}

    def _check_frames(self) -> None:
        """Refuses a size that the model's frame buffer cannot hold, and a camera that the model does not have."""
        model = self.control.physics.model
        height, width = self.render_size
        greatest = (int(model.vis.global_.offheight), int(model.vis.global_.offwidth))
        if not (1 <= height <= greatest[0] and 1 <= width <= greatest[1]):
            raise ConfigError(
                f"render_size is {self.render_size}, but height and width of a frame of {self._name} must be from 1 to "
                f"{greatest[0]} and {greatest[1]}"
            )
        names = [model.id2name(number, "camera") for number in range(model.ncam)]
        if self.camera not in (*range(model.ncam), *names):
            raise ConfigError(
                f"camera is {self.camera!r}, but the cameras of {self._name} are 0 to {model.ncam - 1}, with the names "
                f"{names}"
            )

    def _cannot_render(self, reason: str) -> EnvironmentProblem:
        return EnvironmentProblem(f"{self._name} cannot be rendered ({reason}): {RENDERING_REMEDY}")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Within the block absl prints no warnings: MuJoCo finds the quadruped's file old-fashioned, every time."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@functools.cache
def _import_suite() -> tuple[Any, str]:
    """dm_control's suite, and why frames cannot be rendered, or an empty text.

    dm_control cannot be imported at all where the renderer that MUJOCO_GL names is missing. Agents that do not look at
    frames need none, so it is then imported without a renderer. A renderer that needs a display is found out here,
    since it would end the process when it is used for the second time without one.
    """
    headless = sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if headless:
        os.environ.setdefault("MUJOCO_GL", "egl")
    chosen = os.environ.get("MUJOCO_GL", "")
    try:
        from dm_control import _render, suite
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        os.environ["MUJOCO_GL"] = "off"
        try:
            from dm_control import suite
        finally:
            os.environ["MUJOCO_GL"] = chosen
        return suite, f"the renderer {chosen!r} raised {type(error).__name__}: {error}"
    if _render.BACKEND in (None, "off"):
        return suite, "dm_control was imported without a renderer"
    if headless and _render.BACKEND == "glfw":
        return suite, "dm_control was imported with the renderer 'glfw', which needs a display"
    return suite, ""
