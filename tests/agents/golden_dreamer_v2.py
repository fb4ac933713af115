"""DreamerV2: official weight names to ours, official layouts to ours."""

import torch
from golden_files import (
    BOX,
    DISCRETE,
    VECTORS,
    Golden,
    Translation,
    batch_of,
    fill,
    image,
    read,
    state_first,
    usual_layout,
)
from torch import Tensor

from reverie.agents.dreamer_v2 import DreamerV2Config
from reverie.spaces import Interface

INTERFACES = {
    "vector": Interface(VECTORS, BOX),
    "gaussian": Interface(VECTORS, BOX),
    "image": Interface(image(1), DISCRETE),
}
SIZES = {
    "deterministic": 20,
    "hidden": 14,
    "units": 16,
    "depth": 4,
    "vector_units": 16,
    "vector_layers": 2,
    "reward_layers": 2,
    "continue_layers": 2,
    "actor_layers": 2,
    "critic_layers": 2,
    "horizon": 5,
}
CONTROL = {
    "kl_scale": 1.0,
    "free_nats": 1.0,
    "reward_transform": "none",
    "continuation": False,
    "discount": 0.99,
    "entropy": 1e-4,
    "model_learning_rate": 3e-4,
    "actor_learning_rate": 8e-5,
    "critic_learning_rate": 8e-5,
}
SETTINGS = {
    "vector": {**CONTROL, "variables": 4, "classes": 5},
    "gaussian": {**CONTROL, "latent": "gaussian", "variables": 6},
    "image": {"variables": 4, "classes": 5, "discount": 0.999, "continue_scale": 5.0},
}


def network(official: str, ours: str) -> list[tuple[str, str]]:
    """A head: hidden layers, then the output."""
    return [
        (rf"{official}/dense(\d)/(\w+)", rf"{ours}.network.linears.\1.\2"),
        (rf"{official}/out/out/(\w+)", rf"{ours}.output.\1"),
    ]


RSSM, DECODER = "world_model.rssm", "world_model.decoder"
NAMES = [
    (r"enc/dense(\d)/(\w+)", r"world_model.encoder.vector.linears.\1.\2"),
    (r"enc/conv(\d)/(\w+)", r"world_model.encoder.images.0.convolutions.\1.\2"),
    (r"rssm/img_in/(\w+)", rf"{RSSM}.cell.input.\1"),
    (r"rssm/gru/(\w+)", rf"{RSSM}.cell.gates.\1"),
    (r"rssm/gru_norm/gamma", rf"{RSSM}.cell.norm_gates.weight"),
    (r"rssm/gru_norm/beta", rf"{RSSM}.cell.norm_gates.bias"),
    (r"rssm/img_out_0/(\w+)", rf"{RSSM}.prior.linears.0.\1"),
    (r"rssm/img_dist_0/(\w+)", rf"{RSSM}.prior_logits.\1"),
    (r"rssm/obs_out/(\w+)", rf"{RSSM}.posterior.linears.0.\1"),
    (r"rssm/obs_dist/(\w+)", rf"{RSSM}.posterior_logits.\1"),
    (r"head_decoder/dense(\d)/(\w+)", rf"{DECODER}.vector.linears.\1.\2"),
    (r"head_decoder/dense_position/out/(\w+)", rf"{DECODER}.heads.0.\1"),
    (r"head_decoder/dense_velocity/out/(\w+)", rf"{DECODER}.heads.1.\1"),
    (r"head_decoder/convin/(\w+)", rf"{DECODER}.images.0.to_grid.\1"),
    (r"head_decoder/conv(\d)/(\w+)", rf"{DECODER}.images.0.convolutions.\1.\2"),
    *network("head_reward", "world_model.reward"),
    *network("head_discount", "world_model.continuation"),
    (r"actor/dense(\d)/(\w+)", r"behavior.actor.network.linears.\1.\2"),
    (r"actor/out/std/(\w+)", r"behavior.actor.outputs.action:deviation.\1"),
    *network("critic", "behavior.critic"),
    *network("slow", "behavior.slow_critic"),
]
# The first output of the policy is the mean of continuous actions, or the logits of discrete ones.
POLICY_OUTPUT = {"vector": "mean", "gaussian": "mean", "image": "logits"}
# Official layers that read the state read (z, h), and the GRU reads (input, h); ours read (h, z) and (h, input).
HEADS = ("head_decoder", "head_reward", "head_discount", "actor", "critic", "slow")
STATE_LAST = {f"{head}/dense0/kernel" for head in HEADS} | {"head_decoder/convin/kernel", "rssm/gru/kernel"}


def layout(official: str, value: Tensor) -> Tensor:
    """An official array in the layout of ours."""
    if official in STATE_LAST:
        value = state_first(value, SIZES["deterministic"])
    return usual_layout(official, value)


def golden_agent(kind: str) -> Golden:
    """The agent of `dreamerv2_<kind>.npz`."""
    policy = (r"actor/out/out/(\w+)", rf"behavior.actor.outputs.action:{POLICY_OUTPUT[kind]}.\1")
    data, translation = read(f"dreamerv2_{kind}"), Translation([*NAMES, policy], layout)
    config = DreamerV2Config(**SIZES, **SETTINGS[kind])
    agent = config.build(INTERFACES[kind])
    fill(agent, translation.weights(data, "param"), own={"behavior.updates"})
    agent.optimizer = config.build_optimizer(agent)
    batch = batch_of(data, agent.interface)
    # The official code stores an action with the observation that it led to, ours with the one before.
    batch["action"] = torch.roll(batch["action"], -1, dims=1)
    return Golden(agent, batch, data, translation)
