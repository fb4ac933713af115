import pytest
import torch

from reverie.ops.returns import lambda_return, state_returns


def loop(reward, discount, value, mix, final):
    """R_t = r_t + c_t ((1 - l_t) v_t + l_t R_{t+1}), one number at a time."""
    batch, steps = reward.shape
    out = torch.zeros_like(reward)
    for b in range(batch):
        following = final[b]
        for t in reversed(range(steps)):
            following = reward[b, t] + discount[b, t] * ((1 - mix[b, t]) * value[b, t] + mix[b, t] * following)
            out[b, t] = following
    return out


def test_three_steps_by_hand():
    # lambda 0.5, discount 0.9 everywhere; the return beyond the end is the last value, 30.
    #   R_2 = 3 + 0.9 (0.5 * 30 + 0.5 * 30)   = 30
    #   R_1 = 2 + 0.9 (0.5 * 20 + 0.5 * 30)   = 24.5
    #   R_0 = 1 + 0.9 (0.5 * 10 + 0.5 * 24.5) = 16.525
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    returns = lambda_return(reward, torch.full((1, 3), 0.9), value, 0.5)
    torch.testing.assert_close(returns, torch.tensor([[16.525, 24.5, 30.0]]))


def test_final_replaces_the_last_value():
    # R_2 = 3 + 0.9 (0.5 * 30 + 0.5 * 100) = 61.5; R_1 = 2 + 0.9 (10 + 30.75) = 38.675;
    # R_0 = 1 + 0.9 (5 + 19.3375) = 22.90375.
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    returns = lambda_return(reward, torch.full((1, 3), 0.9), value, 0.5, torch.tensor([100.0]))
    torch.testing.assert_close(returns, torch.tensor([[22.90375, 38.675, 61.5]]))


def test_lambda_zero_bootstraps_at_once():
    # R_t = r_t + 0.9 v_t: 1 + 9, 2 + 18, 3 + 27.
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    returns = lambda_return(reward, torch.full((1, 3), 0.9), value, 0.0)
    torch.testing.assert_close(returns, torch.tensor([[10.0, 20.0, 30.0]]))


def test_lambda_one_is_the_discounted_sum():
    # 1 + 0.5 (2 + 0.5 (3 + 0.5 * 30)) = 6.5; the middle values play no part.
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1e6, 1e6, 30.0]])
    returns = lambda_return(reward, torch.full((1, 3), 0.5), value, 1.0)
    torch.testing.assert_close(returns, torch.tensor([[6.5, 11.0, 18.0]]))


def test_zero_discount_cuts_everything_behind_it():
    # The episode terminates behind step 1: R_1 = r_1 whatever comes later.
    reward, discount = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.9, 0.0, 0.9]])
    one = lambda_return(reward, discount, torch.tensor([[10.0, 20.0, 30.0]]), 0.5)
    other = lambda_return(reward, discount, torch.tensor([[10.0, -7.0, 1e5]]), 0.5)
    # R_1 = 2, R_0 = 1 + 0.9 (0.5 * 10 + 0.5 * 2) = 6.4.
    torch.testing.assert_close(one[:, :2], torch.tensor([[6.4, 2.0]]))
    torch.testing.assert_close(other[:, :2], one[:, :2])


def test_mix_may_differ_by_step():
    # The mix of step 1 is 0 (a truncated episode): R_1 = 2 + 0.9 * 20 = 20 bootstraps fully,
    # R_0 = 1 + 0.9 (0.5 * 10 + 0.5 * 20) = 14.5, R_2 = 3 + 0.9 * 30 = 30.
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    returns = lambda_return(reward, torch.full((1, 3), 0.9), value, torch.tensor([[0.5, 0.0, 0.5]]))
    torch.testing.assert_close(returns, torch.tensor([[14.5, 20.0, 30.0]]))


