"""Supervised stages of World Models: V on frames, M on the latents of whole episodes. Both resume exactly."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reverie.errors import ConfigError, NumericalError
from reverie.models.vision_memory import VisionMemory
from reverie.nn.mdn_rnn import MixtureRNN, MixtureState
from reverie.nn.vae import ConvVAE
from reverie.replay.files import map_array
from reverie.safe_files import COUNT, damage_of
from reverie.tensor_files import read_tensors, save_tensors
from reverie.training.files import read_json, write_json
from reverie.training.pipeline.frames import FrameStore

ENCODED_AT_ONCE = 256
"""Frames that V encodes at once."""
LOGGED_POINTS = 200
"""Points of a loss curve that are kept, at most, and the last."""


@dataclass
class Training:
    """A module, its Adam optimizer, and how far it is; one file holds all of it.

    Args:
        path: the file; continues from it if it is there.
        module: learns.
        learning_rate: of Adam with the usual other settings.
        total: updates.
        precision: in which networks compute; weights, their gradients and Adam stay float32.
        begun: updates at which the present iteration began.
        anneal_to: share of the learning rate that is left at the end; it falls linearly from `begun` on.

    Attributes:
        updates: done so far.
        carried: tensors that one update hands to the next and a checkpoint must keep, such as M's state.
        losses: terms of the loss of single batches, one dictionary for each logged point.
    """

    path: Path
    module: nn.Module
    learning_rate: float
    total: int
    precision: torch.dtype = torch.float32
    begun: int = 0
    anneal_to: float = 1.0
    updates: int = 0
    carried: dict[str, Tensor] = field(default_factory=dict)
    losses: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._optimizer = torch.optim.Adam(self.module.parameters(), self.learning_rate)
        self._names = [name for name, _ in self.module.named_parameters()]
        self._saved = time.monotonic()
        if self.path.exists():
            tensors = read_tensors(self.path)
            with damage_of(self.path):
                self._load(tensors)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.updates >= self.total

    def computing(self) -> torch.autocast:
        """A context in which the module computes in the chosen precision."""
        device = next(self.module.parameters()).device.type
        return torch.autocast(device, self.precision, enabled=self.precision != torch.float32)

    def step(self, terms: dict[str, Tensor], clip: float | None = None) -> None:
        """One gradient step on the sum of the terms; with `clip` each number of the gradient is limited to it."""
        self._optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        if clip is not None:
            nn.utils.clip_grad_value_(self.module.parameters(), clip)
        done = (self.updates - self.begun) / (self.total - self.begun)
        self._optimizer.param_groups[0]["lr"] = self.learning_rate * (1 - (1 - self.anneal_to) * done)
        self._optimizer.step()
        self.updates += 1
        every = max(1, math.ceil(self.total / LOGGED_POINTS))
        if self.updates % every == 0 or self.complete:
            self.losses.append({"update": self.updates, **{name: float(term.detach()) for name, term in terms.items()}})
            wrong = [name for name, value in self.losses[-1].items() if not np.isfinite(value)]
            if wrong:
                raise NumericalError(
                    f"the {wrong[0]} loss of {self.path.stem} is no longer finite at update {self.updates}; lower its "
                    f"learning rate and start over with another --run"
                )

    def save_if_due(self, minutes: float, force: bool = False) -> None:
        """Writes the file if so many minutes have passed, or at once."""
        if not force and time.monotonic() - self._saved < minutes * 60:
            return
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        for name, parameter in zip(self._names, self._optimizer.param_groups[0]["params"], strict=True):
            tensors |= {f"adam.{name}.{key}": value for key, value in self._optimizer.state[parameter].items()}
        tensors |= {f"carried.{name}": value for name, value in self.carried.items()}
        keys = list(self.losses[0]) if self.losses else []
        table = torch.tensor([[row[key] for key in keys] for row in self.losses], dtype=torch.float64)
        tensors |= {"updates": torch.tensor(self.updates), f"losses:{','.join(keys)}": table}
        save_tensors(tensors, self.path)
        self._saved = time.monotonic()

    def _load(self, tensors: dict[str, Tensor]) -> None:
        self.updates = int(tensors["updates"])
        with torch.no_grad():
            for name, value in self.module.state_dict().items():
                value.copy_(tensors[f"module.{name}"])
        for name, parameter in zip(self._names, self._optimizer.param_groups[0]["params"], strict=True):
            prefix = f"adam.{name}."
            state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if state:
                self._optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
                }
        self.carried = {key.removeprefix("carried."): v for key, v in tensors.items() if key.startswith("carried.")}
        key = next(key for key in tensors if key.startswith("losses:"))
        names = key.removeprefix("losses:").split(",")
        self.losses = [dict(zip(names, row, strict=True)) for row in tensors[key].tolist()]
        for row in self.losses:
            row["update"] = int(row["update"])


def seed_update(seed: int, stage: int, update: int) -> None:
    """Seeds PyTorch for one update, so that a resumed run draws the same numbers."""
    torch.manual_seed(int(np.random.default_rng((seed, stage, update)).integers(2**63 - 1)))


def train_vision(
    training: Training,
    store: FrameStore,
    rows: int,
    batch: int,
    seed: int,
    device: torch.device,
    done: Callable[[int], bool],
) -> None:
    """Trains V on frames in random order, epoch after epoch.

    Args:
        training: of the autoencoder.
        store: frames.
        rows: how many of them.
        batch: frames per batch.
        seed: of the order and of sampling.
        device: where V is.
        done: called after every update with their number; true ends the stage early.
    """
    vision = training.module
    assert isinstance(vision, ConvVAE)
    per_epoch = max(1, rows // batch)
    order, epoch, begun = np.zeros(0, np.int64), -1, training.begun
    with store.read_at_random() as frames:
        while not training.complete:
            if (training.updates - begun) // per_epoch != epoch:
                epoch = (training.updates - begun) // per_epoch
                order = np.random.default_rng((seed, 1, begun, epoch)).permutation(rows)
            begin = (training.updates - begun) % per_epoch * batch
            chosen = np.sort(order[begin : begin + batch])
            seed_update(seed, 1, training.updates)
            images = torch.from_numpy(frames[chosen]).to(device).float() / 255
            with training.computing():
                terms = vision.loss(images)
            training.step(terms)
            if done(training.updates):
                return


@torch.no_grad()
def encode_frames(
    model: VisionMemory,
    store: FrameStore,
    rows: int,
    path: Path,
    done: Callable[[int], bool],
    precision: torch.dtype = torch.float32,
    known: NDArray[np.float16] | None = None,
) -> NDArray[np.float16] | None:
    """Mean and log-variance of the latents of frames, as the released code keeps them: float16 [2, rows, Z].

    Args:
        model: its V encodes.
        store: frames.
        rows: how many of them.
        path: file that is written when complete; read if it is there. Until then `.NAME.partial` has the first rows,
            and `.NAME.rows` how many.
        done: called with the number of frames encoded; true stops, to continue from there the next time.
        precision: in which V sees.
        known: latents of the first rows [2, K, Z], where V has not changed since.

    Returns:
        The memory map, or None if `done` gave up.
    """
    if not path.exists():
        partial, counted = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.rows")
        device = next(model.parameters()).device
        if counted.exists():
            start = read_json(counted, {"rows": COUNT})["rows"]
            array = map_array(partial, (2, rows, model.vision.latent), np.dtype(np.float16), writable=True)
        else:
            partial.unlink(missing_ok=True)
            array = np.lib.format.open_memmap(partial, "w+", np.float16, (2, rows, model.vision.latent))
            start = 0 if known is None else known.shape[1]
            if known is not None:
                array[:, :start] = known
        for begin in range(start, rows, ENCODED_AT_ONCE):
            part = slice(begin, min(begin + ENCODED_AT_ONCE, rows))
            image = torch.from_numpy(store.arrays[store.name][part]).to(device).float() / 255
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                described = model.vision.encode(image)
            for number, value in enumerate(described):
                array[number, part] = value.cpu().numpy()
            stop = done(part.stop)
            if stop or (part.stop - start) % (100 * ENCODED_AT_ONCE) == 0:
                array.flush()
                write_json(counted, {"rows": part.stop})
            if stop:
                return None
        array.flush()
        counted.unlink(missing_ok=True)
        os.replace(partial, path)
    return open_latents(path, model.vision.latent, rows)


def open_latents(path: Path, latent: int, rows: int | None = None) -> NDArray[np.float16]:
    """The latents in a file that `encode_frames` wrote, float16 [2, rows, Z], mapped.

    Args:
        path: the file.
        latent: Z.
        rows: how many are expected; None for any number.

    Raises:
        CheckpointError: the file is missing, damaged, or holds another number of latents.
    """
    return map_array(path, (2, rows, latent), np.dtype(np.float16))


def memory_chunks(lengths: Sequence[int], batch: int, length: int, seed: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """Row numbers of one epoch of M: shuffled episodes in one stream, cut into parallel rows and then into chunks.

    Args:
        lengths: of the stored episodes, in their order.
        batch: parallel rows.
        length: steps of a chunk.
        seed: of the order.

    Yields:
        int [batch, length + 1]; each chunk begins with the last column of the one before, whose state is carried on.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(lengths))
    stream = np.concatenate([np.arange(starts[e], starts[e] + lengths[e]) for e in order])
    columns = len(stream) // batch
    grid = stream[: batch * columns].reshape(batch, columns)
    for begin in range(0, columns - length, length):
        yield grid[:, begin : begin + length + 1]


