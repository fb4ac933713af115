"""The row "CEM + true simulator" of PlaNet's Table 1 (Hafner et al., 2019): planning where the model is the simulator.

At every decision the state of the simulator is saved, all candidates are played from it by `mujoco.rollout`, and the
planned action is then played in the environment itself. Rewards of candidates are dm_control's, written for many states
at once; `tests/test_benchmarks.py` compares them with dm_control's own.

    python benchmarks/plan_in_simulator.py cartpole-swingup --candidates 300 --elites 30 --iterations 5 --episodes 10

writes `benchmarks/results/plan_cartpole-swingup_300x5.json` after every episode. Where a task pays nothing before it is
solved and everything afterwards, `--holding 60 5 6` saves most of the time: 60 candidates, 5 iterations and 6 elites
wherever the decision before had the whole reward, and the larger search wherever it had not. Episodes that are in the
file already are not played again, and the episode under way is kept every 10 decisions in a file beside it, so the same
command continues where it was stopped, with the same result.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco import rollout
from torch import Tensor
from tqdm import tqdm

from reverie.behaviors.cem import CrossEntropyPlanner
from reverie.envs import EnvironmentAdapter, make
from reverie.tensor_files import read_tensors, save_tensors

RESULTS = Path(__file__).parent / "results"

KEEP_EVERY = 10
"""Decisions between two writings of the episode under way."""

FRAMES = 1000
"""Of a whole episode of the DeepMind Control Suite."""


@dataclass(frozen=True)
class Frames:
    """What candidates went through, at the end of every frame; J candidates, T frames.

    Attributes:
        model: dm_control's model, whose arrays can be read by names.
        positions: generalized positions, [J, T, nq].
        velocities: generalized velocities, [J, T, nv].
        sensors: [J, T, nsensordata].
        controls: [J, T, nu].
    """

    model: Any
    positions: np.ndarray
    velocities: np.ndarray
    sensors: np.ndarray
    controls: np.ndarray


def cartpole_swingup(frames: Frames) -> np.ndarray:
    """Pole upright, cart in the middle, small control and velocity: [J, T]."""
    from dm_control.utils.rewards import tolerance

    upright = (np.cos(frames.positions[..., 1]) + 1) / 2
    centered = (1 + tolerance(frames.positions[..., 0], margin=2)) / 2
    quiet = (4 + tolerance(frames.controls[..., 0], margin=1, value_at_margin=0, sigmoid="quadratic")) / 5
    slow = (1 + tolerance(frames.velocities[..., 1], margin=5)) / 2
    return upright * quiet * slow * centered


def reacher(frames: Frames) -> np.ndarray:
    """1 where the finger touches the target, [J, T]; the target lies elsewhere in every episode."""
    model = frames.model
    arm, hand = model.body_pos["hand", "x"], model.body_pos["finger", "x"]
    first, second = frames.positions[..., 0], frames.positions.sum(-1)
    x = arm * np.cos(first) + hand * np.cos(second) - model.geom_pos["target", "x"]
    y = arm * np.sin(first) + hand * np.sin(second) - model.geom_pos["target", "y"]
    return (np.hypot(x, y) <= model.geom_size[["target", "finger"], 0].sum()).astype(float)


def ball_in_cup_catch(frames: Frames) -> np.ndarray:
    """1 where the ball is in the cup, [J, T]."""
    model = frames.model
    start = (
        model.body_pos["cup", ["x", "z"]] + model.site_pos["target", ["x", "z"]] - model.body_pos["ball", ["x", "z"]]
    )
    distance = np.abs(start + frames.positions[..., :2] - frames.positions[..., 2:])
    return (distance < model.site_size["target", [0, 2]] - model.geom_size["ball", 0]).all(-1).astype(float)


def finger_spin(frames: Frames) -> np.ndarray:
    """1 where the body spins with at least 15 rad/s, [J, T]."""
    return (frames.velocities[..., 2] <= -15.0).astype(float)


def cheetah_run(frames: Frames) -> np.ndarray:
    """Speed in tens of meters per second, at most 1: [J, T]."""
    return np.clip(frames.sensors[..., 0] / 10, 0, 1)


def walker_walk(frames: Frames) -> np.ndarray:
    """Torso high and upright, moving at 1 m/s: [J, T]."""
    from dm_control.utils.rewards import tolerance

    height = frames.model.body_pos["torso", "z"] + frames.positions[..., 0]
    standing = tolerance(height, (1.2, np.inf), margin=0.6)
    stand = (3 * standing + (1 + np.cos(frames.positions[..., 2])) / 2) / 4
    move = tolerance(frames.sensors[..., 0], (1.0, np.inf), margin=0.5, value_at_margin=0.5, sigmoid="linear")
    return stand * (5 * move + 1) / 6


@dataclass(frozen=True)
class Task:
    """One column of the table.

    Attributes:
        reward: rewards of many frames at once.
        action_repeat: PlaNet's.
        paper: PlaNet's score with the true simulator.
    """

    reward: Callable[[Frames], np.ndarray]
    action_repeat: int
    paper: float


TASKS = {
    "cartpole-swingup": Task(cartpole_swingup, 8, 850),
    "reacher-easy": Task(reacher, 4, 964),
    "cheetah-run": Task(cheetah_run, 4, 656),
    "finger-spin": Task(finger_spin, 2, 825),
    "ball_in_cup-catch": Task(ball_in_cup_catch, 4, 993),
    "walker-walk": Task(walker_walk, 2, 994),
}


class Simulator:
    """Scores candidates by playing them from the current state of an environment, which is left as it is.

    Args:
        adapter: one environment of the DeepMind Control Suite.
        task: its rewards and action repeat.
        threads: threads that play candidates; 1 plays them in the calling thread.
    """

    def __init__(self, adapter: EnvironmentAdapter, task: Task, threads: int = 1) -> None:
        control = adapter.environment.unwrapped.control  # type: ignore[attr-defined]
        self._physics, self._task = control.physics, task
        self._model = self._physics.model.ptr
        self._sub_steps = round(control.control_timestep() / self._physics.timestep())
        self._rollout = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._workspaces = [mujoco.MjData(self._model) for _ in range(threads)]

    def rewards(self, actions: np.ndarray) -> np.ndarray:
        """Rewards of every frame, float64 [J, H R], of candidates [J, H, A]."""
        data, every = self._physics.data.ptr, self._sub_steps
        whole = mujoco.mjtState.mjSTATE_FULLPHYSICS
        state = np.empty(mujoco.mj_stateSize(self._model, whole))
        mujoco.mj_getState(self._model, data, state, whole)
        controls = np.repeat(actions.astype(np.float64), self._task.action_repeat, axis=1)  # [J, T, A], T = H R
        # Sensors show the state in which a step begins, so one step more is needed to read the last ones.
        steps = np.concatenate([np.repeat(controls, every, axis=1), controls[:, -1:]], axis=1)
        states, sensors = self._rollout.rollout(
            self._model,
            self._workspaces,
            state[None],
            steps,
            initial_warmstart=np.array(data.qacc_warmstart)[None],
        )
        ends = states[:, every - 1 : -1 : every]  # [J, T, 1 + nq + nv + ...], the first number is the time
        positions, velocities, _ = np.split(ends[..., 1:], [self._model.nq, self._model.nq + self._model.nv], axis=-1)
        named = self._physics.named.model
        return self._task.reward(Frames(named, positions, velocities, sensors[:, every::every], controls))

    def __call__(self, actions: Tensor) -> Tensor:
        """Returns of candidates: [1, J, H, A] -> [1, J]."""
        return torch.from_numpy(self.rewards(actions[0].numpy()).sum(-1))[None]


@dataclass
class Beginning:
    """The part of an episode that is played; with its actions the simulator comes to the same state again.

    Attributes:
        actions: that were carried out, one [A] per decision.
        generator: of the search, after these.
        seconds: of planning so far.
    """

    actions: list[Tensor]
    generator: torch.Generator
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Replaces the file as a whole."""
        other = path.with_suffix(".part")
        seconds = torch.tensor(self.seconds, dtype=torch.float64)
        numbers = {"generator": self.generator.get_state(), "seconds": seconds}
        save_tensors({"actions": torch.stack(self.actions), **numbers}, other)
        other.replace(path)

    @classmethod
    def read(cls, path: Path | None, seed: int) -> Beginning:
        """What the file has, or nothing yet."""
        generator = torch.Generator().manual_seed(seed)
        if path is None or not path.exists():
            return cls([], generator)
        saved = read_tensors(path)
        generator.set_state(saved["generator"])
        return cls(list(saved["actions"]), generator, saved["seconds"].item())


