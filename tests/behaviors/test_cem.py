import pytest
import torch

from reverie.behaviors.cem import CrossEntropyPlanner
from reverie.errors import ConfigError, NumericalError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def quadratic(targets):
    """Returns that are greatest, 0, at the targets [E, H, A], and steeper in later numbers."""
    slopes = torch.linspace(1, 5, targets[0].numel()).view(targets.shape[1:])
    return lambda actions: -(slopes * (actions - targets[:, None]) ** 2).sum((-1, -2))


def test_it_finds_the_optimum_of_a_quadratic_at_the_papers_settings():
    targets = torch.empty(2, 12, 3).uniform_(-0.9, 0.9, generator=seeded(1))
    plan = CrossEntropyPlanner().search(quadratic(targets), 2, 3, device="cpu", generator=seeded())
    # 36 numbers, of which a tenth of 1000 candidates tells ten times: most of the way, not all of it.
    assert (plan.mean - targets).abs().max() < 0.15
    assert (plan.mean - targets).abs().mean() < 0.04
    first = CrossEntropyPlanner().plan(quadratic(targets), 2, 3, device="cpu", generator=seeded())
    assert torch.equal(first, plan.mean[:, 0])
    longer = CrossEntropyPlanner(iterations=40).search(quadratic(targets), 2, 3, device="cpu", generator=seeded())
    torch.testing.assert_close(longer.mean, targets, atol=1e-3, rtol=0)
    assert 1e-3 <= longer.deviation.min() <= longer.deviation.max() < 3e-3  # near the floor


def test_an_optimum_outside_the_bounds_is_planned_at_the_bound():
    targets = torch.tensor([[[3.0], [-3.0]]])
    plan = CrossEntropyPlanner(2, 100, 5, 10).search(quadratic(targets), 1, 1, device="cpu", generator=seeded())
    assert plan.mean.tolist() == [[[1.0], [-1.0]]]


def test_candidates_are_clipped_before_they_are_scored_and_refitted():
    seen = []

    def score(actions):
        seen.append(actions.clone())
        return actions.sum((-1, -2))

    planner = CrossEntropyPlanner(horizon=3, candidates=200, iterations=2, elites=200)
    plan = planner.search(score, 1, 2, device="cpu", generator=seeded())
    assert [tuple(actions.shape) for actions in seen] == [(1, 200, 3, 2)] * 2
    # 32 % of normal numbers lie beyond 1.
    assert (seen[0].abs() == 1).float().mean() == pytest.approx(0.317, abs=0.06)
    assert max(actions.abs().max() for actions in seen) == 1
    # All candidates are elites, so the distribution is that of the clipped candidates: a standard normal number that is
    # clipped to [-1, 1] has variance 0.516.
    torch.testing.assert_close(plan.mean, seen[1].mean(1))
    first = planner.__class__(3, 200, 1, 200).search(score, 1, 2, device="cpu", generator=seeded())
    assert first.deviation.square().mean().item() == pytest.approx(0.516, abs=0.05)


def test_without_clipping_the_search_does_not_narrow_where_all_candidates_are_equally_good():
    seen = []

    def score(actions):
        seen.append(actions.clone())
        return actions.sum((-1, -2)) * 0

    planner = CrossEntropyPlanner(horizon=3, candidates=2000, iterations=4, elites=2000, clip=False)
    plan = planner.search(score, 1, 2, device="cpu", generator=seeded())
    assert max(actions.abs().max() for actions in seen) == 1, "only what can be carried out is scored"
    assert plan.deviation.square().mean().item() == pytest.approx(1, abs=0.05)
    clipped = CrossEntropyPlanner(3, 2000, 4, 2000).search(score, 1, 2, device="cpu", generator=seeded())
    assert clipped.deviation.square().mean().item() < 0.4
    # Toward a target beyond the bound the mean goes on, and what is carried out stays within.
    target = torch.tensor([[[1.0], [-1.0]]])
    planner = CrossEntropyPlanner(2, 100, 5, 10, clip=False)
    assert planner.search(quadratic(target), 1, 1, device="cpu", generator=seeded()).mean.abs().min() > 1
    assert planner.plan(quadratic(target), 1, 1, device="cpu", generator=seeded()).tolist() == [[1.0]]


