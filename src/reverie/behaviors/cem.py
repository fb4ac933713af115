"""The cross-entropy planner of PlaNet (Hafner et al., 2019, Algorithm 2): it searches actions and learns nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.errors import ConfigError, NumericalError

Score = Callable[[Tensor], Tensor]
"""Returns of candidate action sequences, [E, J, H, A] -> [E, J]; greater is better."""

VARIANCE_FLOOR = 1e-6
"""Added to the variance of the elites, as in the released code: the search never stands still."""


@dataclass(frozen=True)
class Plan:
    """A distribution over action sequences, independent in every number.

    Attributes:
        mean: [E, H, A], in [-1, 1] if candidates were clipped before they were refitted.
        deviation: standard deviation, [E, H, A].
    """

    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class CrossEntropyPlanner:
    """Finds action sequences of high return by drawing many, keeping the best and drawing around these.

    The search starts at mean 0 and deviation 1 at every decision. In each iteration J candidates are drawn from the
    normal distribution; mean and deviation of the K best are the next distribution. The action is the mean of the first
    step, not the best candidate. What is scored is clipped to [-1, 1]. With `clip`, so is what is refitted: then the
    deviation shrinks even where all candidates are equally good. Without, it stays, and the search continues.

    What scores the candidates is not decided here: a world model that imagines them, or a true simulator.

    Source: PlaNet, Algorithm 2 and appendix A; clipping what is refitted and the floor of the variance are in its
    released code only.

    Attributes:
        horizon: H, steps of a sequence.
        candidates: J, sequences drawn in an iteration.
        iterations: how often the distribution is refitted.
        elites: K, the candidates that it is refitted to.
        clip: refit to clipped candidates (released code), not to candidates as they were drawn (Algorithm 2).

    Raises:
        ConfigError: a number is below 1, or there are more elites than candidates.
    """

    horizon: int = 12
    candidates: int = 1000
    iterations: int = 10
    elites: int = 100
    clip: bool = True

    def __post_init__(self) -> None:
        for name in ("horizon", "candidates", "iterations", "elites"):
            _check_count(name, getattr(self, name))
        if self.elites > self.candidates:
            raise ConfigError(
                f"the planner got elites = {self.elites} of candidates = {self.candidates}; choose at most as many "
                f"elites as candidates"
            )

    def plan(
        self,
        score: Score,
        batch: int,
        action_width: int,
        *,
        device: torch.device | str,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The actions to carry out now, float32 [E, A] in [-1, 1]; arguments and errors as for `search`."""
        return self.search(score, batch, action_width, device=device, generator=generator).mean[:, 0].clamp(-1, 1)

    def search(
        self,
        score: Score,
        batch: int,
        action_width: int,
        *,
        device: torch.device | str,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """The last distribution, for E environments at once, none of which influences another.

        Args:
            score: returns of candidates, float32 [E, J, H, A] in [-1, 1] -> [E, J]; called once an iteration, without
                gradients. Minus infinity rules a candidate out.
            batch: E.
            action_width: A.
            device: where candidates are drawn and handed to `score`.
            generator: of the random numbers, on the same device; by default PyTorch's own.

        Returns:
            Mean and deviation of the elites of the last iteration.

        Raises:
            ConfigError: `batch` or `action_width` is below 1, or the returns are not [E, J].
            NumericalError: a return is NaN.
        """
        _check_count("batch", batch)
        _check_count("action_width", action_width)
        with torch.no_grad():
            mean = torch.zeros(batch, self.horizon, action_width, device=device)
            deviation = torch.ones_like(mean)
            undefined = torch.zeros((), dtype=torch.bool, device=device)
            for _ in range(self.iterations):
                noise = torch.randn(batch, self.candidates, *mean.shape[1:], device=device, generator=generator)
                drawn = mean[:, None] + deviation[:, None] * noise  # [E, J, H, A]
                actions = drawn.clamp(-1, 1)
                returns = self._checked(score(actions), batch).to(device)
                undefined |= returns.isnan().any()
                mean, deviation = self._refitted(actions if self.clip else drawn, returns)
        if undefined:  # looked at once, so that the device is not waited for in between
            raise NumericalError(
                "the planner got returns that are NaN from its score function; fix the model or the simulator"
            )
        return Plan(mean, deviation)

    def _refitted(self, actions: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the K best candidates: [E, J, H, A] and [E, J] -> twice [E, H, A]."""
        best = returns.topk(self.elites, dim=1, sorted=False).indices  # [E, K]
        elites = actions.take_along_dim(best[:, :, None, None], dim=1)  # [E, K, H, A]
        return elites.mean(1), (elites.var(1, correction=0) + VARIANCE_FLOOR).sqrt()

    def _checked(self, returns: Tensor, batch: int) -> Tensor:
        if returns.shape != (batch, self.candidates):
            raise ConfigError(
                f"the planner's score function gave returns of shape {list(returns.shape)}; make it give one return a "
                f"candidate, [E, J] = [{batch}, {self.candidates}]"
            )
        return returns


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"the planner got {name} = {value}; choose a whole number that is at least 1")
