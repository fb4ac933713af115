from dataclasses import replace

import pytest
import torch
import torch.nn.functional as functional

from reverie.errors import ConfigError
from reverie.nn.cells import BlockGRU, ClassicGRU, Memoryless, NormGRU, ResetAfterGRU
from reverie.nn.layers import Initializer, NetworkStyle, plain_style

NORMAL = Initializer("truncated_normal", "in")
RMS = NetworkStyle(norm="rms", activation="silu", kernel=NORMAL, output_kernel=NORMAL)
LAYER = replace(RMS, norm="layer", kernel=Initializer("truncated_normal", "average"))
D, Z, A, HIDDEN, BLOCKS = 12, 10, 3, 5, 4
INPUTS = {"stochastic": Z, "action": A, "hidden": HIDDEN}


def rms_silu(x, scale):
    return functional.silu(x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-4) * scale)


def block_linear(x, layer):
    """einsum('...ki,kio->...ko') on blocks of the last axis."""
    blocks = layer.weight.shape[0]
    y = torch.einsum("nki,kio->nko", x.reshape(x.shape[0], blocks, -1), layer.weight)
    return y.reshape(x.shape[0], -1) + layer.bias


def naive_block_gru(cell, deter, stoch, action):
    """The official formula, with the projections repeated for every block and concatenated behind its slice of h."""
    action = action / torch.maximum(torch.ones(()), action.abs())
    x0 = rms_silu(
        deter @ cell.from_deterministic.weight.T + cell.from_deterministic.bias, cell.norm_deterministic.scale
    )
    x1 = rms_silu(stoch @ cell.from_stochastic.weight.T + cell.from_stochastic.bias, cell.norm_stochastic.scale)
    x2 = rms_silu(action @ cell.from_action.weight.T + cell.from_action.bias, cell.norm_action.scale)
    x = torch.cat([x0, x1, x2], -1)[:, None].repeat(1, cell.blocks, 1)
    slices = deter.reshape(deter.shape[0], cell.blocks, -1)
    x = torch.cat([slices, x], -1).reshape(deter.shape[0], -1)
    x = rms_silu(block_linear(x, cell.hidden), cell.norm_hidden.scale)
    gates = block_linear(x, cell.gates).reshape(x.shape[0], cell.blocks, -1)
    reset, candidate, update = (gate.reshape(x.shape[0], -1) for gate in gates.chunk(3, -1))
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    update = torch.sigmoid(update - 1)
    return update * candidate + (1 - update) * deter


def naive_norm_gru(cell, deter, stoch, action):
    """The code of 2023: x = silu(LN(W [z, a])); LN(W [h, x]) split in reset, candidate, update."""
    action = action / torch.maximum(torch.ones(()), action.abs())
    x = torch.cat([stoch, action], -1) @ cell.input.weight.T
    x = functional.silu(layer_norm(x) * cell.norm_input.scale + cell.norm_input.shift)
    gates = torch.cat([deter, x], -1) @ cell.gates.weight.T
    gates = layer_norm(gates) * cell.norm_gates.weight + cell.norm_gates.bias
    reset, candidate, update = gates.chunk(3, -1)
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    update = torch.sigmoid(update - 1)
    return update * candidate + (1 - update) * deter


def layer_norm(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).square().mean(-1, keepdim=True) + 1e-3)


def make(kind):
    torch.manual_seed(0)
    cell = BlockGRU(D, **INPUTS, blocks=BLOCKS, style=RMS) if kind == "block" else NormGRU(D, **INPUTS, style=LAYER)
    for parameter in cell.parameters():
        # Every scale, shift and bias away from its trivial beginning, every kernel large enough to matter.
        torch.nn.init.normal_(parameter, 0.3, 0.5)
    return cell


NAIVE = {"block": naive_block_gru, "norm": naive_norm_gru}


