"""Open-loop prediction: observe the beginning of real episodes, imagine the rest, compare.

What the model imagines follows the actions that were really taken, so truth and dream can be laid side by side
(DreamerV3, Nature 2025, extended data figure on video predictions).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.dream.drawing import Drawing, OpenLoop
from reverie.dream.scene import Scene
from reverie.errors import ConfigError, ReverieError
from reverie.models.vision_memory import VisionMemory

MOST_SEQUENCES = 100
"""As many as fit into the height of a video."""


def check_sequences(length: int, sequences: int) -> None:
    """Refuses numbers with which nothing can be drawn, before anything is played.

    Raises:
        ConfigError: says what is possible.
    """
    if not 1 <= sequences <= MOST_SEQUENCES or length < 4:
        raise ConfigError(
            f"a dream needs 1 to {MOST_SEQUENCES} sequences of at least 4 steps, got {sequences} of {length}"
        )


def choose_sequences(episodes: Sequence[dict[str, np.ndarray]], length: int, count: int) -> dict[str, np.ndarray]:
    """The beginnings of the longest episodes, cut to one length: name -> [B, T, ...].

    Episodes that are less than half as long as the longest are left out, so that they do not shorten the others.

    Raises:
        ReverieError: no episode has the four steps that the smallest comparison needs.
    """
    lengths = [min(len(episode["reward"]), length) for episode in episodes]
    most = max(lengths, default=0)
    if most < 4:
        raise ReverieError(f"an open-loop prediction needs an episode of at least 4 steps, the longest has {most}")
    order = sorted(range(len(episodes)), key=lambda number: -lengths[number])[:count]
    longest = [episodes[number] for number in order if lengths[number] >= max(4, most / 2)]
    steps = min(lengths[number] for number in order[: len(longest)])
    return {name: np.stack([episode[name][:steps] for episode in longest]) for name in longest[0]}


@torch.no_grad()
def predict_open_loop(
    agent: ImaginationAgent, sequences: dict[str, np.ndarray], context: int | None = None
) -> OpenLoop:
    """Filters the first steps of recorded sequences and imagines the others.

    Args:
        agent: its world model predicts.
        sequences: rows that begin with an episode, name -> [B, T, ...].
        context: observed steps; half of the sequence by default.
    """
    batch = {name: torch.from_numpy(value).to(agent.device) for name, value in sequences.items()}
    steps = batch["reward"].shape[1]
    context = context or max(1, steps // 2)
    model, dtype = agent.world_model, agent.compute_dtype
    previous = torch.cat([torch.zeros_like(batch["action"][:, :1]), batch["action"][:, :-1]], 1)
    seen = model.prepare({name: value[:, :context] for name, value in batch.items()})
    start = model.rssm.initial(previous.shape[0], agent.device, dtype)
    observed, _ = model.observe(seen, previous[:, :context], start, dtype=dtype)
    last = observed.at(-1)
    actions = batch["action"][:, context - 1 :]
    imagined = model.rssm.imagine(lambda feature, step: actions[:, step], last, steps - context)
    feature = torch.cat([observed.feature, torch.stack([state.feature for state in imagined[1:]], 1)], 1)
    prediction = model.decoder.predictions(model.decoder(feature))
    truth = {name: sequences[name] for name in prediction}
    going_on = model.predict_continue(feature)
    return OpenLoop(
        truth,
        {name: _as_shown(value, truth[name].dtype) for name, value in prediction.items()},
        (sequences["reward"], model.predict_reward(feature).cpu().numpy()),
        going_on=(1.0 - sequences["is_terminal"], going_on.cpu().numpy()),
        context=context,
        actions=sequences["action"],
    )


@torch.no_grad()
def remember_open_loop(model: VisionMemory, sequences: dict[str, np.ndarray], context: int | None = None) -> OpenLoop:
    """The same for V and M of World Models: V draws what it saw of the first steps, then M continues alone.

    Args:
        model: V and M.
        sequences: rows that begin with an episode, name -> [B, T, ...].
        context: observed steps; half of the sequence by default.
    """
    device = next(model.parameters()).device
    frames, actions = (torch.from_numpy(sequences[name]).to(device) for name in (model.name, "action"))
    steps = frames.shape[1]
    context = context or max(1, steps // 2)
    state = model.begin(model.encode(frames[:, 0], most_likely=True))
    drawn = [model.draw(state)[model.name]]
    rewards, going_on = [torch.zeros(len(frames), device=device)], [torch.ones(len(frames), device=device)]
    for step in range(1, steps):
        dreamed, reward, survival = model.dream(state, actions[:, step - 1])
        if step < context:
            dreamed = model.remember(state, actions[:, step - 1], model.encode(frames[:, step], most_likely=True))
        state = dreamed
        drawn.append(model.draw(state)[model.name])
        rewards.append(reward)
        going_on.append(survival)
    return OpenLoop(
        {model.name: sequences[model.name]},
        {model.name: torch.stack(drawn, 1).cpu().numpy()},
        (sequences["reward"], torch.stack(rewards, 1).cpu().numpy()),
        going_on=(1.0 - sequences["is_terminal"], torch.stack(going_on, 1).cpu().numpy()),
        context=context,
        actions=sequences["action"],
    )


def _as_shown(value: Tensor, dtype: np.dtype) -> np.ndarray:
    if dtype == np.uint8:
        return (value.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return value.float().cpu().numpy()


def open_loop_frames(result: OpenLoop, scene: Scene | None = None, title: str = "") -> np.ndarray:
    """The video of a prediction, uint8 [T, H, W, 3]; see `Drawing.frames`."""
    return Drawing(result, scene, title).frames


def save_open_loop(result: OpenLoop, stem: Path, scene: Scene | None = None, title: str = "") -> list[Path]:
    """Writes the pictures of a prediction; see `Drawing.save`.

    Args:
        result: truth and model.
        stem: name of the video; `.mp4` is added unless it ends in `.mp4` or `.gif`.
        scene: what is known of the task.
        title: the first line of every picture.

    Returns:
        The files that were written.
    """
    path = stem if stem.suffix in (".mp4", ".gif") else stem.with_suffix(".mp4")
    return Drawing(result, scene, title).save(path)
