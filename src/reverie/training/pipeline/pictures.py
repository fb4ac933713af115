"""Pictures of a World Models run: what V sees and draws, and dreams at three temperatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from reverie.dream.dream import Dream
from reverie.dream.evolve import RememberingAgent, flat_actions
from reverie.dream.pictures import write_mp4
from reverie.models.vision_memory import MemoryState, VisionMemory
from reverie.training.pipeline.frames import FrameStore

COLUMNS, ENLARGED, DREAM_STEPS = 8, 2, 150
TEMPERATURES = (0.5, 1.0, 1.3)


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
def dream_video(agent: RememberingAgent, dreams: list[Dream[MemoryState]], path: Path) -> None:
    """Writes an MP4 of dreams side by side, in which the controller acts; a dream that has ended stands still."""
    frames, ended = [], [False] * len(dreams)
    for dream in dreams:
        dream.begin_at(np.zeros(1, np.int64))
    for _ in range(DREAM_STEPS):
        shown = [np.pad(dream.decode()[agent.model.name][0], ((2, 2), (2, 2), (0, 0))) for dream in dreams]
        frames.append(np.concatenate(shown, 1).repeat(ENLARGED, 0).repeat(ENLARGED, 1))
        for number, dream in enumerate(dreams):
            if not ended[number]:
                outputs = agent.controller(agent.parameters, dream.features().unsqueeze(0))[0]
                _, end, _ = dream.step(flat_actions(outputs, agent.parts).cpu().numpy())
                ended[number] = bool(end[0])
        if all(ended):
            break
    write_mp4(path, np.stack(frames))
