"""An agent that learns from the identity environment: any off-by-one between rows shows as chance level."""

import numpy as np
import pytest
import torch

import reverie.envs
from reverie.agents.dreamer_v1 import DreamerV1Config
from reverie.agents.dreamer_v2 import DreamerV2Config
from reverie.agents.dreamer_v3 import DreamerV3Config
from reverie.agents.dreamer_v3_2023 import DreamerV3In2023Config
from reverie.agents.imagination_agent import ImaginationAgent
from reverie.agents.planet import PlaNetConfig
from reverie.envs import EnvironmentSource, make_pool
from reverie.replay import Field, SequenceReplay

NUM_ENVS, ACTIONS = 4, 4
FLAGS = ("is_first", "is_last", "is_terminal")
OLDER = {"deterministic": 64, "hidden": 64, "variables": 8, "vector_units": 64, "vector_layers": 1}
OLDER |= {"batch_size": 8, "batch_length": 16, "horizon": 3}
CONFIGS = {
    2025: DreamerV3Config(
        size="100k",
        deterministic=64,
        variables=8,
        batch_size=8,
        batch_length=16,
        horizon=3,
        learning_rate=2e-3,
        learning_rate_warmup=20,
    ),
    2023: DreamerV3In2023Config(
        size="nano",
        deterministic=64,
        vector_layers=1,
        variables=8,
        classes=8,
        batch_size=8,
        batch_length=16,
        horizon=3,
        model_learning_rate=2e-3,
    ),
    2021: DreamerV2Config(
        **OLDER, classes=8, units=64, reward_layers=1, model_learning_rate=2e-3, reward_scale=10.0, continuation=False
    ),
    2020: DreamerV1Config(**OLDER, units=64, reward_layers=1, free_nats=0.1, kl_scale=0.1, model_learning_rate=2e-3),
    2019: PlaNetConfig(**OLDER, reward_units=64, reward_layers=1, free_nats=0.1, kl_scale=0.1, learning_rate=2e-3),
}


def fill(agent: ImaginationAgent, steps: int, length: int) -> SequenceReplay:
    """A replay of what the agent does, filled as in training: row t holds the action chosen there."""
    assert "reverie/Identity-v0" in reverie.envs.suites.TASKS
    pool = make_pool(EnvironmentSource("reverie/Identity-v0"), NUM_ENVS, 0, "in-process")
    fields = [Field(part.name, part.shape, part.dtype) for part in pool.interface.observations]
    fields += [Field("action", (ACTIONS,), np.dtype(np.float32)), Field("reward", (), np.dtype(np.float32))]
    fields += [Field(flag, (), np.dtype(np.bool_)) for flag in FLAGS]
    fields += [Field(name, shape, dtype, latent=True) for name, (shape, dtype) in agent.latent_fields.items()]
    replay = SequenceReplay(fields, NUM_ENVS, 10_000, length, 0)
    moment, state = pool.reset(), None
    for _ in range(steps):
        observation = {name: torch.from_numpy(value) for name, value in moment.observation.items()}
        action, state = agent.act(observation, torch.from_numpy(moment.is_first), state, purpose="random")
        row = {name: getattr(moment, name) for name in ("reward", *FLAGS)}
        latents = {
            **{name: value.numpy() for name, value in agent.stored_latents(state.latent).items()},
        }
        replay.add({**moment.observation, **row, "action": action.numpy(), **latents})
        moment = pool.step(action.numpy())
    pool.close()
    return replay


def sample(replay: SequenceReplay, count: int) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    batch = replay.sample(count)
    return {name: torch.from_numpy(value) for name, value in batch.data.items()}, batch.index


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request):
    torch.manual_seed(0)
    config = CONFIGS[request.param]
    interface = make_interface()
    agent = config.build(interface)
    agent.optimizer = config.build_optimizer(agent)
    replay = fill(agent, 300, config.batch_length + agent.replay_context)
    for _ in range(220):
        batch, index = sample(replay, config.batch_size)
        _, latents = agent.update(batch)
        values = {name: value.numpy() for name, value in latents.items()}
        replay.update_latents(index, agent.replay_context, values)
    return agent, replay


def make_interface():
    pool = make_pool(EnvironmentSource("reverie/Identity-v0"), 1, 0, "in-process")
    pool.close()
    return pool.interface


