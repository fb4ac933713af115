"""Pictures of a World Models run: what V sees and draws, and dreams at three temperatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reverie.agents.world_models import WorldModelsAgent
from reverie.dream.dream import Dream
from reverie.dream.pictures import write_mp4
from reverie.envs import EnvironmentSource
from reverie.models.vision_memory import MemoryState, VisionMemory
from reverie.nn.vae import IMAGE
from reverie.training.pipeline.frames import FrameStore

COLUMNS, ENLARGED, DREAM_STEPS, GAME_STEPS = 8, 2, 150, 300
SLIDER = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""Values of a latent on the slider sheet; the prior has deviation 1."""
SMALL, MOST_ROWS = 2, 32
"""By how much pictures on the slider sheet are shrunk, since there are hundreds, and its greatest number of rows."""
TEMPERATURES = (0.5, 1.0, 1.3)


def run_pictures(
    agent: WorldModelsAgent,
    source: EnvironmentSource,
    store: FrameStore,
    encoded: NDArray[np.float16],
    dreams: list[Dream[MemoryState]],
    seed: int,
    folder: Path,
) -> dict[Path, Callable[[Path], None]]:
    """The pictures of a finished run: the file of each, and what writes it there.

    Args:
        agent: V, M and C.
        source: the environment.
        store: collected frames.
        encoded: see `slider_sheet`.
        dreams: of the temperatures; none without a trained M.
        seed: of the real episode.
        folder: made if it is not there.
    """
    folder.mkdir(exist_ok=True)
    pictures: dict[Path, Callable[[Path], None]] = {
        folder / "reconstruction.png": lambda path: reconstruction_grid(agent.world_model, store, path),
        folder / "sliders.png": lambda path: slider_sheet(agent.world_model, encoded, path),
    }
    if dreams:
        pictures[folder / "temperatures.mp4"] = lambda path: dream_video(agent, dreams, path)
    if source.kind != "object":
        pictures[folder / "game.mp4"] = lambda path: game_video(agent, source, seed, path)
    return pictures


@torch.no_grad()
def reconstruction_grid(model: VisionMemory, store: FrameStore, path: Path) -> None:
    """Writes a PNG of some frames (top row), what V makes of their mean latents, and of a sample (bottom row)."""
    from PIL import Image

    rows = np.linspace(0, store.rows - 1, COLUMNS).astype(int)
    frames = torch.from_numpy(store.arrays[store.name][rows]).to(next(model.parameters()).device)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        drawn = [
            model.draw(model.begin(model.encode(frames, most_likely)))[model.name] for most_likely in (True, False)
        ]
    grid = torch.stack([frames, *drawn]).permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2).cpu().numpy()
    Image.fromarray(grid.repeat(ENLARGED, 0).repeat(ENLARGED, 1)).save(path)


@torch.no_grad()
def slider_sheet(model: VisionMemory, encoded: NDArray[np.float16], path: Path) -> None:
    """Writes a PNG of what latents do: a row each, in which it alone moves from -3 to 3 deviations of the prior.

    The others keep the values of one frame. Rows are in the order of what latents tell about frames (their mean
    divergence from the prior), in two blocks; at most 32 latents are shown.

    Args:
        model: V draws.
        encoded: mean and log-variance of the latents of frames, [2, rows, Z].
        path: the file.
    """
    from PIL import Image

    device = next(model.parameters()).device
    rows = np.linspace(0, encoded.shape[1] - 1, 1000).astype(int)
    mean, log_variance = (torch.from_numpy(encoded[k][rows].astype(np.float32)) for k in (0, 1))
    told = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(0)
    base = mean[len(mean) // 2].repeat(len(SLIDER), 1)
    strips = []
    for latent in told.argsort(descending=True)[:MOST_ROWS]:
        moved = base.clone()
        moved[:, latent] = torch.tensor(SLIDER)
        drawn = model.draw(model.begin(moved.to(device)))[model.name].cpu().numpy()
        small = drawn.reshape(len(SLIDER), 64 // SMALL, SMALL, 64 // SMALL, SMALL, 3).mean((2, 4))
        strips.append(np.pad(np.concatenate(list(small), 1), ((1, 1), (4, 4), (0, 0))).astype(np.uint8))
    if len(strips) % 2:
        strips.append(np.zeros_like(strips[0]))
    half = len(strips) // 2
    sheet = np.concatenate([np.concatenate(strips[:half]), np.concatenate(strips[half:])], 1)
    Image.fromarray(sheet).save(path, optimize=True)


@torch.no_grad()
def game_video(agent: WorldModelsAgent, source: EnvironmentSource, seed: int, path: Path) -> None:
    """Writes an MP4 of a real episode: the frame, what V draws of it, and what M expected one step before.

    Args:
        agent: plays with sampled latents.
        source: the environment.
        seed: of the episode.
        path: the file.
    """
    adapter, model = source.make(), agent.world_model
    observation, state, expected = adapter.reset(seed), None, np.zeros(IMAGE, np.uint8)
    frames = []
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for _ in range(GAME_STEPS):
            parts = {name: torch.from_numpy(value[None]).to(agent.device) for name, value in observation.items()}
            action, state = agent.act(parts, torch.tensor([state is None], device=agent.device), state)
            drawn = model.draw(state.latent)[model.name][0].cpu().numpy()
            panels = [np.pad(panel, ((2, 2), (2, 2), (0, 0))) for panel in (observation[model.name], drawn, expected)]
            frames.append(np.concatenate(panels, 1).repeat(ENLARGED, 0).repeat(ENLARGED, 1))
            following, _, _ = model.dream(state.latent, action, most_likely=True)
            expected = model.draw(following)[model.name][0].cpu().numpy()
            observation, _, terminated, truncated, _ = adapter.step(action[0].cpu().numpy())
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
def dream_video(agent: WorldModelsAgent, dreams: list[Dream[MemoryState]], path: Path) -> None:
    """Writes an MP4 of dreams side by side, in which the controller acts; a dream that has ended stands still."""
    frames, ended = [], [False] * len(dreams)
    for dream in dreams:
        dream.begin_at(np.zeros(1, np.int64))
    for _ in range(DREAM_STEPS):
        shown = [np.pad(dream.decode()[agent.world_model.name][0], ((2, 2), (2, 2), (0, 0))) for dream in dreams]
        frames.append(np.concatenate(shown, 1).repeat(ENLARGED, 0).repeat(ENLARGED, 1))
        for number, dream in enumerate(dreams):
            if not ended[number]:
                _, end, _ = dream.step(agent.control(dream.state).cpu().numpy())
                ended[number] = bool(end[0])
        if all(ended):
            break
    write_mp4(path, np.stack(frames))
