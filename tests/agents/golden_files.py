"""What the comparisons with official arrays have in common: reading a file, filling an agent, comparing.

Each family of agents has a module `golden_<family>.py`, which translates the official names and layouts of its weights.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.behaviors.behavior import Rollout
from reverie.models.rssm import LatentState
from reverie.nn.latents import GaussianLatent
from reverie.spaces import ActionPart, Interface, ObservationPart

FOLDER = Path(__file__).parent.parent / "golden"
VECTORS = (ObservationPart("position", "vector", (5,)), ObservationPart("velocity", "vector", (3,)))
BOX = (ActionPart("action", "continuous", 2),)
DISCRETE = (ActionPart("action", "discrete", 1, (5,)),)
NORMAL_CONSTANT = 0.5 * math.log(2 * math.pi)
"""What minus the log-density of a normal with deviation one has above half the squared error, an entry."""


def image(channels: int) -> tuple[ObservationPart]:
    """The only observation of the agents that see pictures."""
    return (ObservationPart("image", "image", (64, 64, channels)),)


def state_first(kernel: Tensor, deterministic: int) -> Tensor:
    """A kernel [inputs, outputs] whose last inputs are h, with these rows in front, where ours has them."""
    return torch.cat([kernel[-deterministic:], kernel[:-deterministic]])


def usual_layout(official: str, value: Tensor) -> Tensor:
    """Kernels [in, out] to [out, in]; convolutions [k, k, in, out] to [out, in, k, k], transposed ones likewise."""
    if official.endswith("kernel") and value.ndim == 2:
        return value.T
    if official.endswith("kernel") and value.ndim == 4:
        return value.permute(3, 2, 0, 1)
    return value


@dataclass(frozen=True)
class Translation:
    """Official weights to ours.

    Attributes:
        names: pattern of an official name, and our name in its terms.
        layout: an official array in the layout of ours.
        pieces: cuts an official array, by name, into the arrays that ours has in its place.
    """

    names: list[tuple[str, str]]
    layout: Callable[[str, Tensor], Tensor] = usual_layout
    pieces: Callable[[str, Tensor], dict[str, Tensor]] = lambda official, value: {official: value}

    def name(self, official: str) -> str:
        """The name of an official weight in our state dictionary."""
        for pattern, replacement in self.names:
            if re.fullmatch(pattern, official):
                return re.sub(pattern, replacement, official).replace(".kernel", ".weight")
        raise KeyError(official)

    def weights(self, data: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
        """All arrays below `prefix` by our names and in our layout."""
        weights = {}
        for key, array in data.items():
            if key.startswith(prefix + "/"):
                pieces = self.pieces(key.removeprefix(prefix + "/"), torch.from_numpy(np.array(array)))
                weights |= {self.name(piece): self.layout(piece, value) for piece, value in pieces.items()}
        return weights


@dataclass
class Golden:
    """An agent with the weights of a golden file, its batch, and what the official code gave for them.

    Attributes:
        agent: filled, with its optimizer.
        batch: as for `ImaginationAgent.observe`.
        data: all arrays of the file.
        translation: of its weights.
        starts: our number of imagined rollouts / the official one, where ours has some more that weigh nothing.
    """

    agent: ImaginationAgent
    batch: dict[str, Tensor]
    data: dict[str, np.ndarray]
    translation: Translation
    starts: float = 1.0

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """See `Translation.weights`."""
        return self.translation.weights(self.data, prefix)

    def loss(self) -> tuple[dict[str, Tensor], dict[str, Tensor], LatentState]:
        """As `ImaginationAgent.loss`, with all samples replaced by the mode and means over the official starts."""
        terms, metrics, states = type(self.agent).loss(self.agent, self.batch, deterministic=True)
        return terms | {name: terms[name] * self.starts for name in ("policy", "value")}, metrics, states

    def updates(self) -> Iterator[dict[str, Tensor]]:
        """Updates the agent three times and gives the metrics of each update."""
        self.agent.loss = lambda batch: self.loss()
        for _ in range(3):
            yield self.agent.update(self.batch)[0]

    def predictions(self) -> dict[str, Tensor]:
        """What the networks say of the batch, by the names below `out/`."""
        model, critic = self.agent.world_model, self.agent.behavior.critic
        batch, states, posterior = self.agent.observe(self.batch, deterministic=True)
        feature, prior, latent = states.feature, model.rssm.predict(states.deterministic), model.rssm.latent
        ours = {
            "tokens": model.encoder(batch),
            "deter": states.deterministic,
            "reward_pred": model.predict_reward(feature),
            "value_pred": critic.mean(critic(feature)),
        }
        ours |= {f"recon_{name}": output for name, output in model.decoder(feature).items()}
        if model.continuation is not None:
            ours["cont_prob"] = model.predict_continue(feature)
        if isinstance(latent, GaussianLatent):
            ours["stoch"] = states.stochastic
            for name, outputs in (("post", posterior), ("prior", prior)):
                ours[f"{name}_mean"], ours[f"{name}_std"] = latent.distribution(outputs).chunk(2, -1)
        else:
            pairs = {"stoch": states.stochastic, "post_logit": posterior, "prior_logit": prior}
            ours |= {name: value.unflatten(-1, (-1, latent.classes)) for name, value in pairs.items()}
        return ours

    def imagination(self) -> dict[str, Tensor]:
        """What actor and critic learn from, time first, by the names below `out/imag_`."""
        behavior, model, seen = self.agent.behavior, self.agent.world_model, {}
        original = behavior._policy_loss

        def watched(rollout: Rollout, judged: Tensor, weight: Tensor, value: Tensor, returns: Tensor):
            seen.update(features=rollout.features, action=rollout.actions, weight=weight.T)
            seen.update(judged=judged.T, value=value.T, returns=returns.T)
            return original(rollout, judged, weight, value, returns)

        behavior._policy_loss = watched
        self.loss()
        going_on = (~self.batch["is_terminal"]).float()
        continuation = behavior._continuation(model, seen["features"], going_on).T
        return seen | {"reward": model.predict_reward(seen["features"]), "cont": continuation}


def fill(agent: ImaginationAgent, parameters: dict[str, Tensor], own: set[str]) -> None:
    """Copies official weights into an agent; `own` names the tensors that the official files do not have."""
    state = agent.state_dict()
    assert state.keys() - parameters.keys() == own, state.keys() ^ parameters.keys()
    for name, value in parameters.items():
        assert state[name].shape == value.shape, name
        state[name].copy_(value)


def read(name: str) -> dict[str, np.ndarray]:
    """All arrays of a golden file."""
    return dict(np.load(FOLDER / f"{name}.npz"))


def batch_of(data: Mapping[str, np.ndarray], interface: Interface) -> dict[str, Tensor]:
    """The stored steps of a file as tensors."""
    names = [part.name for part in interface.observations]
    names += [name for name in ("action", "reward", "is_first", "is_last", "is_terminal") if f"batch/{name}" in data]
    return {name: torch.from_numpy(data[f"batch/{name}"]) for name in names}


def close(ours: Tensor, official: np.ndarray | float, relative: float, what: str) -> None:
    """Largest difference relative to the largest magnitude of the array."""
    official = np.asarray(official)
    assert tuple(ours.shape) == official.shape, what
    error = np.abs(ours.detach().numpy() - official).max() / max(np.abs(official).max(), 1e-12)
    assert error < relative, f"{what}: relative error {error:.2e}"


def compare_outputs(
    golden: Golden, prefix: str, ours: Mapping[str, Tensor], relative: float, besides: str | None = None
) -> None:
    """All arrays below `prefix`; those whose keys begin with `besides` are compared elsewhere."""
    for key, official in golden.data.items():
        if key.startswith(prefix) and not (besides and key.startswith(besides)):
            close(ours[key.removeprefix(prefix)], official, relative, key)


def entries(golden: Golden) -> dict[str, int]:
    """Numbers a step that the world model predicts by normals: of every observation part, and the reward."""
    observations = {part.name: math.prod(part.shape) for part in golden.agent.interface.observations}
    return observations | {"reward": 1}


def model_loss(metrics: Mapping[str, Tensor]) -> Tensor:
    """The world model's part of the total loss, from the metrics of an update."""
    return metrics["loss/total"] - metrics["loss/policy"] - metrics["loss/value"]


def compare_gradients(golden: Golden, relative: float) -> None:
    """The gradient of every weight."""
    terms, _, _ = golden.loss()
    sum(term.mean() for term in terms.values()).backward()
    official = golden.weights("grad")
    ours = {name: p.grad for name, p in golden.agent.named_parameters() if p.requires_grad}
    assert ours.keys() == official.keys()
    for name, gradient in official.items():
        close(ours[name], gradient.numpy(), relative, name)


def compare_changes(golden: Golden, before: dict[str, Tensor], relative: float) -> None:
    """The change of every weight since `before`, by the norm of the difference."""
    after, after_official = golden.agent.state_dict(), golden.weights("after3")
    assert after_official.keys() == golden.weights("param").keys()
    for name, official in after_official.items():
        change, official_change = after[name] - before[name], official - before[name]
        error = (change - official_change).norm() / official_change.norm().clamp(min=1e-12)
        assert error < relative, f"{name}: relative error {error:.2e}"


def copy_of_weights(golden: Golden) -> dict[str, Tensor]:
    """The weights as they are now."""
    return {name: value.clone() for name, value in golden.agent.state_dict().items()}
