import pytest
import torch

from reverie.behaviors.controllers import HiddenController, LinearController
from reverie.errors import ConfigError


@pytest.mark.parametrize(
    ("controller", "count"),
    [
        (LinearController(288, 3), 867),  # CarRacing, z and h: (32 + 256 + 1) 3
        (LinearController(1088, 1, bias=False), 1088),  # Take Cover, z, c and h: 64 + 512 + 512
        (LinearController(32, 3), 99),  # z alone: (32 + 1) 3
        (HiddenController(32, 3), 1443),  # z and a hidden layer: (32 + 1) 40 + (40 + 1) 3
    ],
)
def test_parameter_counts_of_the_paper(controller, count):
    assert controller.count == count
    assert controller(torch.randn(2, count), torch.randn(2, 5, controller.features)).shape == (2, 5, controller.actions)


def test_a_linear_controller_by_hand():
    # b = (0.1, -0.2), W = ((1, 2), (3, 4), (5, 6)), x = (1, 0, -1):
    # x W + b = (1 - 5 + 0.1, 2 - 6 - 0.2) = (-3.9, -4.2).
    parameters = torch.tensor([[0.1, -0.2, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    x = torch.tensor([[[1.0, 0.0, -1.0]]])
    actions = LinearController(3, 2)(parameters, x)
    torch.testing.assert_close(actions, torch.tensor([[[-3.9, -4.2]]]).tanh())
    # Without b the first two numbers belong to W: W = ((0.1, -0.2), (1, 2), (3, 4)), x W = (0.1 - 3, -0.2 - 4).
    actions = LinearController(3, 2, bias=False)(parameters[:, :6], x)
    torch.testing.assert_close(actions, torch.tensor([[[-2.9, -4.2]]]).tanh())


def test_a_hidden_controller_by_hand():
    # b1 = (0.5, 0), W1 = ((1, -1)), b2 = 0.25, W2 = (2, 3); x = 1:
    # hidden tanh(1.5, -1) = (0.905148, -0.761594),
    # action tanh(1.810297 - 2.284782 + 0.25) = tanh(-0.224486) = -0.220791.
    controller = HiddenController(1, 1, hidden=2)
    assert controller.count == 7
    actions = controller(torch.tensor([[0.5, 0.0, 1.0, -1.0, 0.25, 2.0, 3.0]]), torch.tensor([[[1.0]]]))
    torch.testing.assert_close(actions, torch.tensor([[[-0.220791]]]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "controller", [LinearController(6, 2), LinearController(6, 2, bias=False), HiddenController(6, 2, 5)]
)
def test_a_population_equals_a_loop_over_candidates(controller):
    torch.manual_seed(0)
    parameters, inputs = torch.randn(4, controller.count), torch.randn(4, 3, 6)
    together = controller(parameters, inputs)
    assert together.shape == (4, 3, 2)
    for candidate in range(4):
        for rollout in range(3):
            alone = controller(parameters[candidate : candidate + 1], inputs[candidate, rollout][None, None])
            torch.testing.assert_close(together[candidate, rollout], alone[0, 0])


def test_zeros_do_nothing():
    # The search begins at zero: every action is 0.
    for controller in (LinearController(6, 2), HiddenController(6, 2)):
        assert not controller(torch.zeros(1, controller.count), torch.randn(1, 4, 6)).any()


def test_actions_have_the_dtype_of_the_inputs():
    # Evolution gives float64 parameters.
    controller = LinearController(6, 2)
    parameters = torch.randn(3, controller.count, dtype=torch.float64)
    assert controller(parameters, torch.randn(3, 1, 6)).dtype == torch.float32


def test_wrong_shapes_are_refused():
    controller = LinearController(6, 2)
    with pytest.raises(ConfigError, match=r"parameters \[P, 14\], but got \[3, 12\]"):
        controller(torch.zeros(3, 12), torch.zeros(3, 1, 6))
    with pytest.raises(ConfigError, match=r"inputs \[P, R, F\] = \[3, R, 6\], but got \[3, 1, 7\]"):
        controller(torch.zeros(3, 14), torch.zeros(3, 1, 7))
    with pytest.raises(ConfigError, match="3 candidates"):
        HiddenController(6, 2, 5)(torch.zeros(3, 47), torch.zeros(2, 1, 6))
