"""Parity with the official Dreamer v1: same weights, same batch, samples replaced by the mode."""

import pytest
import torch
from golden_dreamer_v1 import golden_agent
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


@pytest.fixture(params=["image", "pcont"])
def golden(request):
    return golden_agent(request.param)


def test_predictions(golden):
    ours = golden.predictions()
    ours["recon_image"] = ours["recon_image"] - 0.5
    compare_outputs(golden, "out/", ours, 1e-4, besides="out/imag_")


def test_losses(golden):
    terms, metrics, _ = golden.loss()
    for name, count in entries(golden).items():
        # Ours are without the constants of normal densities.
        ours = terms.pop("reward" if name == "reward" else f"reconstruction/{name}").mean()
        close(ours, golden.data[f"loss/{name}"] - count * NORMAL_CONSTANT, 1e-4, name)
    for half in ("dynamics", "representation"):
        close(terms.pop(half).mean(), golden.data["loss/kl"], 1e-4, half)
    if "continue" in terms:
        close(terms.pop("continue").mean(), golden.data["loss/pcont"], 1e-4, "continue")
    close(terms.pop("policy").mean(), golden.data["loss/actor"], 1e-4, "actor")
    constant = NORMAL_CONSTANT * golden.starts * metrics["imagination/weight"].item()
    close(terms.pop("value").mean(), golden.data["loss/value"] - constant, 1e-4, "value")
    assert not terms


def test_imagination(golden):
    ours, data = golden.imagination(), golden.data
    ours = {name: ours[name].unflatten(1, golden.batch["reward"].shape) for name in ("reward", "weight", "returns")}
    if golden.starts != 1:
        assert torch.all(ours["weight"][:, :, -1] == 0)
        ours = {name: value[:, :, :-1] for name, value in ours.items()}
    close(ours["reward"][1:].flatten(1), data["out/imag_reward"], 1e-4, "reward")
    close(ours["weight"].flatten(1), data["out/imag_weight"], 1e-4, "weight")
    close(ours["returns"].flatten(1), data["out/imag_return"], 1e-4, "return")


def test_gradients(golden):
    compare_gradients(golden, 1e-3)


def test_three_updates(golden):
    before, constants = copy_of_weights(golden), NORMAL_CONSTANT * sum(entries(golden).values())
    for update, metrics in enumerate(golden.updates()):
        official = {name: golden.data[f"train{update}/{name}"] for name in ("model", "actor", "value")}
        # Our two halves of the KL have its value each.
        model = model_loss(metrics) - metrics["loss/representation"]
        close(model, official["model"] - constants, 1e-4, f"world model {update}")
        # With ends the returns of both signs nearly cancel in their mean, which is the actor's loss.
        close(metrics["loss/policy"], official["actor"], 1e-3, f"actor {update}")
        constant = NORMAL_CONSTANT * golden.starts * metrics["imagination/weight"].item()
        close(metrics["loss/value"], official["value"] - constant, 1e-4, f"value {update}")
    compare_changes(golden, before, 1e-4)