def test_one_refit_by_hand():
    drawn = []

    def score(actions):
        drawn.append(actions)
        return torch.tensor([[5.0, 1.0, 7.0, 6.0], [-1.0, -4.0, -3.0, -2.0]])

    plan = CrossEntropyPlanner(1, 4, 1, 2).search(score, 2, 1, device="cpu", generator=seeded())
    noise = torch.randn(2, 4, 1, 1, generator=seeded()).clamp(-1, 1)
    assert torch.equal(drawn[0], noise)
    # Elites: candidates 2 and 3 of the first environment, 0 and 3 of the second. Of two numbers a, b the mean is
    # (a + b) / 2 and the biased variance ((a - b) / 2)^2.
    for row, (i, j) in enumerate([(2, 3), (0, 3)]):
        a, b = noise[row, i].item(), noise[row, j].item()
        assert plan.mean[row].item() == pytest.approx((a + b) / 2, abs=1e-6)
        assert plan.deviation[row].item() == pytest.approx((((a - b) / 2) ** 2 + 1e-6) ** 0.5, abs=1e-6)


def test_the_second_iteration_draws_around_the_first_refit():
    seen = []

    def score(actions):
        seen.append(actions)
        return actions[..., 0, 0]

    CrossEntropyPlanner(1, 50, 2, 5).search(score, 1, 1, device="cpu", generator=seeded())
    generator = seeded()
    first = torch.randn(1, 50, 1, 1, generator=generator).clamp(-1, 1)
    elites = first.flatten().sort(descending=True).values[:5]
    deviation = ((elites - elites.mean()).square().mean() + 1e-6).sqrt()
    second = (elites.mean() + deviation * torch.randn(1, 50, 1, 1, generator=generator)).clamp(-1, 1)
    torch.testing.assert_close(seen[1], second)


def test_environments_do_not_influence_each_other():
    planner = CrossEntropyPlanner(4, 60, 4, 6)
    targets = torch.tensor([0.5, -0.5, 0.1])[:, None, None].expand(3, 4, 2)
    changed = targets.clone()
    changed[1] = 0.9
    one = planner.search(quadratic(targets), 3, 2, device="cpu", generator=seeded())
    other = planner.search(quadratic(changed), 3, 2, device="cpu", generator=seeded())
    assert torch.equal(one.mean[[0, 2]], other.mean[[0, 2]])
    assert torch.equal(one.deviation[[0, 2]], other.deviation[[0, 2]])
    assert not torch.equal(one.mean[1], other.mean[1])


def test_seeds_repeat_plans():
    planner = CrossEntropyPlanner(3, 50, 3, 5)
    score = quadratic(torch.full((1, 3, 2), 0.3))
    plans = [planner.plan(score, 1, 2, device="cpu", generator=seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])
    torch.manual_seed(5)
    own = planner.plan(score, 1, 2, device="cpu")
    torch.manual_seed(5)
    assert torch.equal(planner.plan(score, 1, 2, device="cpu"), own)


def test_no_gradients_are_kept():
    weight = torch.ones((), requires_grad=True)
    assert not CrossEntropyPlanner(2, 10, 2, 2).plan(lambda a: (weight * a).sum((-1, -2)), 1, 1, device="cpu").grad_fn


def test_candidates_are_ruled_out_by_minus_infinity():
    def score(actions):
        total = actions.sum((-1, -2))
        return torch.where(total > 0, -torch.inf, total)

    plan = CrossEntropyPlanner(1, 100, 3, 10).plan(score, 1, 1, device="cpu", generator=seeded())
    assert -0.2 < plan.item() <= 0  # 1, were positive actions allowed


@pytest.mark.parametrize("name", ["horizon", "candidates", "iterations", "elites"])
def test_bad_settings(name):
    for value in (0, 2.5, True):
        with pytest.raises(ConfigError, match=f"planner got {name} = {value}; choose a whole number .* at least 1"):
            CrossEntropyPlanner(**{name: value})
    with pytest.raises(ConfigError, match="elites = 11 of candidates = 10; choose at most as many"):
        CrossEntropyPlanner(candidates=10, elites=11)


def test_bad_arguments():
    planner = CrossEntropyPlanner(2, 10, 2, 2)
    for name, arguments in (("batch", (0, 1)), ("action_width", (1, 0))):
        with pytest.raises(ConfigError, match=f"planner got {name} = 0"):
            planner.plan(lambda a: a.sum((-1, -2)), *arguments, device="cpu")
    with pytest.raises(ConfigError, match=r"returns of shape \[3, 10, 2\]; .* \[E, J\] = \[3, 10\]"):
        planner.plan(lambda a: a.sum(-1), 3, 1, device="cpu")
    with pytest.raises(NumericalError, match="returns that are NaN"):
        planner.plan(lambda a: a.sum((-1, -2)) * torch.nan, 3, 1, device="cpu")
