import pytest
import torch

from reverie.ops.gates import gated_update


def naive(state, reset, candidate, update):
    rate = torch.sigmoid(update - 1)
    return rate * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - rate) * state


def test_forward_by_hand():
    # reset 0 opens half: tanh(0.5 * 2) = 0.761594; update 1 gives the rate sigmoid(0) = 0.5:
    # h' = 0.5 * 0.761594 + 0.5 * 0.2 = 0.480797.
    h = gated_update(*(torch.tensor([x]) for x in (0.2, 0.0, 2.0, 1.0)))
    assert h.item() == pytest.approx(0.480797, abs=1e-6)
    # update 0 has the rate sigmoid(-1) = 0.268941: 0.268941 * 0.761594 + 0.731059 * 0.2 = 0.351036.
    h = gated_update(*(torch.tensor([x]) for x in (0.2, 0.0, 2.0, 0.0)))
    assert h.item() == pytest.approx(0.351036, abs=1e-6)


def test_gradcheck_in_float64():
    torch.manual_seed(0)
    inputs = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(gated_update, inputs)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_forward_and_backward_equal_those_of_the_naive_formula(shape):
    torch.manual_seed(0)
    inputs = [torch.randn(shape, requires_grad=True) for _ in range(4)]
    weight = torch.randn(shape)
    ours, expected = gated_update(*inputs), naive(*inputs)
    torch.testing.assert_close(ours, expected)
    ours_gradients = torch.autograd.grad((ours * weight).sum(), inputs)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    for gradient, reference in zip(ours_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6)


def test_gates_that_are_slices_of_one_tensor():
    torch.manual_seed(0)
    gates, state = torch.randn(4, 15, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    ours = torch.autograd.grad(gated_update(state, *gates.chunk(3, -1)).sum(), (state, gates))
    expected = torch.autograd.grad(naive(state, *gates.chunk(3, -1)).sum(), (state, gates))
    for gradient, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_closed_and_open_gates():
    state, candidate = torch.tensor([0.3]), torch.tensor([5.0])
    far = torch.tensor([50.0])
    torch.testing.assert_close(gated_update(state, far, candidate, -far), state)
    torch.testing.assert_close(gated_update(state, far, candidate, far), torch.tanh(candidate))
    torch.testing.assert_close(gated_update(state, -far, candidate, far), torch.zeros(1))
