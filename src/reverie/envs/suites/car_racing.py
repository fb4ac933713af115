"""CarRacing with Gymnasium's physics and a fast drawing of the observation."""

from __future__ import annotations

import functools
import math
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from reverie.envs.extras import missing_package
from reverie.errors import ConfigError

try:
    import pygame
    from gymnasium.envs.box2d import car_dynamics, car_racing
except (ImportError, gymnasium.error.DependencyNotInstalled) as _error:
    raise missing_package("reverie/CarRacing-v0", _error) from _error

SIDE = car_racing.STATE_W
"""Height and width of the observation in pixels."""
ROAD_ROWS = 84
"""Rows of the observation that show the road; the rest are the indicators."""
COLUMN_SCALE = SIDE / car_racing.WINDOW_W
"""Columns of the observation for each column of the stock window, which is 1000 wide."""
ROW_SCALE = SIDE / car_racing.WINDOW_H
"""Rows of the observation for each row of the stock window, which is 800 high."""

TEXELS = 5
"""Pixels of the map for each unit of length of the physics; at full zoom a pixel of the observation has 0.5 units."""
MAP_SIDE = math.ceil(2 * car_racing.PLAYFIELD * TEXELS)
COARSEST = 1.5
"""Largest distance between two samples of the map, in units of length; a road is 13.3 wide, its border 1.3."""
FINEST = 8
"""Largest number of samples along a side of a pixel."""

SHRINKING_LOSS = 2
"""Gray levels that pygame's shrinking takes from every color: it rounds down once for rows and once for columns."""

CAR_BOX = (40, 64, 16, 16)
"""Left column, top row, width and height of the part of the observation that holds the car."""
CAR_DETAIL = 8
"""Samples along a side of a pixel around the car, which is only 4 pixels wide."""
STRIP_DETAIL = 5
"""Samples along a side of a pixel in the indicators; then their places are whole numbers."""
LABEL_COLUMNS = 12
"""Columns that the label with the return has for itself."""

OUTSIDE, GROUND, GRASS, ROAD, WHITE, RED, WHEEL, MARK, HULL = 0, 1, 2, 3, 6, 7, 8, 9, 10
"""Numbers of the colors on the map; a road has three shades, of which the first is that of the tiles touched."""

Polygon = list[tuple[float, float]]
Corners = list[float]