@torch.no_grad()
def predictions(agent, batch, states, feature):
    """Predicted reward [B, T] and the action that the reconstruction names [B, T]."""
    (name,) = (part.name for part in agent.interface.observations)
    model = agent.world_model
    reward = model.reward.mean(model.reward(feature))
    decoded = model.decoder.predictions(model.decoder(feature))[name]
    return reward, decoded[..., :ACTIONS].argmax(-1), decoded[..., ACTIONS]


def check(reward, named, number, batch, keep):
    """Rewards are 0 to 0.3 by action: a constant is off by 0.1 on average, a guessed action is right in 1 of 4."""
    (name,) = batch.keys() - {"action", "reward", "deterministic", "stochastic", *FLAGS}
    truth = batch[name]
    assert keep.sum() > 100
    error = (reward - batch["reward"]).abs()[keep].mean().item()
    right = (named == truth[..., :ACTIONS].argmax(-1))[keep].float().mean().item()
    clock = (number - truth[..., ACTIONS]).abs()[keep].mean().item()
    assert error < 0.04, f"reward error {error:.3f}"
    assert right > 0.9, f"right actions {right:.2f}"
    # Step numbers run from 1 to 10: the best constant is off by 2.5.
    assert clock < 1.5, f"step number error {clock:.2f}"


def test_rows_hold_the_action_of_the_row_before(trained):
    """The test's own data: observation and reward at t name the action stored at t - 1."""
    agent, replay = trained
    batch, _ = sample(replay, 16)
    (name,) = (part.name for part in agent.interface.observations)
    later = ~batch["is_first"][:, 1:]
    assert torch.equal(batch[name][:, 1:, :ACTIONS][later], batch["action"][:, :-1][later].round())
    torch.testing.assert_close(batch["reward"][:, 1:][later], batch["action"][:, :-1][later].argmax(-1) / 10)
    assert (batch[name][batch["is_first"]] == 0).sum() > 0


def test_the_posterior_knows_the_last_action(trained):
    agent, replay = trained
    batch, states, _ = agent.observe(sample(replay, 32)[0])
    # Without the first steps of a window, from which an agent without stored latents cannot know everything.
    keep = ~batch["is_first"]
    keep[:, 0] = False
    check(*predictions(agent, batch, states, states.feature), batch, keep)


def test_the_prior_one_step_ahead_knows_the_action_just_taken(trained):
    agent, replay = trained
    batch, states, _ = agent.observe(sample(replay, 32)[0])
    rssm = agent.world_model.rssm
    with torch.no_grad():
        before = type(states)(states.deterministic[:, :-1].flatten(0, 1), states.stochastic[:, :-1].flatten(0, 1))
        action = batch["action"][:, :-1].flatten(0, 1)
        ahead = rssm.imagine_step(before, action, rssm.cell.prepare(torch.float32), deterministic=True)
    feature = ahead.feature.unflatten(0, (32, -1))
    following = {name: value[:, 1:] for name, value in batch.items()}
    # Behind the last row of an episode comes a reset, which no action explains.
    check(*predictions(agent, following, states, feature), following, ~following["is_first"])


def test_the_prior_is_lost_with_the_action_of_another_row(trained):
    """The counter-test: with actions shifted by one row the same prediction is at chance."""
    agent, replay = trained
    batch, states, _ = agent.observe(sample(replay, 32)[0])
    rssm = agent.world_model.rssm
    with torch.no_grad():
        before = type(states)(states.deterministic[:, 1:-1].flatten(0, 1), states.stochastic[:, 1:-1].flatten(0, 1))
        wrong = batch["action"][:, :-2].flatten(0, 1)
        ahead = rssm.imagine_step(before, wrong, rssm.cell.prepare(torch.float32), deterministic=True)
        reward = agent.world_model.reward.mean(agent.world_model.reward(ahead.feature)).unflatten(0, (32, -1))
    keep = ~batch["is_first"][:, 2:] & ~batch["is_first"][:, 1:-1]
    assert (reward - batch["reward"][:, 2:]).abs()[keep].mean() > 0.07


def test_nothing_is_left_of_the_last_episode_at_a_reset(trained):
    agent, replay = trained
    batch, states, _ = agent.observe(sample(replay, 64)[0])
    first = batch["is_first"].clone()
    first[:, 0] = False
    assert first.sum() > 20
    reward, _, number = predictions(agent, batch, states, states.feature)
    # The step number is 0 again, where the last row had 10, and so is the reward.
    assert number[first].abs().mean() < 1.0
    assert reward[first].abs().mean() < 0.05
