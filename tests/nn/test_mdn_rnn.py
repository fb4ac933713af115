import math

import pytest
import torch

from reverie.errors import ConfigError
from reverie.nn.mdn_rnn import MixtureOutput, MixtureRNN, MixtureState

B, T, Z, A, D, K = 3, 7, 4, 2, 6, 5


def make(restart=True, **options):
    torch.manual_seed(0)
    network = MixtureRNN(Z, A, D, K, restart_input=restart, restart_head=restart, **options)
    for parameter in network.parameters():
        # Biases away from zero, and kernels large enough to matter.
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    return network


def sequence():
    torch.manual_seed(1)
    restarts = torch.zeros(B, T, dtype=torch.bool)
    restarts[0, 0] = restarts[1, 3] = restarts[2, 6] = True
    return torch.randn(B, T, Z), torch.randn(B, T, A), restarts, MixtureState(torch.randn(B, D), torch.randn(B, D))


def values(output):
    return {name: value for name, value in vars(output).items() if value is not None}


def zero(network):
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    return network


@pytest.mark.parametrize(
    ("sizes", "restart", "count"), [((32, 3, 256), False, 422_368), ((64, 1, 512), True, 1_678_785)]
)
def test_parameter_counts_of_the_paper(sizes, restart, count):
    # CarRacing: LSTM (32 + 3 + 256) 1024 + 1024, one bias; head 256 480 + 480.
    # Take Cover: LSTM (64 + 1 + 1 + 512) 2048 + 2048; head 512 961 + 961.
    network = MixtureRNN(*sizes, restart_input=restart, restart_head=restart)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_optional_heads_add_their_layers():
    # Reward 6 + 1, action 6 * 2 + 2.
    plain = sum(parameter.numel() for parameter in make().parameters())
    assert sum(parameter.numel() for parameter in make(reward_head=True, action_head=True).parameters()) == plain + 21


def test_new_weights():
    # Glorot with fan-in Z + A + D = 291 and fan-out 4 D = 1024: sqrt(6 / 1315) = 0.067547.
    torch.manual_seed(0)
    network = MixtureRNN(32, 3, 256)
    for weight in (network.input_weight, network.recurrent_weight):
        assert 0.99 * 0.067547 < weight.abs().max() <= 0.067548
    assert not network.bias.any()
    assert not network.output.bias.any()
    assert "forget_bias" not in network.state_dict()


def test_a_step_of_the_lstm_by_hand():
    # All weights 0: input and output gate sigmoid(0) = 1/2, candidate tanh(0) = 0, forget gate sigmoid(0 + 1) =
    # 0.731059. From c = 2: c' = 1.462117, h' = tanh(1.462117) / 2 = 0.898063 / 2 = 0.449032.
    network = zero(make(restart=False))
    state = MixtureState(torch.ones(1, D), torch.full((1, D), 2.0))
    _, state = network.step(state, torch.ones(1, Z), torch.ones(1, A))
    torch.testing.assert_close(state.cell, torch.full((1, D), 1.462117))
    torch.testing.assert_close(state.hidden, torch.full((1, D), 0.449032))


def naive_step(network, state, x):
    """i, f, g, o from W x + U h + b with one bias; c' = s(f + 1) c + s(i) tanh(g); h' = s(o) tanh(c')."""
    gates = x @ network.input_weight.T + state.hidden @ network.recurrent_weight.T + network.bias
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f + 1) * state.cell + torch.sigmoid(i) * torch.tanh(g)
    return MixtureState(torch.sigmoid(o) * torch.tanh(cell), cell)


@pytest.mark.parametrize("restart", [False, True])
def test_steps_equal_the_formula(restart):
    network = make(restart)
    latents, actions, restarts, state = sequence()
    keep = 1 - restarts[:, 3, None].float()
    x = torch.cat([latents[:, 3], actions[:, 3]] + ([restarts[:, 3, None].float()] if restart else []), -1)
    expected = naive_step(network, MixtureState(state.hidden * keep, state.cell * keep), x)
    _, following = network.step(state, latents[:, 3], actions[:, 3], restarts[:, 3])
    torch.testing.assert_close(following.hidden, expected.hidden)
    torch.testing.assert_close(following.cell, expected.cell)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("restart", [False, True])
