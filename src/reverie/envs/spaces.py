"""Gymnasium spaces in, parts out: the two codecs, and the interface they agree on."""

from __future__ import annotations

from typing import Any

import gymnasium

from reverie.envs.action_codec import ActionCodec, random_action
from reverie.envs.observation_codec import ObservationCodec
from reverie.spaces import Interface

__all__ = ["ActionCodec", "ObservationCodec", "interface_of", "random_action"]


def interface_of(observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> Interface:
    """The parts into which an observation and an action space fall.

    Raises:
        SpaceError: if one of the spaces holds something that no agent can handle.
    """
    return Interface(ObservationCodec(observation_space).parts, ActionCodec(action_space).parts)
