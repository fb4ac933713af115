"""Doom's Take Cover as World Models played it: dodge fireballs for as long as possible."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reverie.envs.extras import missing_package
from reverie.errors import ConfigError

SIDE = 64
"""Height and width of the observation in pixels."""
SCREEN = (120, 160)
"""Height and width of the game's screen in pixels."""
VIEW_ROWS = 100
"""Rows of the screen above the status bar; the paper's code keeps 400 of 480."""
THRESHOLD = 1 / 3
"""Actions beyond this move the player; the paper's code has 0.3333."""
START_TIC = 14
"""Tics that pass before the agent sees the first frame."""


class TakeCover(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """Monsters at the far wall throw fireballs; step aside and stay alive. One step is one tic, 1/35 second.

    Observation: uint8 [64, 64, 3]. The screen of 160 x 120 pixels is cut to rows 0 to 99, which removes the status bar,
    and resized with Pillow's bilinear filter, which averages over the area when it shrinks.
    Action: float32 [1] from -1 to 1. Below -1/3 the player moves left, above 1/3 right, in between it stays.
    Reward: +1 for every tic, also for the one on which the player dies. Death terminates the episode;
    `episode_timeout` tics truncate it, so the return is the number of tics and at most `episode_timeout`.

    The game shows a black screen once the player is dead; the observation of that step is the last frame before it.
    With uniformly random actions an episode at skill 4 lasts about 212 tics, with a standard deviation of 109.
    The same seed and actions repeat an episode.

    Source: World Models (Ha and Schmidhuber, 2018), section 4 and its released code; the scenario is ViZDoom's.

    Args:
        render_mode: None or `rgb_array`, which renders the whole screen, uint8 [120, 160, 3].
        episode_timeout: tics after which an episode is truncated.
        skill: the game's difficulty from 1 to 5. 2 to 4 are the same here, 1 is easier, 5 much harder. The paper's code
            asks for 5, but the library that it used made 4 of it.

    Raises:
        ConfigError: if `episode_timeout` or `skill` is out of range.
        EnvironmentProblem: if the package vizdoom is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 35}

    def __init__(self, render_mode: str | None = None, episode_timeout: int = 2100, skill: int = 4) -> None:
        if episode_timeout < 1:
            raise ConfigError(f"episode_timeout is {episode_timeout}, but it must be at least 1: the paper has 2100")
        if not 1 <= skill <= 5:
            raise ConfigError(f"skill is {skill}, but it must be from 1 to 5: the paper's games were played at 4")
        try:
            import vizdoom
        except ImportError as error:
            raise missing_package("reverie/TakeCover-v0", error) from error
        self._vizdoom = vizdoom
        self.render_mode = render_mode
        self.episode_timeout = episode_timeout
        self.skill = skill
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self._game: Any = None
        self._end: Callable[[], object] | None = None
        self._screen = np.zeros((*SCREEN, 3), np.uint8)
        self._tics = 0
        self._playing = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin a game; the first call starts Doom, in a process of its own and without a window."""
        super().reset(seed=seed)
        if self._game is None:
            self._start()
        self._game.set_seed(int(self.np_random.integers(2**31)))
        self._game.new_episode()
        self._tics, self._playing = 0, True
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Play one tic.

        Raises:
            gymnasium.error.ResetNeeded: if no episode is open.
        """
        if not self._playing:
            raise gymnasium.error.ResetNeeded("step() was called, but no episode is open: call reset() first")
        left, right = bool(action[0] < -THRESHOLD), bool(action[0] > THRESHOLD)
        self._game.make_action([left, right], 1)
        self._tics += 1
        terminated = bool(self._game.is_episode_finished())
        truncated = not terminated and self._tics >= self.episode_timeout
        self._playing = not (terminated or truncated)
        return self._observe(), 1.0, terminated, truncated, {}

    def render(self) -> NDArray[np.uint8] | None:
        """The whole screen with the status bar, uint8 [120, 160, 3], or None without a render mode."""
        return self._screen.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End Doom's process; `reset` would start another one."""
        if self._end is not None:
            self._end()
        self._end, self._game, self._playing = None, None, False

    def _observe(self) -> NDArray[np.uint8]:
        """The view of the current screen, or of the last one if the player is dead."""
        state = self._game.get_state()
        if state is not None:
            self._screen = np.array(state.screen_buffer)
        view = Image.fromarray(self._screen[:VIEW_ROWS])
        return np.array(view.resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    def _start(self) -> None:
        """Start Doom with the settings of the paper's code, at a quarter of its screen's size."""
        vizdoom = self._vizdoom
        game = vizdoom.DoomGame()
        game.load_config(os.path.join(vizdoom.scenarios_path, "take_cover.cfg"))
        game.set_doom_skill(self.skill)
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_available_buttons([vizdoom.Button.MOVE_LEFT, vizdoom.Button.MOVE_RIGHT])
        game.set_render_hud(True)
        game.set_render_weapon(False)
        game.set_render_crosshair(False)
        game.set_render_decals(False)
        game.set_render_particles(False)
        game.set_episode_start_time(START_TIC)
        # We count the tics ourselves: at the game's own timeout the last frame would be lost.
        game.set_episode_timeout(0)
        # Doom keeps a file of settings, by default in the current folder, where it also makes an empty folder.
        folder = tempfile.TemporaryDirectory(prefix="reverie-doom-")
        game.set_doom_config_path(os.path.join(folder.name, "settings.ini"))
        litter = not os.path.exists("_vizdoom")
        game.init()
        if litter:
            with contextlib.suppress(OSError):
                os.rmdir("_vizdoom")
        self._game = game
        # Also where nobody calls close().
        self._end = weakref.finalize(self, _end, game, folder)


def _end(game: Any, folder: tempfile.TemporaryDirectory[str]) -> None:
    """End Doom's process, which saves its settings, and then remove their folder."""
    game.close()
    folder.cleanup()