@pytest.mark.parametrize("kind", ["block", "norm"])
def test_a_step_equals_the_naive_formula(kind):
    cell = make(kind)
    deter, stoch, action = torch.randn(6, D).tanh(), torch.randn(6, Z), 2 * torch.randn(6, A)
    ours = cell(deter, stoch, cell.embed_action(action), cell.prepare(torch.float32))
    torch.testing.assert_close(ours, NAIVE[kind](cell, deter, stoch, action), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["block", "norm"])
def test_gradients_equal_those_of_the_naive_formula(kind):
    cell = make(kind)
    deter, stoch = torch.randn(6, D, requires_grad=True), torch.randn(6, Z, requires_grad=True)
    action, weight = torch.rand(6, A), torch.randn(6, D)
    action.requires_grad_()
    inputs = (deter, stoch, action, *cell.parameters())
    ours = cell(deter, stoch, cell.embed_action(action), cell.prepare(torch.float32))
    ours_gradients = torch.autograd.grad((ours * weight).sum(), inputs)
    naive_gradients = torch.autograd.grad((NAIVE[kind](cell, deter, stoch, action) * weight).sum(), inputs)
    for gradient, expected in zip(ours_gradients, naive_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["block", "norm"])
def test_actions_beyond_one_count_as_one(kind):
    cell = make(kind)
    action = torch.tensor([[0.5, 3.0, -7.0]])
    torch.testing.assert_close(cell.embed_action(action), cell.embed_action(torch.tensor([[0.5, 1.0, -1.0]])))


@pytest.mark.parametrize("kind", ["block", "norm"])
def test_the_bound_of_actions_passes_no_gradient_through_the_divisor(kind):
    # a / sg(max(1, |a|)) has the slope 1 / |a| outside [-1, 1], where clipping would have 0.
    cell = make(kind)
    outside = torch.tensor([[4.0, 0.0, 0.0]], requires_grad=True)
    on_the_edge = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(cell.embed_action(outside).sum(), outside)
    (reference,) = torch.autograd.grad(cell.embed_action(on_the_edge).sum(), on_the_edge)
    torch.testing.assert_close(gradient[0, 0], reference[0, 0] / 4)
    assert gradient[0, 0] != 0


@pytest.mark.parametrize("kind", ["block", "norm"])
def test_embed_action_of_a_sequence_equals_step_by_step(kind):
    cell = make(kind)
    actions = torch.randn(2, 4, A)
    together = cell.embed_action(actions)
    torch.testing.assert_close(together[:, 2], cell.embed_action(actions[:, 2]))


@pytest.mark.parametrize("kind", ["block", "norm"])
def test_bfloat16(kind):
    cell = make(kind)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    deter, stoch, action = torch.randn(6, D).tanh(), torch.randn(6, Z), torch.rand(6, A)
    wide = cell(deter, stoch, cell.embed_action(action), cell.prepare(torch.float32))
    low = torch.bfloat16
    narrow = cell(deter.to(low), stoch.to(low), cell.embed_action(action.to(low)), cell.prepare(low))
    assert narrow.dtype == low
    torch.testing.assert_close(narrow.float(), wide, rtol=0.1, atol=0.05)


def test_a_new_cell_mostly_keeps_its_state():
    # With zero gates the update is sigmoid(-1) = 0.268941 and the candidate 0: h' = 0.731059 h.
    for cell in (
        BlockGRU(D, **INPUTS, blocks=BLOCKS, style=replace(RMS, kernel=NORMAL.scaled(0))),
        NormGRU(D, **INPUTS, style=replace(LAYER, kernel=NORMAL.scaled(0))),
    ):
        h = torch.randn(2, D)
        new = cell(h, torch.randn(2, Z), cell.embed_action(torch.randn(2, A)), cell.prepare(torch.float32))
        torch.testing.assert_close(new, 0.731059 * h, rtol=1e-5, atol=1e-6)


