"""Parity with the official DreamerV3 of 2023: same weights, same batch, samples replaced by the mode."""

import pytest
from golden_dreamer_v3_2023 import golden_agent
from golden_files import close, compare_changes, compare_gradients, compare_outputs, copy_of_weights, model_loss

TERMS = {
    "dyn": ("dynamics", 0.5),
    "rep": ("representation", 0.1),
    "reward": ("reward", 1.0),
    "cont": ("continue", 1.0),
    "position": ("reconstruction/position", 1.0),
    "velocity": ("reconstruction/velocity", 1.0),
    "image": ("reconstruction/image", 1.0),
}


@pytest.fixture(params=["vector", "image"])
def golden(request):
    return golden_agent(request.param)


def test_predictions(golden):
    ours, latent = golden.predictions(), golden.agent.world_model.rssm.latent
    # The official logits are logarithms of the probabilities with their uniform share.
    for name in ("post_logit", "prior_logit"):
        ours[name] = latent.distribution(ours[name].flatten(-2))
    compare_outputs(golden, "out/", ours, 1e-4, besides="out/imag_")


def test_losses_of_every_step(golden):
    terms, metrics, _ = golden.loss()
    ours = {key: terms.pop(name) / scale for key, (name, scale) in TERMS.items() if name in terms}
    assert terms.keys() == {"policy", "value"}
    assert {f"lossbt/{key}" for key in ours} <= golden.data.keys()
    compare_outputs(golden, "lossbt/", ours, 1e-4)
    close(terms["policy"].mean(), golden.data["loss/actor"], 1e-4, "actor")
    close(terms["value"].mean(), golden.data["loss/critic"], 1e-4, "critic")
    names = {"policy_entropy": "policy/entropy", "prior_ent": "world_model/prior_entropy"}
    names |= {"post_ent": "world_model/posterior_entropy"}
    compare_outputs(golden, "metric/", {key: metrics[ours] for key, ours in names.items()}, 1e-4, "metric/adv_mean")


def test_imagination(golden):
    ours, normalizer = golden.imagination(), golden.agent.behavior.normalizer
    steps = len(ours["action"])
    close(ours["action"], golden.data["out/imag_action"][:steps], 1e-4, "action")
    close(ours["cont"], golden.data["out/imag_cont"], 1e-4, "continuation")
    close(ours["weight"], golden.data["out/imag_weight"][:steps], 1e-4, "weight")
    close(ours["reward"][1:], golden.data["out/imag_reward"], 1e-4, "reward")
    close(ours["value"][:steps], golden.data["out/imag_value"], 1e-4, "value")
    close(ours["returns"], golden.data["out/imag_return"], 1e-4, "return")
    advantage = (ours["returns"] - ours["value"][:steps]) / normalizer.scale
    close(advantage.mean(), golden.data["metric/adv_mean"], 1e-4, "advantage")


def test_gradients(golden):
    compare_gradients(golden, 1e-3)


def test_three_updates(golden):
    before, normalizer = copy_of_weights(golden), golden.agent.behavior.normalizer
    for update, metrics in enumerate(golden.updates()):
        if update == 0:
            close(normalizer.low, golden.data["state/low/value"], 1e-4, "low percentile")
            close(normalizer.high, golden.data["state/high/value"], 1e-4, "high percentile")
        close(model_loss(metrics), golden.data[f"train{update}/model"], 1e-4, f"world model {update}")
        close(metrics["loss/policy"], golden.data[f"train{update}/actor"], 1e-4, f"actor {update}")
        close(metrics["loss/value"], golden.data[f"train{update}/critic"], 1e-4, f"critic {update}")
    compare_changes(golden, before, 2e-4)