class CarRacing(car_racing.CarRacing):
    """Gymnasium's `CarRacing-v3` with another drawing of the observation, several times faster.

    Physics, rewards, ends of episodes and random numbers are those of `CarRacing-v3`: this class inherits them and
    replaces only the drawing. Gymnasium draws every polygon into a window of 1000 x 800 pixels and shrinks it. Here
    the road is drawn once per episode, onto a map, and each step samples the part of it that is seen.

    Observation: uint8 [96, 96, 3]. Rows 0 to 83 show road and car, rows 84 to 95 the return and the indicators.
    Pixels at edges differ a little from the stock picture; over all pixels the mean difference is 0.2 gray levels.
    Actions: (steering -1 to 1, gas 0 to 1, brake 0 to 1), or 5 discrete ones if not `continuous`.
    Reward: 1000 / tiles for each new tile, -0.1 per step, -100 for leaving the field, which ends the episode.

    Source: World Models (Ha and Schmidhuber, 2018) for the task, which had `lap_complete_percent=1.0` and a camera that
    turned with the velocity; `gymnasium.envs.box2d.car_racing` for all but the drawing.

    Args:
        render_mode: None, `rgb_array` and `human`, which give the stock picture, or `state_pixels`, the observation.
        verbose: print how tracks are made.
        lap_complete_percent: share of the tiles that must be touched before the start ends the lap; 1.0 asks for all.
        domain_randomize: other colors in every episode.
        continuous: three numbers for an action instead of one of five choices.
        supersample: samples along a side of a pixel of the observation at full zoom, 1 to 8.

    Raises:
        ConfigError: if `supersample` is out of range.
        EnvironmentProblem: if Box2D or pygame is not installed (when the module is imported).
    """

    def __init__(
        self,
        render_mode: str | None = None,
        verbose: bool = False,
        lap_complete_percent: float = 0.95,
        domain_randomize: bool = False,
        continuous: bool = True,
        supersample: int = 2,
    ) -> None:
        if not 1 <= supersample <= FINEST:
            raise ConfigError(f"supersample is {supersample}, but it must be from 1 to {FINEST}: 2 is a good choice")
        settings = (render_mode, verbose, lap_complete_percent, domain_randomize, continuous)
        super().__init__(*settings)
        gymnasium.utils.EzPickle.__init__(self, *settings, supersample)
        self.supersample = supersample
        self._map: TrackMap | None = None

    def _create_track(self) -> bool:
        """Make a track as the stock environment does, and draw its map; False if it must be tried again."""
        if not super()._create_track():
            return False
        # The tiles' colors become rows of one array, in which the contact listener writes when a tile is touched.
        tiles: Any = self.road
        shades = np.array([tile.color for tile in tiles], np.float64)
        number, polygons = 0, []
        for vertices, color in self.road_poly:
            if isinstance(color, np.ndarray):
                color = shades[number]
                tiles[number].color = color
                number += 1
            polygons.append((vertices, color))
        self.road_poly = polygons
        self._map = TrackMap(polygons, shades, (self.bg_color, self.grass_color, self.road_color))
        return True

    def _render(self, mode: str) -> Any:
        """The observation by our own drawing, anything else by the stock one."""
        if mode != "state_pixels" or self._map is None:
            return super()._render(mode)
        frame = np.empty((SIDE, SIDE, 3), np.uint8)
        self._draw_road(self._map, frame)
        frame[ROAD_ROWS:] = draw_indicators(self.car)
        frame[ROAD_ROWS:, :LABEL_COLUMNS] = draw_label(f"{self.reward:04.0f}")
        return frame

    def _draw_road(self, track: TrackMap, frame: NDArray[np.uint8]) -> None:
        """Draw road and car into the first 84 rows of a frame, uint8 [84 or more, 96, 3]."""
        car: Any = self.car
        camera = Camera(car.hull, zoom_at(self.t))
        track.update()
        factor = min(max(math.ceil(1 / (COLUMN_SCALE * camera.zoom * COARSEST)), self.supersample), FINEST)
        frame[:ROAD_ROWS] = shrunk(track.view(camera, (0, 0, SIDE, ROAD_ROWS), factor), factor)
        left, top, width, height = CAR_BOX
        box = track.view(camera, CAR_BOX, CAR_DETAIL)
        draw_car(ImageDraw.Draw(box), car, camera)
        frame[top : top + height, left : left + width] = shrunk(box, CAR_DETAIL)


def zoom_at(seconds: float) -> float:
    """Columns of the stock window for each unit of length; the camera moves closer during the first second."""
    share = min(seconds, 1)
    return float(0.1 * car_racing.SCALE * (1 - share) + car_racing.ZOOM * car_racing.SCALE * share)


def shrunk(image: Image.Image, factor: int) -> NDArray[np.uint8]:
    """The colors of an image, averaged over squares: [H * factor, W * factor] becomes uint8 [H, W, 3]."""
    return np.asarray(image.convert("RGB").reduce(factor))


class Camera:
    """Where the observation looks: the hull's center is at column 48 and row 72, its front points up.

    Args:
        hull: the car's hull, a body of Box2D.
        zoom: columns of the stock window for each unit of length.
    """

    def __init__(self, hull: Any, zoom: float) -> None:
        self.zoom = zoom
        self.x, self.y = hull.position
        self.angle = hull.angle
        self.cosine, self.sine = math.cos(self.angle), math.sin(self.angle)

    def to_map(self, column: float, row: float, factor: int) -> tuple[float, ...]:
        """How samples that begin at a pixel of the observation lie on the map.

        Args:
            column: column of the observation where the first sample lies.
            row: row of the observation where the first sample lies.
            factor: samples along a side of a pixel.

        Returns:
            Six numbers (a, b, c, d, e, f): sample (u, v) lies at column a u + b v + c and row d u + e v + f of the map.
        """
        across = TEXELS / (COLUMN_SCALE * self.zoom)
        down = -TEXELS / (ROW_SCALE * self.zoom)
        right = (column - SIDE / 2) * across
        ahead = (row - 0.75 * SIDE) * down
        return (
            self.cosine * across / factor,
            -self.sine * down / factor,
            (self.x + car_racing.PLAYFIELD) * TEXELS + self.cosine * right - self.sine * ahead,
            self.sine * across / factor,
            self.cosine * down / factor,
            (self.y + car_racing.PLAYFIELD) * TEXELS + self.sine * right + self.cosine * ahead,
        )


