"""Acting by planning in the world model at every decision, with nothing learned but the model (PlaNet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reverie.behaviors.behavior import Behavior, Rollout
from reverie.behaviors.cem import CrossEntropyPlanner
from reverie.models.dream_model import DreamModel, State
from reverie.models.rssm import LatentState
from reverie.models.world_model import WorldModel
from reverie.ops.distributions import one_hot
from reverie.spaces import ActionPart


class Planning(Behavior):
    """Searches the action sequence whose imagined rewards have the largest sum, and carries out its first action.

    Every candidate is followed by one rollout of the prior with sampled latents. The rewards of the states that are
    reached are added up, with no discount and no value behind the end. Where the model predicts continuation, a reward
    counts as much as it is likely to be reached. Variables of discrete actions are searched as one number a class, of
    which the largest wins.

    Args:
        parts: action parts.
        planner: the search.
    """

    def __init__(self, parts: Sequence[ActionPart], planner: CrossEntropyPlanner) -> None:
        super().__init__()
        self.parts, self.planner = tuple(parts), planner

    def networks(self) -> dict[str, nn.Module]:
        """None."""
        return {}

    def choose(self, world_model: DreamModel[State], state: State, most_likely: bool) -> Tensor:
        """See `Behavior`; the world model may be any that can dream.

        `most_likely` concerns the latents of the rollouts, while candidates are always drawn.
        """
        return self._search(world_model, state, most_likely)[:, 0]

    @torch.no_grad()
    def imagine(self, world_model: WorldModel, start: LatentState, deterministic: bool = False) -> Rollout:
        """See `Behavior`: the plan, carried out in the world model."""
        actions = self._search(world_model, start, deterministic).transpose(0, 1)
        steps = actions.shape[0]
        states = world_model.rssm.imagine(
            lambda feature, step: actions[step], start, steps, deterministic=deterministic
        )
        return Rollout(torch.stack([state.feature for state in states]), actions, actions[..., :0])

    def learn(
        self, world_model: WorldModel, states: LatentState, batch: Mapping[str, Tensor], deterministic: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `Behavior`; there is nothing to learn."""
        return {}, {}

    def _search(self, world_model: DreamModel[State], state: State, most_likely: bool) -> Tensor:
        """The mean of the last distribution over plans, as actions that can be carried out: [E, H, A]."""

        def score(candidates: Tensor) -> Tensor:
            actions = self.executable(candidates).flatten(0, 1)
            returns = imagined_return(world_model, begin, actions, most_likely=most_likely)
            return returns.view(candidates.shape[:2])

        begin = state.repeat(self.planner.candidates)
        width = sum(part.width for part in self.parts)
        return self.executable(self.planner.search(score, state.count, width, device=state.device).mean)

    def executable(self, candidates: Tensor) -> Tensor:
        """Numbers [..., A] of the search as actions: discrete variables one-hot at the largest number of each."""
        pieces = []
        for part, piece in zip(self.parts, candidates.split([part.width for part in self.parts], -1), strict=True):
            if part.kind == "continuous":
                pieces.append(piece)
            else:
                variables = piece.split(list(part.classes), -1)
                pieces += [one_hot(x.argmax(-1), x.shape[-1], x.dtype) for x in variables]
        return torch.cat(pieces, -1)


def imagined_return(world_model: DreamModel[State], start: State, actions: Tensor, most_likely: bool = False) -> Tensor:
    """Sum of the predicted rewards along action sequences, each weighted by the probability that it is reached.

    Args:
        world_model: imagines.
        start: [N, ...].
        actions: [N, H, A].
        most_likely: take most likely latents instead of samples.

    Returns:
        [N].
    """
    state, going_on = start, torch.ones(start.count, device=start.device)
    total = torch.zeros_like(going_on)
    for action in actions.unbind(1):
        state, reward, goes_on = world_model.dream(state, action, most_likely=most_likely)
        total = total + going_on * reward
        going_on = going_on * goes_on
    return total
