"""Parity with the official DreamerV2: same weights, same batch, samples replaced by the mode."""

import pytest
from golden_dreamer_v2 import SETTINGS, golden_agent
from golden_files import (
    NORMAL_CONSTANT,
    close,
    compare_changes,
    compare_gradients,
    compare_outputs,
    copy_of_weights,
    entries,
    model_loss,
)


@pytest.fixture(params=SETTINGS)
def golden(request):
    return golden_agent(request.param)


def test_predictions(golden):
    ours = golden.predictions()
    if "recon_image" in ours:
        ours["recon_image"] = ours["recon_image"] - 0.5
        ours["discount_pred"] = ours["cont_prob"]
    compare_outputs(golden, "out/", ours, 1e-4, besides="out/imag_")


def test_losses(golden):
    terms, metrics, _ = golden.loss()
    data, scales = golden.data, golden.agent.world_model.scales
    for name, count in entries(golden).items():
        # Ours are without the constants of normal densities.
        ours = terms.pop("reward" if name == "reward" else f"reconstruction/{name}").mean()
        close(ours, data[f"loss/{name}"] - count * NORMAL_CONSTANT, 1e-4, name)
    kl = (terms.pop("dynamics") + terms.pop("representation")) / (scales.dynamics + scales.representation)
    close(kl.mean(), data["loss/kl"], 1e-4, "kl")
    close(metrics["world_model/kl"], data["loss/kl"], 1e-4, "kl metric")
    if "loss/discount" in data:
        close(terms.pop("continue").mean() / scales.continuation, data["loss/discount"], 1e-4, "discount")
    close(terms.pop("policy").mean(), data["loss/actor"], 1e-4, "actor")
    constant = NORMAL_CONSTANT * metrics["imagination/weight"].item()
    close(terms.pop("value").mean(), data["loss/critic"] - constant, 1e-4, "critic")
    assert not terms
    names = {"actor_ent": "policy/entropy", "prior_ent": "world_model/prior_entropy"}
    names |= {"post_ent": "world_model/posterior_entropy"}
    compare_outputs(golden, "metric/", {key: metrics[ours] for key, ours in names.items()}, 1e-4)


def test_imagination(golden):
    ours, data = golden.imagination(), golden.data
    close(ours["action"], data["out/imag_action"][1:], 1e-4, "action")
    close(ours["reward"], data["out/imag_reward"], 1e-4, "reward")
    discount = ours["cont"] * golden.agent.behavior.settings.discount
    close(discount, data["out/imag_discount"], 1e-4, "discount")
    close(ours["weight"], data["out/imag_weight"][: len(ours["weight"])], 1e-4, "weight")
    close(ours["returns"], data["out/imag_target"], 1e-4, "return")


def test_gradients(golden):
    compare_gradients(golden, 1e-3)


def test_three_updates(golden):
    before, constants = copy_of_weights(golden), NORMAL_CONSTANT * sum(entries(golden).values())
    for update, metrics in enumerate(golden.updates()):
        official = {name: golden.data[f"train{update}/{name}"] for name in ("model", "actor", "critic")}
        close(model_loss(metrics), official["model"] - constants, 1e-4, f"world model {update}")
        close(metrics["loss/policy"], official["actor"], 1e-4, f"actor {update}")
        constant = NORMAL_CONSTANT * metrics["imagination/weight"].item()
        close(metrics["loss/value"], official["critic"] - constant, 1e-4, f"critic {update}")
    compare_changes(golden, before, 1e-4)