def play(
    name: str,
    task: Task,
    planner: CrossEntropyPlanner,
    holding: CrossEntropyPlanner,
    seed: int,
    threads: int,
    underway: Path | None = None,
    frames: int = FRAMES,
) -> dict[str, float]:
    """Plays one episode; its return and wall time in seconds.

    Args:
        name: of the environment, without its suite and version.
        task: its rewards and action repeat.
        planner: plans.
        holding: plans instead wherever the decision before had the whole reward.
        seed: of the episode and of the search.
        threads: that play candidates.
        underway: file of the episode's beginning; the episode continues from there, and the file is kept up to date.
        frames: after which the episode is cut off.
    """
    adapter = make(f"dmc/{name}-v0", action_repeat=task.action_repeat, time_limit=frames)
    adapter.reset(seed)
    simulator = Simulator(adapter, task, threads)
    beginning = Beginning.read(underway, seed)
    played = len(beginning.actions)
    width = adapter.interface.action_width
    total, reward, decision, ended = 0.0, 0.0, 0, False
    bar = tqdm(
        total=math.ceil(frames / task.action_repeat), initial=played, desc=f"{name}, seed {seed}", unit="decision"
    )
    while not ended:
        begin = time.perf_counter()
        if decision >= played:
            chosen = holding if reward >= task.action_repeat else planner
            planned = chosen.plan(simulator, 1, width, device="cpu", generator=beginning.generator)
            beginning.actions.append(planned[0])
        _, reward, terminated, truncated, _ = adapter.step(beginning.actions[decision].numpy())
        total += float(reward)
        decision += 1
        ended = terminated or truncated
        if decision <= played:
            continue
        beginning.seconds += time.perf_counter() - begin
        bar.update()
        bar.set_postfix_str(f"return {total:.1f}")
        if underway is not None and decision % KEEP_EVERY == 0:
            beginning.save(underway)
    bar.close()
    adapter.close()
    return {"seed": seed, "return": round(total, 2), "seconds": round(beginning.seconds, 1)}


