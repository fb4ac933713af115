"""Pictures of a World Models run: what V sees and draws, and dreams at three temperatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reverie.agents.world_models import WorldModelsAgent
from reverie.dream.canvas import BACKGROUND, GRAY, text, with_title
from reverie.dream.dream import Dream
from reverie.dream.pictures import write_mp4
from reverie.envs import EnvironmentSource
from reverie.models.vision_memory import MemoryState, VisionMemory
from reverie.nn.vae import IMAGE
from reverie.training.pipeline.frames import FrameStore

COLUMNS, DREAM_STEPS, GAME_STEPS = 8, 150, 300
ENLARGED, ENLARGED_VIDEO = 2, 3
"""Factor by which pictures are enlarged on the sheet of reconstructions, and in videos."""
LABEL_WIDTH, HEADING, GAP = 84, 20, 2
"""Pixels: width of labels before rows, height of those above columns, and the border of a picture."""
SLIDER = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""Values of a latent on the slider sheet; the prior has deviation 1."""
SMALL, MOST_ROWS = 2, 32
"""Factor by which pictures on the slider sheet are shrunk, since there are hundreds, and its maximum number of rows."""
TEMPERATURES = (0.5, 1.0, 1.3)


def run_pictures(
    agent: WorldModelsAgent,
    source: EnvironmentSource,
    store: FrameStore,
    encoded: NDArray[np.float16],
    dreams: Mapping[float, Dream[MemoryState]],
    seed: int,
    title: str,
    folder: Path,
) -> dict[Path, Callable[[Path], None]]:
    """The pictures of a finished run: the file of each, and what writes it there.

    Args:
        agent: V, M and C.
        source: the environment.
        store: collected frames.
        encoded: see `slider_sheet`.
        dreams: temperature -> dream; none without a trained M.
        seed: of the real episode.
        title: beginning of the first line of every picture.
        folder: made if it is not there.
    """
    folder.mkdir(exist_ok=True)
    pictures: dict[Path, Callable[[Path], None]] = {
        folder / "reconstruction.png": lambda path: reconstruction_grid(agent.world_model, store, title, path=path),
        folder / "sliders.png": lambda path: slider_sheet(agent.world_model, encoded, title, path=path),
    }
    if dreams:
        pictures[folder / "temperatures.mp4"] = lambda path: dream_video(agent, dreams, title, path=path)
    if source.kind != "object":
        pictures[folder / "game.mp4"] = lambda path: game_video(agent, source, seed, title=title, path=path)
    return pictures


@torch.no_grad()
def reconstruction_grid(model: VisionMemory, store: FrameStore, title: str, path: Path) -> None:
    """Writes a PNG of some frames (top row), what V makes of their mean latents, and of a sample (bottom row)."""
    from PIL import Image

    rows = np.linspace(0, store.rows - 1, COLUMNS).astype(int)
    frames = torch.from_numpy(store.arrays[store.name][rows]).to(next(model.parameters()).device)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        drawn = [
            model.draw(model.begin(model.encode(frames, most_likely)))[model.name] for most_likely in (True, False)
        ]
    labels = ("real frame", "V, mean", "V, sample")
    strips = [
        np.concatenate([_label(label), *(_panel(picture) for picture in pictures.cpu().numpy())], 1)
        for label, pictures in zip(labels, (frames, *drawn), strict=True)
    ]
    sheet = np.concatenate(strips, 0)
    Image.fromarray(with_title(sheet[None], f"{title}: what V makes of frames")[0]).save(path)


