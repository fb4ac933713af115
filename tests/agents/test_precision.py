"""bfloat16 and CUDA: the same losses, float32 weights, and no waiting for the device within an update."""

import pytest
import torch
from agent_helpers import MIXED, random_batch
from golden_dreamer_v3 import golden_agent

from reverie.agents.registry import make_config
from reverie.spaces import Interface, ObservationPart

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_bfloat16_gives_nearly_the_same_losses_and_keeps_weights_in_float32(kind):
    exact = golden_agent(kind).loss()[0]
    golden = golden_agent(kind)
    agent, batch = golden.agent, golden.batch
    agent.compute_dtype = torch.bfloat16
    terms, metrics, states = agent.loss(batch, deterministic=True)
    assert states.deterministic.dtype == torch.bfloat16
    for name, term in terms.items():
        assert term.dtype == torch.float32, name
    # One step: the two precisions may choose other latents later on.
    first = {name: (terms[name][:, 0] - exact[name][:, 0]).abs().max() / exact[name].abs().max() for name in terms}
    assert first["reward"] < 0.05, first
    assert first["dynamics"] < 0.1, first
    agent.update(batch)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in agent.parameters())


@needs_cuda
@pytest.mark.parametrize("kind", ["vector", "image"])
def test_cuda_agrees_with_the_golden_losses_without_waiting(kind):
    golden = golden_agent(kind)
    agent, batch, data = golden.agent, golden.batch, golden.data
    agent.cuda()
    agent.optimizer.__init__(agent.parameters())
    batch = {name: value.cuda() for name, value in batch.items()}
    torch.backends.cuda.matmul.allow_tf32 = False
    terms, _, _ = agent.loss(batch, deterministic=True)
    total = torch.stack([term.mean() for term in terms.values()]).sum().item()
    assert total == pytest.approx(float(data["loss/total"]), rel=1e-3)
    agent.update(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        agent.update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["planet", "dreamer-v1", "dreamer-v2"])
def test_older_agents_work_in_bfloat16_with_weights_in_float32(name):
    torch.manual_seed(0)
    small = {"deterministic": 12, "hidden": 8, "variables": 4, "vector_units": 8, "depth": 2, "horizon": 3}
    if name == "planet":
        small |= {"overshooting_scale": 0.1, "candidates": 8, "elites": 2}
    config = make_config(name, small, "quick")
    part = ObservationPart("camera", "image", (64, 64, 3))
    agent = config.build(Interface((part, *MIXED.observations[1:]), MIXED.actions))
    agent.optimizer = config.build_optimizer(agent)
    agent.compute_dtype = torch.bfloat16
    batch = random_batch(agent)
    metrics, _ = agent.update(batch)
    assert all(torch.isfinite(value) for value in metrics.values())
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in agent.parameters())
    observation = {part.name: batch[part.name][:, 0] for part in agent.interface.observations}
    action, state = agent.act(observation, torch.ones(2, dtype=torch.bool), None, purpose="experience")
    assert action.dtype == torch.float32
    assert state.latent.feature.dtype == torch.bfloat16
