"""Dreamer v1: official weight names to ours, official layouts to ours."""

import torch
from golden_files import BOX, Golden, Translation, batch_of, fill, image, read, state_first, usual_layout
from torch import Tensor

from reverie.agents.dreamer_v1 import DreamerV1Config
from reverie.spaces import Interface

DETERMINISTIC = 20


def network(official: str, ours: str) -> list[tuple[str, str]]:
    """A head: hidden layers, then the output."""
    return [
        (rf"{official}/h(\d)/(\w+)", rf"{ours}.network.linears.\1.\2"),
        (rf"{official}/hout/(\w+)", rf"{ours}.output.\1"),
    ]


RSSM, DECODER = "world_model.rssm", "world_model.decoder.images.0"
NAMES = [
    *((rf"enc/h{i + 1}/(\w+)", rf"world_model.encoder.images.0.convolutions.{i}.\1") for i in range(4)),
    (r"rssm/img1/(\w+)", rf"{RSSM}.cell.input.\1"),
    (r"rssm/gru/kernel", rf"{RSSM}.cell.from_input.kernel"),
    (r"rssm/gru/recurrent_kernel", rf"{RSSM}.cell.from_state.kernel"),
    (r"rssm/gru/input_bias", rf"{RSSM}.cell.from_input.bias"),
    (r"rssm/gru/state_bias", rf"{RSSM}.cell.from_state.bias"),
    (r"rssm/img2/(\w+)", rf"{RSSM}.prior.linears.0.\1"),
    (r"rssm/img3/(\w+)", rf"{RSSM}.prior_logits.\1"),
    (r"rssm/obs1/(\w+)", rf"{RSSM}.posterior.linears.0.\1"),
    (r"rssm/obs2/(\w+)", rf"{RSSM}.posterior_logits.\1"),
    (r"dec/h1/(\w+)", rf"{DECODER}.to_grid.\1"),
    *((rf"dec/h{i + 2}/(\w+)", rf"{DECODER}.convolutions.{i}.\1") for i in range(4)),
    *network("reward", "world_model.reward"),
    *network("pcont", "world_model.continuation"),
    *network("value", "behavior.critic"),
    (r"actor/h(\d)/(\w+)", r"behavior.actor.network.linears.\1.\2"),
    (r"actor/(mean|deviation)/(\w+)", r"behavior.actor.outputs.action:\1.\2"),
]
# Official layers that read the state read (z, h); ours read (h, z).
STATE_LAST = {f"{head}/h0/kernel" for head in ("reward", "pcont", "value", "actor")} | {"dec/h1/kernel"}


def pieces(official: str, value: Tensor) -> dict[str, Tensor]:
    """One array for both biases of the GRU, and one for mean and deviation of the policy, are two in ours."""
    if official == "rssm/gru/bias":
        return {"rssm/gru/input_bias": value[0], "rssm/gru/state_bias": value[1]}
    if official.startswith("actor/hout/"):
        mean, deviation = value.chunk(2, -1)
        return {official.replace("hout", "mean"): mean, official.replace("hout", "deviation"): deviation}
    return {official: value}


def layout(official: str, value: Tensor) -> Tensor:
    """An official array in the layout of ours: the GRU of Keras has the update gate before the reset gate."""
    if official in STATE_LAST:
        value = state_first(value, DETERMINISTIC)
    if official.startswith("rssm/gru/"):
        update, reset, candidate = value.chunk(3, -1)
        value = torch.cat([reset, update, candidate], -1)
    return usual_layout(official, value)


def golden_agent(kind: str) -> Golden:
    """The agent of `dreamerv1_<kind>.npz`."""
    ends = kind == "pcont"
    data, translation = read(f"dreamerv1_{kind}"), Translation(NAMES, layout, pieces)
    config = DreamerV1Config(
        deterministic=DETERMINISTIC, hidden=20, variables=6, units=16, depth=4, horizon=6, continuation=ends
    )
    agent = config.build(Interface(image(3), BOX))
    fill(agent, translation.weights(data, "param"), own={"exploration.updates"})
    agent.optimizer = config.build_optimizer(agent)
    batch = batch_of(data, agent.interface)
    # The official code stores an action with the observation that it led to, ours with the one before.
    batch["action"] = torch.roll(batch["action"], -1, dims=1)
    batch["is_terminal"] = torch.from_numpy(data["batch/discount"] == 0)
    batch["is_first"] = torch.zeros_like(batch["is_terminal"])
    batch["is_first"][:, 0] = True
    # With ends, the official code imagines from all steps of a window but the last.
    steps = batch["reward"].shape[1]
    return Golden(agent, batch, data, translation, starts=steps / (steps - 1) if ends else 1.0)