@torch.no_grad()
def slider_sheet(model: VisionMemory, encoded: NDArray[np.float16], title: str, path: Path) -> None:
    """Writes a PNG of what latents do: one row each, in which it alone moves from -3 to 3 deviations of the prior.

    The others keep the values of one frame. Rows are in the order of what latents tell about frames (their mean
    divergence from the prior, in nats, which stands under the latent's number), in two blocks; at most 32 are shown.

    Args:
        model: V draws.
        encoded: mean and log-variance of the latents of frames, [2, rows, Z].
        title: first line.
        path: the file.
    """
    from PIL import Image

    device = next(model.parameters()).device
    rows = np.linspace(0, encoded.shape[1] - 1, 1000).astype(int)
    mean, log_variance = (torch.from_numpy(encoded[k][rows].astype(np.float32)) for k in (0, 1))
    told = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(0)
    base = mean[len(mean) // 2].repeat(len(SLIDER), 1)
    strips = []
    for latent in told.argsort(descending=True)[:MOST_ROWS].tolist():
        moved = base.clone()
        moved[:, latent] = torch.tensor(SLIDER)
        drawn = model.draw(model.begin(moved.to(device)))[model.name].cpu().numpy()
        small = drawn.reshape(len(SLIDER), 64 // SMALL, SMALL, 64 // SMALL, SMALL, 3).mean((2, 4)).astype(np.uint8)
        name = _label(f"z{latent}", f"{told[latent]:.2f} nats", 64 // SMALL + 2 * GAP)
        strips.append(np.concatenate([name, *(_bordered(picture) for picture in small)], 1))
    heading = [text("", LABEL_WIDTH, HEADING), *(_heading(f"{value:+g}", 64 // SMALL + 2 * GAP) for value in SLIDER)]
    if len(strips) % 2:
        strips.append(np.full_like(strips[0], BACKGROUND))
    half = len(strips) // 2
    blocks = [np.concatenate([np.concatenate(heading, 1), *block], 0) for block in (strips[:half], strips[half:])]
    sheet = np.concatenate(blocks, 1)
    whole = with_title(with_title(sheet[None], "V draws: one latent moved, in deviations of the prior"), title)[0]
    Image.fromarray(whole).save(path, optimize=True)


@torch.no_grad()
def game_video(agent: WorldModelsAgent, source: EnvironmentSource, seed: int, title: str, path: Path) -> None:
    """Writes an MP4 of a real episode: the frame, what V draws of it, and what M expected one step before.

    Args:
        agent: plays with sampled latents.
        source: the environment.
        seed: of the episode.
        title: first line.
        path: the file.
    """
    adapter, model = source.make(), agent.world_model
    observation, state, expected = adapter.reset(seed), None, np.zeros(IMAGE, np.uint8)
    frames, total = [], 0.0
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for step in range(GAME_STEPS):
            parts = {name: torch.from_numpy(value[None]).to(agent.device) for name, value in observation.items()}
            action, state = agent.act(parts, torch.tensor([state is None], device=agent.device), state)
            drawn = model.draw(state.latent)[model.name][0].cpu().numpy()
            panels = {"real frame": observation[model.name], "V draws it": drawn, "M expected": expected}
            frames.append(_side_by_side(panels, f"{title}, step {step}, return {total:,.1f}"))
            following, _, _ = model.dream(state.latent, action, most_likely=True)
            expected = model.draw(following)[model.name][0].cpu().numpy()
            observation, reward, terminated, truncated, _ = adapter.step(action[0].cpu().numpy())
            total += float(reward)
            if terminated or truncated:
                break
    adapter.close()
    write_mp4(path, np.stack(frames), fps=30)


def evolution_curve(
    history: Sequence[Sequence[float]], scores: Sequence[Mapping[str, Any]], where: str, path: Path
) -> None:
    """Writes a PNG of returns against generations: candidates where they are tried, and the mean's real episodes.

    Args:
        history: generation, mean and best return of its candidates.
        scores: evaluations, with `generation`, `mean` and `std`.
        where: `dream` or `environment`.
        path: the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    generations, means, best = zip(*history, strict=True)
    axes.plot(generations, means, color="tab:blue", label=f"candidates in the {where}, mean")
    axes.plot(generations, best, color="tab:blue", alpha=0.4, linewidth=1, label=f"candidates in the {where}, best")
    points = [(score["generation"], score["mean"], score["std"]) for score in scores]
    real, mean, deviation = zip(*points, strict=True)
    axes.errorbar(real, mean, deviation, color="tab:orange", marker="o", capsize=3, label="mean agent, real episodes")
    axes.set_xlabel("generation")
    axes.set_ylabel("return")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)


@torch.no_grad()
def dream_video(agent: WorldModelsAgent, dreams: Mapping[float, Dream[MemoryState]], title: str, path: Path) -> None:
    """Writes an MP4 of dreams side by side, in which the controller acts; a dream that has ended stands still.

    Args:
        agent: V, M and C.
        dreams: temperature -> dream.
        title: first line.
        path: the file.
    """
    frames, ends = [], dict.fromkeys(dreams, 0)
    for dream in dreams.values():
        dream.begin_at(np.zeros(1, np.int64))
    for step in range(DREAM_STEPS):
        panels = {
            f"temperature {temperature:g}" + (f", ended at {ends[temperature]}" if ends[temperature] else ""): (
                dream.decode()[agent.world_model.name][0]
            )
            for temperature, dream in dreams.items()
        }
        frames.append(_side_by_side(panels, f"{title}, dreamed by M, step {step}"))
        for temperature, dream in dreams.items():
            if not ends[temperature]:
                _, end, _ = dream.step(agent.control(dream.state).cpu().numpy())
                ends[temperature] = (step + 1) * bool(end[0])
        if all(ends.values()):
            break
    write_mp4(path, np.stack(frames))


def _side_by_side(panels: Mapping[str, NDArray[np.uint8]], title: str) -> NDArray[np.uint8]:
    """A frame of pictures [64, 64, 3] under their labels and a title, at least 480 pixels wide."""
    columns = []
    for label, picture in panels.items():
        panel = _panel(picture, ENLARGED_VIDEO)
        columns.append(np.concatenate([_heading(label, panel.shape[1], 15), panel], 0))
    return with_title(np.concatenate(columns, 1)[None], title)[0]


def _panel(picture: NDArray[np.uint8], factor: int = ENLARGED) -> NDArray[np.uint8]:
    """A picture enlarged without smoothing, with a white border."""
    return _bordered(picture.repeat(factor, 0).repeat(factor, 1))


def _bordered(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(picture, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=BACKGROUND)


def _heading(label: str, width: int, size: int = 12) -> NDArray[np.uint8]:
    """A label above a column."""
    return text(label, width, HEADING, size=size, align="center")


def _label(label: str, second: str = "", height: int = 64 * ENLARGED + 2 * GAP) -> NDArray[np.uint8]:
    """A label before a row, in one line or two."""
    if not second:
        return text(label, LABEL_WIDTH, height, size=13)
    upper = height // 2
    first = text(label, LABEL_WIDTH, upper, size=13)
    return np.concatenate([first, text(second, LABEL_WIDTH, height - upper, size=11, ink=GRAY)], 0)