def train_memory(
    training: Training,
    store: FrameStore,
    encoded: NDArray[np.float16],
    batch: int,
    length: int,
    clip: float,
    seed: int,
    device: torch.device,
    done: Callable[[int], bool],
) -> None:
    """Trains M on streams of whole episodes, with latents drawn again for every batch and the state carried over.

    Args:
        training: of the mixture network.
        store: actions, rewards and flags.
        encoded: float16 [2, rows, Z], see `encode_frames`.
        batch: parallel rows of the stream.
        length: steps of a chunk.
        clip: limit of each number of the gradient.
        seed: of the order and of sampling.
        device: where M is.
        done: called after every update with their number; true ends the stage early.

    Raises:
        ConfigError: fewer steps were collected than a sequence has.
    """
    memory = training.module
    assert isinstance(memory, MixtureRNN)
    arrays = store.arrays
    rows_there = encoded.shape[1]
    if rows_there <= length + 1:
        raise ConfigError(
            f"{rows_there} collected steps are too few for sequences of {length}; collect more episodes, or lower "
            f"memory_length"
        )
    batch = max(1, min(batch, rows_there // (2 * length)))
    per_epoch = max(1, (rows_there // batch - 1) // length)
    lengths = store.lengths[: int(np.searchsorted(np.cumsum(store.lengths), rows_there, "right"))]
    while not training.complete:
        epoch, skipped = divmod(training.updates - training.begun, per_epoch)
        for number, rows in enumerate(memory_chunks(lengths, batch, length, seed=(seed, 2, training.begun, epoch))):
            if number < skipped:
                continue
            seed_update(seed, 2, training.updates)
            mean, log_variance = (torch.from_numpy(encoded[k][rows].astype(np.float32)).to(device) for k in (0, 1))
            latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            first, terminal, reward, action = (
                torch.from_numpy(arrays[key][rows]).to(device)
                for key in ("is_first", "is_terminal", "reward", "action")
            )
            if number == 0 or not training.carried:
                state = memory.initial_state(batch)
            else:
                state = MixtureState(training.carried["hidden"].to(device), training.carried["cell"].to(device))
            with training.computing():
                output, state = memory.observe(latents[:, :-1], action[:, :-1], first[:, :-1].float(), state=state)
            training.carried = {"hidden": state.hidden.detach(), "cell": state.cell.detach()}
            targets = (
                terminal[:, 1:].float() if memory.restart_head else None,
                reward[:, 1:] if memory.reward_output is not None else None,
                action[:, 1:] if memory.action_output is not None else None,
            )
            training.step(memory.loss(output, latents[:, 1:], *targets), clip)
            if done(training.updates) or training.complete:
                return