@pytest.mark.parametrize("steps", [1, 2, 15])
@pytest.mark.parametrize("given", [False, True])
def test_against_a_loop(steps, given):
    torch.manual_seed(steps)
    reward, value = torch.randn(4, steps), torch.randn(4, steps)
    discount, mix = torch.rand(4, steps), torch.rand(4, steps)
    final = torch.randn(4) if given else None
    expected = loop(reward, discount, value, mix, value[:, -1] if final is None else final)
    torch.testing.assert_close(lambda_return(reward, discount, value, mix, final), expected)
    expected = loop(reward, discount, value, torch.full_like(mix, 0.95), value[:, -1] if final is None else final)
    torch.testing.assert_close(lambda_return(reward, discount, value, 0.95, final), expected)


def test_slices_of_dreamer_v3():
    """States 0..H with aligned arrays (r[1:], c[1:], v[1:]): the arrival in state t + 1 pays for the action in t."""
    # States 0, 1, 2. Reward, continuation and value of state 0 must not matter; lambda 0.5.
    #   R_1 = r_2 + c_2 v_2 = 3 + 0.8 * 5 = 7
    #   R_0 = r_1 + c_1 (0.5 v_1 + 0.5 R_1) = 2 + 0.5 (2 + 3.5) = 4.75
    for start in (0.0, 99.0):
        reward = torch.tensor([[start, 2.0, 3.0]])
        going_on, value = torch.tensor([[start, 0.5, 0.8]]), torch.tensor([[start, 4.0, 5.0]])
        returns = lambda_return(reward[:, 1:], going_on[:, 1:], value[:, 1:], 0.5)
        torch.testing.assert_close(returns, torch.tensor([[4.75, 7.0]]))


def test_slices_of_dreamer_v1_and_v2():
    """(r[:-1], c[:-1], v[1:]): the value of a state includes the reward of that state."""
    # R_1 = r_1 + c_1 v_2 = 2 + 0.5 * 5 = 4.5, R_0 = r_0 + c_0 (0.5 v_1 + 0.5 R_1) = 1 + 0.9 (2 + 2.25) = 4.825.
    reward, going_on = torch.tensor([[1.0, 2.0, 99.0]]), torch.tensor([[0.9, 0.5, 99.0]])
    value = torch.tensor([[99.0, 4.0, 5.0]])
    returns = lambda_return(reward[:, :-1], going_on[:, :-1], value[:, 1:], 0.5)
    torch.testing.assert_close(returns, torch.tensor([[4.825, 4.5]]))


def test_gradients_flow_to_rewards_discounts_and_values():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda r, c, v: lambda_return(r, c, v, 0.95), inputs)


def test_state_returns_equal_a_loop():
    """The slice of Dreamer v1 and DreamerV2: R_L = v_L, R_t = r_t + c_t ((1 - l) v_{t+1} + l R_{t+1})."""
    torch.manual_seed(0)
    reward, discount, value = torch.randn(3, 6), torch.rand(3, 6), torch.randn(3, 6)
    expected = torch.zeros(3, 5)
    for b in range(3):
        following = value[b, 5]
        for t in (4, 3, 2, 1, 0):
            following = reward[b, t] + discount[b, t] * (0.05 * value[b, t + 1] + 0.95 * following)
            expected[b, t] = following
    torch.testing.assert_close(state_returns(reward, discount, value, 0.95), expected)


def test_state_returns_by_hand():
    # Rewards 1, 2, 4 of the states, discount 0.5, values 10, 20, 30: R_2 = 30 is the bootstrap alone.
    #   R_1 = 2 + 0.5 (0.5 * 30 + 0.5 * 30) = 17;  R_0 = 1 + 0.5 (0.5 * 20 + 0.5 * 17) = 10.25
    reward, value = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    returns = state_returns(reward, torch.full((1, 3), 0.5), value, 0.5)
    torch.testing.assert_close(returns, torch.tensor([[10.25, 17.0]]))
