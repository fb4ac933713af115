"""DreamerV3 of 2025: official weight names to ours, official layouts to ours."""

import torch
from golden_files import BOX, DISCRETE, VECTORS, Golden, Translation, batch_of, fill, image, read, usual_layout
from torch import Tensor

from reverie.agents.dreamer_v3 import DreamerV3Config
from reverie.spaces import Interface

INTERFACES = {"vector": Interface(VECTORS, BOX), "image": Interface(image(3), DISCRETE)}
# In the official files the vector decoder reads (stoch, deter); ours reads (deter, stoch) like every other head.
STOCHASTIC = 30

NAMES = [
    (r"enc/mlp(\d)/(\w+)", r"world_model.encoder.vector.linears.\1.\2"),
    (r"enc/mlp(\d)norm/scale", r"world_model.encoder.vector.norms.\1.scale"),
    (r"enc/cnn(\d)/(\w+)", r"world_model.encoder.images.0.convolutions.\1.\2"),
    (r"enc/cnn(\d)norm/scale", r"world_model.encoder.images.0.norms.\1.scale"),
    (r"dyn/dynin0/(\w+)", r"world_model.rssm.cell.from_deterministic.\1"),
    (r"dyn/dynin1/(\w+)", r"world_model.rssm.cell.from_stochastic.\1"),
    (r"dyn/dynin2/(\w+)", r"world_model.rssm.cell.from_action.\1"),
    (r"dyn/dynin0norm/scale", r"world_model.rssm.cell.norm_deterministic.scale"),
    (r"dyn/dynin1norm/scale", r"world_model.rssm.cell.norm_stochastic.scale"),
    (r"dyn/dynin2norm/scale", r"world_model.rssm.cell.norm_action.scale"),
    (r"dyn/dynhid0/(\w+)", r"world_model.rssm.cell.hidden.\1"),
    (r"dyn/dynhid0norm/scale", r"world_model.rssm.cell.norm_hidden.scale"),
    (r"dyn/dyngru/(\w+)", r"world_model.rssm.cell.gates.\1"),
    (r"dyn/obs(\d)/(\w+)", r"world_model.rssm.posterior.linears.\1.\2"),
    (r"dyn/obs(\d)norm/scale", r"world_model.rssm.posterior.norms.\1.scale"),
    (r"dyn/obslogit/(\w+)", r"world_model.rssm.posterior_logits.\1"),
    (r"dyn/prior(\d)/(\w+)", r"world_model.rssm.prior.linears.\1.\2"),
    (r"dyn/prior(\d)norm/scale", r"world_model.rssm.prior.norms.\1.scale"),
    (r"dyn/priorlogit/(\w+)", r"world_model.rssm.prior_logits.\1"),
    (r"dec/mlp/linear(\d)/(\w+)", r"world_model.decoder.vector.linears.\1.\2"),
    (r"dec/mlp/norm(\d)/scale", r"world_model.decoder.vector.norms.\1.scale"),
    (r"dec/vec/position/pred/(\w+)", r"world_model.decoder.heads.0.\1"),
    (r"dec/vec/velocity/pred/(\w+)", r"world_model.decoder.heads.1.\1"),
    (r"dec/sp0/(\w+)", r"world_model.decoder.images.0.from_deterministic.\1"),
    (r"dec/sp1/(\w+)", r"world_model.decoder.images.0.from_stochastic.\1"),
    (r"dec/sp1norm/scale", r"world_model.decoder.images.0.norm_stochastic.scale"),
    (r"dec/sp2/(\w+)", r"world_model.decoder.images.0.to_grid.\1"),
    (r"dec/spnorm/scale", r"world_model.decoder.images.0.norm_grid.scale"),
    (r"dec/conv2/(\w+)", r"world_model.decoder.images.0.convolutions.0.\1"),
    (r"dec/conv1/(\w+)", r"world_model.decoder.images.0.convolutions.1.\1"),
    (r"dec/conv0/(\w+)", r"world_model.decoder.images.0.convolutions.2.\1"),
    (r"dec/conv2norm/scale", r"world_model.decoder.images.0.norms.0.scale"),
    (r"dec/conv1norm/scale", r"world_model.decoder.images.0.norms.1.scale"),
    (r"dec/conv0norm/scale", r"world_model.decoder.images.0.norms.2.scale"),
    (r"dec/imgout/(\w+)", r"world_model.decoder.images.0.output.\1"),
    (r"rew/mlp/linear(\d)/(\w+)", r"world_model.reward.network.linears.\1.\2"),
    (r"rew/mlp/norm(\d)/scale", r"world_model.reward.network.norms.\1.scale"),
    (r"rew/head/logits/(\w+)", r"world_model.reward.output.\1"),
    (r"con/mlp/linear(\d)/(\w+)", r"world_model.continuation.network.linears.\1.\2"),
    (r"con/mlp/norm(\d)/scale", r"world_model.continuation.network.norms.\1.scale"),
    (r"con/head/logit/(\w+)", r"world_model.continuation.output.\1"),
    (r"pol/mlp/linear(\d)/(\w+)", r"behavior.actor.network.linears.\1.\2"),
    (r"pol/mlp/norm(\d)/scale", r"behavior.actor.network.norms.\1.scale"),
    (r"pol/head/action/mean/(\w+)", r"behavior.actor.outputs.action:mean.\1"),
    (r"pol/head/action/stddev/(\w+)", r"behavior.actor.outputs.action:deviation.\1"),
    (r"pol/head/action/logits/(\w+)", r"behavior.actor.outputs.action:logits.\1"),
    (r"val/mlp/linear(\d)/(\w+)", r"behavior.critic.network.linears.\1.\2"),
    (r"val/mlp/norm(\d)/scale", r"behavior.critic.network.norms.\1.scale"),
    (r"val/head/logits/(\w+)", r"behavior.critic.output.\1"),
    (r"slowval/mlp/linear(\d)/(\w+)", r"behavior.slow_critic.network.linears.\1.\2"),
    (r"slowval/mlp/norm(\d)/scale", r"behavior.slow_critic.network.norms.\1.scale"),
    (r"slowval/head/logits/(\w+)", r"behavior.slow_critic.output.\1"),
]


def layout(official: str, value: Tensor) -> Tensor:
    """An official array in the layout of ours; block-linear kernels stay as they are."""
    if official == "dec/mlp/linear0/kernel":
        value = torch.cat([value[STOCHASTIC:], value[:STOCHASTIC]])
    return usual_layout(official, value)


def golden_agent(kind: str) -> Golden:
    """The agent of `dreamerv3_<kind>.npz`."""
    data, translation = read(f"dreamerv3_{kind}"), Translation(NAMES, layout)
    config = DreamerV3Config(
        size="1m",
        deterministic=32,
        hidden=12,
        variables=5,
        classes=6,
        units=16,
        depth=4,
        actor_uniform_mix=0.0,
        learning_rate=1e-3,
        learning_rate_warmup=2,
    )
    agent = config.build(INTERFACES[kind])
    fill(agent, translation.weights(data, "param"), own={"behavior.normalizer.low", "behavior.normalizer.high"})
    agent.optimizer = config.build_optimizer(agent)
    batch = batch_of(data, agent.interface)
    if kind == "image":
        batch["action"] = torch.nn.functional.one_hot(batch["action"].long(), 5).float()
    batch["deterministic"] = torch.from_numpy(data["batch/dyn/deter"])
    batch["stochastic"] = torch.from_numpy(data["batch/dyn/stoch"]).argmax(-1)
    return Golden(agent, batch, data, translation)
