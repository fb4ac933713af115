"""What an agent needs to know about an environment: named observation and action parts.

A part is the smallest piece the networks treat uniformly. `reverie.envs` flattens every supported Gymnasium space into
parts; encoders, decoders, policies and the replay are built from them and never look at a Gymnasium space.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class ObservationPart:
    """One named part of an observation.

    Attributes:
        name: key of the part; parts of nested spaces are joined with `/`.
        kind: `image` (uint8, height x width x channels), `vector` (float32) or `discrete` (int32 class indices).
        shape: shape of one observation without batch axes: (H, W, C), (N,) or (number of variables,).
        classes: for `discrete`, the number of classes of each variable; empty otherwise.
        frames: for `image`, how many frames the channels hold, oldest first, where the space has an axis for them.
    """

    name: str
    kind: Literal["image", "vector", "discrete"]
    shape: tuple[int, ...]
    classes: tuple[int, ...] = ()
    frames: int = 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numpy dtype in which the part is stored and handed to the agent."""
        return np.dtype({"image": np.uint8, "vector": np.float32, "discrete": np.int32}[self.kind])

    @property
    def newest_channels(self) -> int:
        """For an image, how many of its last channels show the newest frame in its colors.

        Where the space has no axis for frames, channels are taken for frames of three colors if their number is a
        multiple of three, and otherwise for gray frames.
        """
        channels = self.shape[2]
        if self.frames > 1:
            return channels // self.frames
        return 1 if channels % 3 else 3


@dataclass(frozen=True)
class ActionPart:
    """One named part of an action.

    Agents see an action as one float32 vector: parts in the order of their names, a `discrete` part as the
    concatenated one-hot vectors of its variables, a `continuous` part scaled to [-1, 1].

    Attributes:
        name: key of the part.
        kind: `continuous` or `discrete`.
        size: number of dimensions (continuous) or variables (discrete).
        classes: for `discrete`, the number of classes of each variable; empty otherwise.
    """

    name: str
    kind: Literal["continuous", "discrete"]
    size: int
    classes: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Number of entries that the part takes in the flat action vector."""
        return sum(self.classes) if self.kind == "discrete" else self.size


@dataclass(frozen=True)
class Interface:
    """The observation and action parts that an agent and an environment agree on."""

    observations: tuple[ObservationPart, ...]
    actions: tuple[ActionPart, ...]

    @property
    def action_width(self) -> int:
        """Length A of the flat action vector."""
        return sum(part.width for part in self.actions)

    def to_json(self) -> dict[str, Any]:
        """The interface as plain JSON types; `frames` only where there are several."""
        data = asdict(self)
        for part in data["observations"]:
            if part["frames"] == 1:
                del part["frames"]
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> Interface:
        """Inverse of `to_json`."""
        observations = tuple(
            ObservationPart(
                o["name"], o["kind"], tuple(o["shape"]), classes=tuple(o["classes"]), frames=o.get("frames", 1)
            )
            for o in data["observations"]
        )
        actions = tuple(
            ActionPart(a["name"], a["kind"], a["size"], classes=tuple(a["classes"])) for a in data["actions"]
        )
        return Interface(observations, actions)