def test_a_sequence_equals_repeated_steps(restart, given):
    network = make(restart, reward_head=True, action_head=True)
    latents, actions, restarts, state = sequence()
    together, last = network.observe(latents, actions, restarts if given else None, state)
    for t in range(T):
        output, state = network.step(state, latents[:, t], actions[:, t], restarts[:, t] if given else None)
        for name, value in values(output).items():
            torch.testing.assert_close(values(together)[name][:, t], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last.hidden, state.hidden)
    torch.testing.assert_close(last.cell, state.cell)


def test_gradients_of_a_sequence_equal_those_of_steps():
    network = make()
    latents, actions, _, state = sequence()
    never = torch.zeros(B, T, dtype=torch.bool)
    gradients = []
    for restarts in (None, never):
        output, _ = network.observe(latents, actions, restarts, state)
        loss = sum(network.loss(output, latents, never).values())
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    for gradient, other in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("restart", [False, True])
def test_a_restart_forgets_everything_before(restart):
    network = make(restart)
    latents, actions, restarts, state = sequence()
    output, _ = network.observe(latents, actions, restarts, state)
    changed = latents.clone()
    changed[:, :3] += 1
    other, _ = network.observe(changed, actions, restarts, network.initial_state(B))
    # Row 1 restarts at step 3; rows 0 and 2 remember.
    torch.testing.assert_close(other.means[1, 3:], output.means[1, 3:])
    assert not torch.allclose(other.means[1, :3], output.means[1, :3])
    assert not torch.allclose(other.means[2, 3:6], output.means[2, 3:6])


def test_the_restart_is_an_input_too():
    # From a state of zeros nothing is left to forget, so a difference can only come through the input.
    network, blind = make(), make(restart=False)
    latent, action = torch.randn(B, Z), torch.randn(B, A)
    for model, differs in ((network, True), (blind, False)):
        start = model.initial_state(B)
        means = [model.step(start, latent, action, restart)[0].means for restart in (torch.ones(B), None)]
        assert torch.equal(means[0], means[1]) != differs


def test_the_initial_state_is_zero():
    state = make().initial_state(5)
    assert state.hidden.shape == state.cell.shape == (5, D)
    assert not state.hidden.any()
    assert not state.cell.any()


@pytest.mark.parametrize("restart", [False, True])
def test_layout_of_the_head(restart):
    # Only the bias of the head speaks: its entries are their own numbers 0, 1, 2, ... Column 0 is the restart logit;
    # dimension d then has its 5 weights, 5 means and 5 log-deviations from column 15 d (+ 1) on.
    network = zero(make(restart))
    first = int(restart)
    with torch.no_grad():
        network.output.bias.copy_(torch.arange(first + Z * 3 * K))
    output, _ = network.step(network.initial_state(1), torch.randn(1, Z), torch.randn(1, A))
    columns = first + 15 * torch.arange(4.0)[:, None] + torch.arange(5.0)
    assert torch.equal(output.log_weights[0], columns)
    assert torch.equal(output.means[0], columns + 5)
    assert torch.equal(output.log_deviations[0], columns + 10)
    assert (output.restart_logit is not None) == restart
    if restart:
        assert output.restart_logit.tolist() == [0.0]
    assert output.reward is None
    assert output.action is None


def constant_output(logit, reward=None, action=None):
    """Two steps of a batch of one with all mixtures standard normal."""
    zeros = torch.zeros(1, 2, Z, K)
    return MixtureOutput(zeros, zeros, zeros, torch.tensor([logit]), reward, action)