@functools.cache
def empty_map() -> Image.Image:
    """The field without a road: numbers of colors, [MAP_SIDE, MAP_SIDE]."""
    image = Image.new("P", (MAP_SIDE, MAP_SIDE), GROUND)
    draw = ImageDraw.Draw(image)
    edges = [round((car_racing.GRASS_DIM * k + car_racing.PLAYFIELD) * TEXELS) for k in range(-20, 21)]
    for x in range(0, 40, 2):
        for y in range(0, 40, 2):
            draw.rectangle((edges[x], edges[y], edges[x + 1] - 1, edges[y + 1] - 1), GRASS)
    return image


class TrackMap:
    """A picture of the whole track, seen from above, from which the views of the camera are taken.

    Args:
        polygons: corners and color of the tiles, each followed by its border if it has one. The color of a tile is
            its row of `shades`, the color of a border is three numbers.
        shades: the tiles' colors, [tiles, 3]; others may change them later.
        colors: the colors of ground, grass and road.
    """

    def __init__(
        self,
        polygons: list[tuple[Polygon, Any]],
        shades: NDArray[np.float64],
        colors: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    ) -> None:
        ground, grass, road = colors
        self._shades = shades
        self._seen = shades[:, 0].copy()
        self._parts: list[list[tuple[Corners, int]]] = []
        for vertices, color in polygons:
            corners = ((np.array(vertices) + car_racing.PLAYFIELD) * TEXELS).ravel().tolist()
            if isinstance(color, np.ndarray):
                self._parts.append([(corners, ROAD + len(self._parts) % 3)])
            else:
                self._parts[-1].append((corners, WHITE if color[1] else RED))
        self._image = empty_map().copy()
        palette = [(0, 0, 0), ground, grass, road, *shades[1:3], (255, 255, 255), (255, 0, 0)]
        palette += [car_dynamics.WHEEL_COLOR, car_dynamics.WHEEL_WHITE, (204, 0, 0)]
        self._image.putpalette(np.maximum(np.array(palette) - SHRINKING_LOSS, 0).astype(np.uint8).tobytes())
        self._draw = ImageDraw.Draw(self._image)
        for parts in self._parts:
            self._draw_parts(parts)

    def update(self) -> None:
        """Draw the tiles again whose color has changed since the last time."""
        changed = np.flatnonzero(self._seen != self._shades[:, 0])
        for tile in changed.tolist():
            self._seen[tile] = self._shades[tile, 0]
            corners, _ = self._parts[tile][0]
            self._parts[tile][0] = (corners, ROAD)
            self._draw_parts(self._parts[tile])
            # It covered an edge of its successor.
            self._draw_parts(self._parts[(tile + 1) % len(self._parts)])

    def view(self, camera: Camera, box: tuple[int, int, int, int], factor: int) -> Image.Image:
        """What the camera sees of the track.

        Args:
            camera: where it looks.
            box: left column, top row, width and height of the part of the observation.
            factor: samples along a side of a pixel.

        Returns:
            Numbers of colors, [height * factor, width * factor], with the palette; outside the field black.
        """
        left, top, width, height = box
        size = (width * factor, height * factor)
        return self._image.transform(
            size, Image.Transform.AFFINE, camera.to_map(left, top, factor), Image.Resampling.NEAREST
        )

    def _draw_parts(self, parts: list[tuple[Corners, int]]) -> None:
        for corners, color in parts:
            self._draw.polygon(corners, color)


_HULL = [
    np.array(part, np.float64) * car_dynamics.SIZE
    for part in (car_dynamics.HULL_POLY1, car_dynamics.HULL_POLY2, car_dynamics.HULL_POLY3, car_dynamics.HULL_POLY4)
]
_TYRE = np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)]) * (car_dynamics.WHEEL_W, car_dynamics.WHEEL_R)
_TYRE = _TYRE * car_dynamics.SIZE


