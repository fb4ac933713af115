"""Replay of experience: windows of time rows of parallel environments, in memory or on disk."""

from reverie.replay.fields import Field
from reverie.replay.sequence import Batch, SequenceReplay

__all__ = ["Batch", "Field", "SequenceReplay"]