def write(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file as a whole, with mean and standard deviation of the episodes, if there are any."""
    returns = [episode["return"] for episode in content["episodes"]]
    if returns:
        content |= {"mean": round(float(np.mean(returns)), 2), "std": round(float(np.std(returns)), 2)}
    other = path.with_suffix(".part")
    other.write_text(json.dumps(content, indent=1) + "\n")
    other.replace(path)


def main() -> None:
    """Plays the episodes that are missing in the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--elites", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--frames", type=int, default=FRAMES, help="play only the first so many frames of each episode")
    parser.add_argument("--action-repeat", type=int, help="frames that an action lasts for (default: PlaNet's)")
    parser.add_argument("--no-clip", action="store_true", help="refit to candidates as they were drawn (Algorithm 2)")
    parser.add_argument("--holding", type=int, nargs=3, metavar=("CANDIDATES", "ITERATIONS", "ELITES"))
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clip = not options.no_clip
    planner = CrossEntropyPlanner(options.horizon, options.candidates, options.iterations, options.elites, clip)
    holding = CrossEntropyPlanner(options.horizon, *options.holding, clip) if options.holding else planner
    task = TASKS[options.task]
    if options.action_repeat:
        task = replace(task, action_repeat=options.action_repeat)
    clipped = "" if clip else "_no_clip"
    repeated = f"_repeat_{task.action_repeat}" if options.action_repeat else ""
    first = f"_first_{options.frames}" if options.frames < FRAMES else ""
    held = f"_holding_{holding.candidates}x{holding.iterations}" if options.holding else ""
    path = (
        options.results
        / f"plan_{options.task}_{options.candidates}x{options.iterations}{clipped}{held}{repeated}{first}.json"
    )
    content: dict[str, Any] = {
        "command": f"python benchmarks/plan_in_simulator.py {options.task} --candidates {options.candidates} "
        f"--elites {options.elites} --iterations {options.iterations} --horizon {options.horizon} "
        + ("" if clip else "--no-clip ")
        + (f"--holding {' '.join(map(str, options.holding))} " if options.holding else "")
        + (f"--action-repeat {task.action_repeat} " if options.action_repeat else "")
        + (f"--frames {options.frames} " if first else "")
        + f"--episodes {options.episodes} --threads {options.threads}",
        "task": f"dmc/{options.task}-v0",
        "action_repeat": task.action_repeat,
        "frames": options.frames,
        "planner": asdict(planner),
        **({"holding": asdict(holding)} if options.holding else {}),
        "paper": task.paper,
        "threads": options.threads,
        "processors": os.cpu_count(),
        "versions": {package: importlib.metadata.version(package) for package in ("dm_control", "mujoco", "torch")},
        "episodes": [],
    }
    if path.exists():
        before = json.loads(path.read_text())
        if any(before.get(key) != content.get(key) for key in ("planner", "holding", "action_repeat")):
            sys.exit(
                f"{path} holds episodes of another planner, {before['planner']} with action repeat "
                f"{before['action_repeat']}; move it away or change the options"
            )
        content["episodes"] = before["episodes"]
    write(path, content)
    played = {episode["seed"] for episode in content["episodes"]}
    for seed in range(options.episodes):
        if seed in played:
            continue
        underway = path.with_name(f"{path.stem}_seed_{seed}.underway")
        episode = play(options.task, task, planner, holding, seed, options.threads, underway, options.frames)
        content["episodes"].append(episode)
        write(path, content)
        underway.unlink(missing_ok=True)
        print(f"{path.name}: {content['episodes'][-1]}, mean {content['mean']}", flush=True)


if __name__ == "__main__":
    main()