def test_the_loss_by_hand():
    # Latents 0 in the first step and 2 in the second: log-densities -0.918939 and -2.918939, mean 1.918939.
    # Restart logits 0 and 1 with targets 0 and 1: log 2 = 0.693147, and 10 log(1 + e^-1) = 10 * 0.313262 = 3.132617.
    # Mean 1.912882.
    latents = torch.tensor([0.0, 2.0]).view(1, 2, 1).expand(1, 2, Z)
    terms = make().loss(constant_output([0.0, 1.0]), latents, torch.tensor([[False, True]]))
    assert terms.keys() == {"latent", "restart"}
    torch.testing.assert_close(terms["latent"], torch.tensor(1.918939))
    torch.testing.assert_close(terms["restart"], torch.tensor(1.912882))


def test_the_losses_of_reward_and_action_by_hand():
    # Reward errors 1 and 3: (1 + 9) / 2 = 5. Action errors 0.5 and 0 in the first step, 1 and 1 in the second:
    # (0.25 + 0 + 1 + 1) / 4 = 0.5625.
    network = make(reward_head=True, action_head=True)
    output = constant_output([0.0, 0.0], torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2, A))
    rewards, actions = torch.tensor([[0.0, 5.0]]), torch.tensor([[[0.5, 0.0], [1.0, -1.0]]])
    terms = network.loss(output, torch.zeros(1, 2, Z), torch.zeros(1, 2), rewards, actions)
    assert terms["reward"].item() == 5
    assert terms["action"].item() == 0.5625


def test_heads_and_targets_must_agree():
    network = make()
    output, latents = constant_output([0.0, 0.0]), torch.zeros(1, 2, Z)
    with pytest.raises(ConfigError, match="a head for the restart but no targets"):
        network.loss(output, latents)
    with pytest.raises(ConfigError, match="targets for the reward but no head"):
        network.loss(output, latents, torch.zeros(1, 2), rewards=torch.zeros(1, 2))


def test_samples_of_the_output():
    torch.manual_seed(0)
    network = make()
    output, _ = network.step(network.initial_state(B), torch.randn(B, Z), torch.randn(B, A))
    heaviest = output.means.gather(-1, output.log_weights.argmax(-1, keepdim=True)).squeeze(-1)
    assert torch.equal(output.sample(most_likely=True), heaviest)
    assert output.sample(1.15).shape == (B, Z)


def test_training_on_a_tiny_sequence_lowers_the_loss():
    # z_{t+1} = 0.9 z_t + a_t + 0.05 noise. The best possible loss is that of the noise: log(0.05) + 1.418939 = -1.577;
    # a network that predicts nothing stays near log(std of z) + 1.418939, above 1.4.
    torch.manual_seed(0)
    network = MixtureRNN(1, 1, 16)
    actions = torch.empty(16, 20, 1).uniform_(-1, 1)
    latents = [torch.randn(16, 1)]
    for t in range(20):
        latents.append(0.9 * latents[-1] + actions[:, t] + 0.05 * torch.randn(16, 1))
    z = torch.stack(latents, 1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(300):
        output, _ = network.observe(z[:, :-1], actions, None, network.initial_state(16))
        loss = network.loss(output, z[:, 1:])["latent"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.3
    assert losses[-1] > math.log(0.05) + 1.418939 - 0.5


def test_the_end_of_episodes_is_learned():
    # The latent counts 0, 1, 2, 3 and begins again: the restart follows the 3.
    torch.manual_seed(0)
    network = MixtureRNN(1, 1, 16, restart_input=True, restart_head=True)
    phase = torch.arange(21).expand(8, 21) + torch.arange(8)[:, None]
    latents, restarts = (phase % 4).float()[..., None], phase % 4 == 0
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(100):
        inputs = latents[:, :-1], torch.zeros(8, 20, 1), restarts[:, :-1]
        output, _ = network.observe(*inputs, network.initial_state(8))
        loss = network.loss(output, latents[:, 1:], restarts[:, 1:])["restart"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # In the first steps the network comes from a state of zeros in the middle of a count, which it sees rarely.
    assert torch.equal(output.restart_logit[:, 4:] > 0, restarts[:, 5:])