def test_parameter_counts_by_hand():
    # BlockGRU: projections 12x5+5 + 10x5+5 + 3x5+5 = 140, their scales 15; hidden 4 blocks of (3 + 15) x 3 = 216, bias
    # 12, scale 12; gates 4 blocks of 3 x 9 = 108, bias 36. Together 539.
    assert sum(p.numel() for p in make("block").parameters()) == 539
    # NormGRU, no biases: 13x5 = 65, scale and shift 10; 17 x 36 = 612, scale and shift 72. Together 759.
    assert sum(p.numel() for p in make("norm").parameters()) == 759


def test_state_that_is_no_multiple_of_the_blocks_is_refused():
    with pytest.raises(ConfigError, match="blocks"):
        BlockGRU(10, **INPUTS, blocks=4, style=RMS)


# ---------------------------------------------------------------- older agents


def run(cell, h, z, action):
    return cell(h, z, cell.embed_action(action), cell.prepare(torch.float32))


def hidden_layer(cell, z, action, activation):
    return activation(torch.cat([z, action], -1) @ cell.input.weight.T + cell.input.bias)


def randomized(cell):
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, 0, 0.4)
    return cell


def older_inputs():
    torch.manual_seed(3)
    return torch.randn(4, D).tanh(), torch.randn(4, Z), torch.rand(4, A) * 2 - 1


def test_reset_after_gru_is_that_of_torch():
    h, z, action = older_inputs()
    cell = randomized(ResetAfterGRU(D, **INPUTS, style=plain_style("elu")))
    official = torch.nn.GRUCell(HIDDEN, D)
    official.weight_ih.data.copy_(cell.from_input.weight)
    official.bias_ih.data.copy_(cell.from_input.bias)
    official.weight_hh.data.copy_(cell.from_state.weight)
    official.bias_hh.data.copy_(cell.from_state.bias)
    torch.testing.assert_close(run(cell, h, z, action), official(hidden_layer(cell, z, action, functional.elu), h))


def test_classic_gru_resets_h_before_the_product():
    h, z, action = older_inputs()
    cell = randomized(ClassicGRU(D, **INPUTS, style=plain_style("relu")))
    x = hidden_layer(cell, z, action, functional.relu)
    gates = torch.sigmoid(torch.cat([x, h], -1) @ cell.gates.weight.T + cell.gates.bias)
    reset, update = gates[:, :D], gates[:, D:]
    candidate = torch.tanh(torch.cat([x, reset * h], -1) @ cell.candidate.weight.T + cell.candidate.bias)
    torch.testing.assert_close(run(cell, h, z, action), update * h + (1 - update) * candidate)


def test_the_gates_of_the_classic_gru_begin_half_open():
    cell = ClassicGRU(D, **INPUTS, style=plain_style("relu"))
    assert (cell.gates.bias == 1).all()
    assert (cell.candidate.bias == 0).all()


def test_norm_gru_of_dreamer_v2_has_biases_and_no_norm_in_its_input_layer():
    h, z, action = older_inputs()
    cell = randomized(NormGRU(D, **INPUTS, style=plain_style("elu")))
    x = hidden_layer(cell, z, action, functional.elu)
    gates = layer_norm(torch.cat([h, x], -1) @ cell.gates.weight.T + cell.gates.bias)
    reset, candidate, update = (gates * cell.norm_gates.weight + cell.norm_gates.bias).chunk(3, -1)
    update = torch.sigmoid(update - 1)
    expected = update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * h
    torch.testing.assert_close(run(cell, h, z, action), expected)


def test_a_memoryless_cell_forgets_h():
    h, z, action = older_inputs()
    cell = randomized(Memoryless(**INPUTS, style=plain_style("relu")))
    torch.testing.assert_close(run(cell, h, z, action), hidden_layer(cell, z, action, functional.relu))
    assert torch.equal(run(cell, h, z, action), run(cell, -h, z, action))
    assert not cell.remembers and ClassicGRU.remembers