def draw_car(draw: ImageDraw.ImageDraw, car: Any, camera: Camera) -> None:
    """Draw wheels and hull; skid marks are not part of the stock observation either.

    Args:
        draw: draws on the view of CAR_BOX with CAR_DETAIL.
        car: the car of the physics.
        camera: it follows the car.
    """
    left, top, _, _ = CAR_BOX
    scale = np.array((COLUMN_SCALE, -ROW_SCALE)) * (camera.zoom * CAR_DETAIL)
    origin = np.array((SIDE / 2 - left, 0.75 * SIDE - top)) * CAR_DETAIL
    for wheel in car.wheels:
        x, y = wheel.position
        x, y = x - camera.x, y - camera.y
        center = (camera.cosine * x + camera.sine * y, camera.cosine * y - camera.sine * x)
        cosine, sine = math.cos(wheel.angle - camera.angle), math.sin(wheel.angle - camera.angle)
        turn = np.array(((cosine, sine), (-sine, cosine)))
        offset = origin + center * scale
        draw.polygon((_TYRE @ turn * scale + offset).ravel().tolist(), WHEEL)
        ends = mark_on_tyre(wheel.phase)
        if ends is not None:
            mark = _TYRE * ((1, ends[0]), (1, ends[0]), (1, -ends[1]), (1, -ends[1]))
            draw.polygon((mark @ turn * scale + offset).ravel().tolist(), MARK)
    for part in _HULL:
        draw.polygon((part * scale + origin).ravel().tolist(), HULL)


def mark_on_tyre(phase: float) -> tuple[float, float] | None:
    """Where the gray mark, which shows that a wheel turns, begins and ends.

    Args:
        phase: how far the wheel has turned, in radians.

    Returns:
        Two places from -1, the back of the wheel, to 1, its front; or None if the mark is below.
    """
    sines = math.sin(phase), math.sin(phase + 1.2)
    cosines = math.cos(phase), math.cos(phase + 1.2)
    if min(sines) > 0:
        return None
    first, second = (math.copysign(1, c) if s > 0 else c for s, c in zip(sines, cosines, strict=True))
    return first, second


def draw_indicators(car: Any) -> NDArray[np.uint8]:
    """Speed, the four wheels' rotation, the steering and the turning of the car, as bars.

    Args:
        car: the car of the physics.

    Returns:
        uint8 [12, 96, 3].
    """
    rows = SIDE - ROAD_ROWS
    strip = Image.new("RGB", (SIDE * STRIP_DETAIL, rows * STRIP_DETAIL))
    draw = ImageDraw.Draw(strip)
    full = 255 - SHRINKING_LOSS
    wheels, blue, violet = car.wheels, (0, 0, full), (51 - SHRINKING_LOSS, 0, full)
    upright = [(5, 0.02 * math.hypot(*car.hull.linearVelocity), (full, full, full))]
    upright += [(7 + k, 0.01 * wheels[k].omega, blue if k < 2 else violet) for k in range(4)]
    for place, value, color in upright:
        _draw_bar(draw, (place, place + 1), (4 - value, 4), color=color)
    level = ((20, -10.0 * wheels[0].joint.angle, (0, full, 0)), (30, -0.8 * car.hull.angularVelocity, (full, 0, 0)))
    for place, value, color in level:
        _draw_bar(draw, (place, place + value), (1, 3), color=color)
    return np.asarray(strip.reduce(STRIP_DETAIL))


def _draw_bar(
    draw: ImageDraw.ImageDraw, across: tuple[float, float], down: tuple[float, float], color: tuple[int, int, int]
) -> None:
    """Fill a rectangle; places are in fortieths of the stock window, from the strip's upper left corner."""
    if abs(across[1] - across[0]) < 1e-4 or abs(down[1] - down[0]) < 1e-4:
        return
    unit = SIDE * STRIP_DETAIL / 40
    # The stock drawing fills one more pixel of its window at the far ends.
    left, right = round(min(across) * unit), round((max(across) + 0.04) * unit)
    top, bottom = round(min(down) * unit), round((max(down) + 0.05) * unit)
    if left < right and top < bottom:
        draw.rectangle((left, top, right - 1, bottom - 1), color)


@functools.lru_cache(maxsize=4096)
def draw_label(text: str) -> NDArray[np.uint8]:
    """The return so far in white letters, made in the same way as in the stock picture.

    Args:
        text: at most four or five characters.

    Returns:
        uint8 [12, 12, 3]; do not write into it.
    """
    pygame.font.init()
    letters = pygame.font.Font(pygame.font.get_default_font(), 42).render(text, True, (255, 255, 255), (0, 0, 0))
    rows = SIDE - ROAD_ROWS
    surface = pygame.Surface((round(LABEL_COLUMNS / COLUMN_SCALE), round(rows / ROW_SCALE)))
    place = letters.get_rect()
    place.center = (60, 50)
    surface.blit(letters, place)
    small = pygame.transform.smoothscale(surface, (LABEL_COLUMNS, rows))
    return np.ascontiguousarray(pygame.surfarray.array3d(small).transpose(1, 0, 2))
