"""The loop: collect, learn, log, evaluate, checkpoint; and resuming after any interruption."""

from __future__ import annotations

import contextlib
import errno
import math
import time
import warnings
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from reverie.agents.registry import AgentConfig
from reverie.dream.drawing import Drawing
from reverie.dream.open_loop import choose_sequences, predict_open_loop
from reverie.dream.scene import Scene
from reverie.envs import EnvironmentSource, make_pool
from reverie.errors import EnvironmentInterrupted, EnvironmentProblem, ReverieError, RunFolderError
from reverie.replay import SequenceReplay
from reverie.safe_files import check_shape, damage_of, remove_folder
from reverie.tensor_files import read_tensors
from reverie.training.checkpoint import (
    NAME_DIGITS,
    STATE_FILE,
    STATE_SHAPE,
    Checkpoints,
    checkpoint_name,
    newest_state,
)
from reverie.training.collector import Collector, replay_fields
from reverie.training.device import choose_device, choose_precision
from reverie.training.endless import REMEDY, EndlessEpisodes
from reverie.training.estimate import time_costs
from reverie.training.evaluation import Evaluation, episode_limit, evaluate, settle_vectorization
from reverie.training.interruption import Interruption
from reverie.training.memory import BATCH_COPIES, affordable_training, keep_freed_memory, warn_if_large
from reverie.training.metrics import MetricWriter, append_scores, flat_settings, read_scores, truncate_scores
from reverie.training.model_files import save_model
from reverie.training.origin import Origin, confirmed_origin
from reverie.training.outlook import Outlook
from reverie.training.progress import Display
from reverie.training.run_folder import OWN_VIDEOS, PARTIAL_VIDEOS, RunFolder, shown
from reverie.training.settings import TrainSettings
from reverie.training.stored_run import changed_settings
from reverie.training.updater import Updater

VIDEO_SEQUENCES, VIDEO_LENGTH, VIDEO_FRAMES, TENSORBOARD_COLUMNS = 6, 50, 25, 3


class Trainer:
    """One run, from its first step or its last checkpoint to its end.

    Args:
        config: the agent's settings.
        settings: the run's settings.
        source: recipe for environments.
        path: run folder.
        checkpoint: name of the checkpoint to continue from; the newest by default.
        visible: show progress.
        preset: where settings that were not chosen came from, to be shown and kept.
        change: continue the run that is there with these settings, where its tensors do not depend on them.
        origin: another run whose weights a new run begins with.

    Raises:
        RunFolderError: the folder cannot be written, is in use, or holds another run.
        CheckpointError: the checkpoint to continue from is damaged.
    """

    def __init__(
        self,
        config: AgentConfig,
        settings: TrainSettings,
        source: EnvironmentSource,
        path: Path,
        checkpoint: str | None = None,
        visible: bool = True,
        preset: str = "paper",
        change: bool = False,
        origin: Origin | None = None,
    ) -> None:
        self.config, self.settings, self.source, self.visible, self.preset = config, settings, source, visible, preset
        self._may_change, self._origin = change, origin
        device = choose_device(settings.device)
        dtype = choose_precision(settings.precision, device)
        keep_freed_memory()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.path = Path(path).absolute()  # an environment may change the working directory
        self._interruption = Interruption()
        self.env_steps = 0
        self.best: float | None = None
        self._evaluated = -1
        self._continued_from: str | None = None
        with contextlib.ExitStack() as undo:
            # What can be refused without touching the disk comes first, so that a mistake leaves no folder behind.
            self.vectorization = settings.vectorization
            if self.vectorization == "auto":  # measured once in the life of a run
                self.vectorization = newest_state(self.path).get("measured_vectorization") or "auto"
            one = settings.num_envs == 1 and settings.vectorization == "auto"
            place = "in-process" if one else self.vectorization
            self.pool = make_pool(source, settings.num_envs, settings.seed, vectorization=place, info=settings.info)
            undo.callback(self.pool.close)
            if not one:
                self.vectorization = self.pool.vectorization
            torch.manual_seed(settings.seed)
            with affordable_training(config.name):
                self.agent = config.build(self.pool.interface)
            self.agent = self.agent.to(device)
            self.agent.compute_dtype = dtype
            self.agent.optimizer = config.build_optimizer(self.agent)
            self.folder = RunFolder(self.path)
            undo.callback(self.folder.close)
            try:
                self._open(checkpoint)
            except OSError as error:
                raise _unwritable(self.path, error) from error
            undo.pop_all()

    def _open(self, checkpoint: str | None) -> None:
        config, settings, interface = self.config, self.settings, self.pool.interface
        fields = replay_fields(interface, self.agent.latent_fields)
        rows = min(config.replay_capacity, settings.steps)
        size, latents = (sum(f.bytes for f in fields if f.latent or every) for every in (True, False))
        values = sum(math.prod(field.shape) for field in fields if not field.latent)
        batch = config.batch_size * config.batch_length * values * 4 * BATCH_COPIES
        warn_if_large(size * rows, rows, settings.replay_storage, folder=self.path, latents=latents * rows, batch=batch)
        self.replay = SequenceReplay(
            fields,
            settings.num_envs,
            config.replay_capacity,
            length=config.batch_length + self.agent.replay_context,
            seed=settings.seed,
            folder=self.path / "replay",
            storage=settings.replay_storage,
            online=config.schedule().newest_first,
        )
        identity = {"agent_config": asdict(config), "settings": settings.identity()}  # type: ignore[call-overload]
        identity |= {"environment": self.source.identity(), "interface": interface.to_json()}
        described = {"agent": config.name, "seed": settings.seed, "preset": self.preset, **identity}
        described |= {"environment": self.source.to_json(), "settings": asdict(settings)}
        described["spaces"] = self.source.spaces
        defaults = {"agent_config": asdict(type(config)()), "settings": asdict(TrainSettings())}  # type: ignore[call-overload]
        defaults["environment"] = EnvironmentSource("").identity()
        claim = self.folder.claim(described, identity, defaults)
        changes = changed_settings(self.folder, claim, config, interface=interface, may_change=self._may_change)
        self.description = described
        self.checkpoints = Checkpoints(self.path, claim.fingerprint)
        self.collector = Collector(self.agent, self.pool, self.replay)
        self.updater = Updater(self.agent, self.replay, config)
        self.outlook = Outlook(config, settings.steps, settings.num_envs, window=self.replay.length)
        self.endless = EndlessEpisodes(config.schedule(), self.pool.time_limit, settings.num_envs)
        history: dict[str, Any] = dict(claim.kept)
        position = self._resume(checkpoint, history)
        if changes:
            history["changes"] = [*history.get("changes", []), {"env_steps": self.env_steps, "settings": changes}]
        self.folder.settle(claim, described, **history)
        self.description |= {"fingerprint": claim.fingerprint, **history}
        self.writer = MetricWriter(self.path, position, flat_settings(described))
        self._logged = position["env_steps"] if position else -1

    # ------------------------------------------------------------------ checkpoints

    def _resume(self, wanted: str | None, history: dict[str, Any]) -> dict[str, Any] | None:
        """Goes back to a checkpoint, if there is one, and returns the position of the metrics there."""
        self.checkpoints.recover()
        name = self.checkpoints.choose(wanted)
        self._origin = confirmed_origin(self._origin, history, self.path, begun=name is not None)
        if name is None:
            truncate_scores(self.path, -1)
            self._begin(history)
            return None
        folder, state = self.checkpoints.read(name, self._restore_replay)
        self._continued_from = state.get("continued_from") if wanted in (None, "latest") else wanted.zfill(NAME_DIGITS)
        with damage_of(folder):
            self._restore(folder, state)
        truncate_scores(self.path, self._evaluated)
        self.checkpoints.forget_after(name)
        metrics: dict[str, Any] = state["metrics"]
        return metrics

    def _restore_replay(self, state: dict[str, Any]) -> None:
        """Brings the replay back; refuses a state that is not one of a run."""
        check_shape(state, STATE_SHAPE, STATE_FILE)
        with damage_of(self.path / "replay"):
            self.replay.restore(state["replay"])

    def _restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Brings back everything but the replay from the files of a checkpoint."""
        self.agent.load(folder / "agent.safetensors")
        self.agent.optimizer.load_state_tensors(read_tensors(folder / "optimizer.safetensors"))
        tensors = read_tensors(folder / "loop.safetensors")
        self.env_steps, self.best, self._evaluated = state["env_steps"], state["best"], state["evaluated"]
        self.updater.restore(state["updater"], _below("updater.", tensors))
        self.collector.restore(state["collector"], _below("collector.", tensors))
        torch.set_rng_state(tensors["random"])
        if "random_cuda" in tensors and self.agent.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random_cuda"], self.agent.device)

    def _begin(self, history: dict[str, Any]) -> None:
        """Gives a new run the weights, and if wanted the experience, of another one."""
        origin = self._origin
        if origin is None:
            return
        origin.load(self.agent, self.config.name)
        if origin.replay:
            origin.fill(self.replay, self.path / "replay")
            self.collector.begin_episodes()
        history["from"] = origin.to_json()

    def save_checkpoint(self) -> None:
        """Makes everything durable: the run can continue from exactly here.

        Raises:
            NumericalError: a loss or a weight is not finite; nothing is written.
            RunFolderError: no space is left; earlier checkpoints are whole.
        """
        self.updater.check()
        updater, updater_tensors = self.updater.state()
        collector, collector_tensors = self.collector.state()
        tensors = {f"updater.{name}": value for name, value in updater_tensors.items()}
        tensors |= {f"collector.{name}": value for name, value in collector_tensors.items()}
        tensors["random"] = torch.get_rng_state()
        if self.agent.device.type == "cuda":
            tensors["random_cuda"] = torch.cuda.get_rng_state(self.agent.device)
        try:
            state = {
                "env_steps": self.env_steps,
                "best": self.best,
                "evaluated": self._evaluated,
                "continued_from": self._continued_from,
                "measured_vectorization": self.vectorization if self.settings.vectorization == "auto" else None,
                "updater": updater,
                "collector": collector,
                "metrics": self.writer.position(),
                "replay": self.replay.save(checkpoint_name(self.env_steps)),
            }
            files = {
                "agent": self.agent.state_dict(),
                "optimizer": self.agent.optimizer.state_tensors(),
                "loop": tensors,
            }
            self.checkpoints.write(self.env_steps, files, state)
            self.replay.forget_snapshots(self.checkpoints.forget_old())
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._last_checkpoint = time.monotonic()

    # ------------------------------------------------------------------ the loop

    @property
    def counters(self) -> dict[str, int]:
        """env_steps (agent decisions), frames (env_steps x action repeat) and updates (gradient steps)."""
        repeat = self.source.action_repeat
        return {"env_steps": self.env_steps, "frames": self.env_steps * repeat, "updates": self.updater.updates}

    def run(self) -> bool:
        """Trains to the end and returns True, or to an interruption and returns False; both leave a checkpoint."""
        settings = self.settings
        self._last_checkpoint = time.monotonic()
        title = f"{self.config.name} on {self.source.name}"
        self._watch = (time.monotonic(), self.env_steps, self.updater.updates)
        with (
            Display(title, settings.steps, self.visible, more=self._updates_so_far) as self.display,
            self._interruption.listen(lambda text: self.display.say(text)),
        ):
            self._greet()
            try:
                self._evaluate_if_due()
                while self.env_steps < settings.steps and not (self._stop or self._reached):
                    self._advance()
                    self._evaluate_if_due()
                if not self._stop and self._evaluated != self.env_steps:
                    self._log()
                    self._evaluate()
                if self._stop:
                    self.save_checkpoint()
                elif self.updater.updates == 0:
                    episodes, too_short = self.collector.episodes, self.replay.num_windows == 0
                    warnings.warn(self.outlook.not_learned(self.env_steps, episodes, too_short), stacklevel=2)
            except EnvironmentInterrupted as problem:
                self.display.say(f"{problem}; its episode counts as truncated")
                self.save_checkpoint()
            except EnvironmentProblem as error:
                self.updater.check()  # an agent that has diverged gives actions that no environment takes
                self.save_checkpoint()
                raise type(error)(
                    f"{str(error).rstrip('.')}; a checkpoint was written at step {self.env_steps:,}: repeat the "
                    f"command to continue from there"
                ) from error
            except OSError as error:
                raise _unwritable(self.path, error) from error
        return not self._stop

    def _updates_so_far(self) -> str:
        """How many updates were made, or what the first one waits for."""
        waits = self.endless.before_first(self.updater.updates, self.collector.episodes)
        return waits or f"{self.updater.updates:,} updates"

    def _greet(self) -> None:
        parameters = self.agent.count_parameters()["total"]
        where = f"{self.agent.device}, {str(self.agent.compute_dtype).removeprefix('torch.')}"
        if self.agent.device.type == "cpu":
            where += f", {torch.get_num_threads()} threads"
        self.display.say(
            f"{self.display.title} · {parameters:,} parameters · {where} · {self.settings.num_envs} environments "
            f"{self.pool.vectorization} · run folder {shown(self.path)}"
        )
        if self.endless.before_first(self.updater.updates, self.collector.episodes):
            self.display.say(f"no update is made until {self.updater.schedule.warmup_episodes} episodes have ended")
        self.display.update(self.env_steps)
        if self.env_steps:
            self.display.say(f"resuming at step {self.env_steps:,}, update {self.updater.updates:,}")
        if self._reached:
            self.display.say(
                f"the run is complete: an evaluation has reached {self.best:.1f}, and --stop-at is "
                f"{self.settings.stop_at:g}; leave it out to continue"
            )
        elif self.env_steps >= self.settings.steps:
            self.display.say(f"the run is complete at {self.env_steps:,} steps; give more --steps to continue")
        else:
            self._announce()

    def _announce(self) -> None:
        """Says what the preset makes of this run, and how long it will take here."""
        without_updates = self.outlook.without_updates()
        if without_updates:
            warnings.warn(without_updates, stacklevel=3)
        if self.visible:
            agent, num_envs = self.agent, self.settings.num_envs
            costs = time_costs(self.config, agent.interface, agent.device, dtype=agent.compute_dtype, num_envs=num_envs)
            self.display.say(self.outlook.plan(self.preset, self.env_steps, costs))

    def _advance(self) -> None:
        before, episodes = self.env_steps, self.collector.episodes
        warming_up = self.updater.warming_up(before, episodes)
        untrained = warming_up and self._origin is None
        actions = self.updater.schedule.warmup_actions if untrained else "policy"
        self.env_steps += self.collector.collect("experience" if actions == "policy" else actions)
        finished = self.collector.episodes
        self.updater.learn(self.env_steps, self.env_steps - before, episodes=finished, new_episodes=finished - episodes)
        if warming_up and self.updater.begun:
            self.display.forget_speed()
        self.display.update(self.env_steps)
        if self._crossed(before, self.settings.log_every):
            self._log()
        if time.monotonic() - self._last_checkpoint > self.settings.checkpoint_minutes * 60:
            self.save_checkpoint()

    def _crossed(self, before: int, interval: int) -> bool:
        return interval > 0 and before // interval != self.env_steps // interval

    def _log(self) -> None:
        self.updater.check()
        metrics = self.updater.take_metrics() | self.collector.take_finished() | self._replay_metrics()
        then, steps, updates = self._watch
        self._watch = (time.monotonic(), self.env_steps, self.updater.updates)
        elapsed = max(self._watch[0] - then, 1e-9)
        metrics["speed/env_steps_per_second"] = (self.env_steps - steps) / elapsed
        metrics["speed/updates_per_second"] = (self.updater.updates - updates) / elapsed
        if self.env_steps > self._logged:
            self.writer.write(self.counters, metrics)
            self._logged = self.env_steps
        shown = {"return": metrics.get("episode/return"), "loss": metrics.get("loss/total")}
        notes = [f"{name} {value:.4g}" for name, value in shown.items() if value is not None]
        self.display.update(self.env_steps, " · ".join(notes))
        self.endless.look(self.env_steps, self.collector.episodes)

    def _replay_metrics(self) -> dict[str, float]:
        replayed = self.updater.updates * self.config.batch_size * self.config.batch_length
        return {"replay/rows": float(len(self.replay)), "replay/ratio": replayed / max(self.env_steps, 1)}

    # ------------------------------------------------------------------ evaluation

    def _evaluate_if_due(self) -> None:
        """Evaluates when a multiple of the interval was passed since the last time, except at the end of the run."""
        if self.env_steps < self.settings.steps and self._crossed(
            max(self._evaluated, 0), self.settings.evaluation_interval
        ):
            self._evaluate()

    def _evaluate(self) -> None:
        """Plays episodes, keeps the best weights, and writes a checkpoint; nothing of it if Ctrl-C cuts it short."""
        self.updater.check()
        if self.source.kind == "object" and self.settings.evaluation_envs is None:
            if self._evaluated < 0:
                self.display.say("no evaluation in an environment that is an object, unless evaluation_envs=0")
            self._evaluated = self.env_steps
            self.save_checkpoint()
            return
        settings, longest, episodes = self.settings, self.collector.longest, self.settings.evaluation_episodes
        if longest == 0 and self.pool.time_limit is None and not read_scores(self.path):
            self.display.say(
                f"no episode has ended in {self.env_steps:,} steps, so evaluated ones are cut off after "
                f"{episode_limit(longest):,} decisions; if they never end, {REMEDY}"
            )
        lent = self.source.kind == "object" or settings.evaluates_in_training
        if not lent:
            self.vectorization = settle_vectorization(self.vectorization, self.source, episodes, seed=settings.seed)
        with self.display.busy("evaluating"), self.collector.lend() if lent else contextlib.nullcontext() as pool:
            result = evaluate(
                self.agent,
                self.source,
                episodes,
                seed=settings.seed + self.env_steps,
                deterministic=settings.deterministic_evaluation,
                record=VIDEO_SEQUENCES if settings.videos else 0,
                stop=lambda: self._stop,
                vectorization=self.vectorization,
                longest=longest,
                watch=self.display.watch,
                num_envs=settings.evaluation_envs,
                pool=pool,
                info=settings.info,
            )
        if self._stop:
            return
        self._evaluated = self.env_steps
        self._forget_best_of_shorter_episodes(result)
        append_scores(self.path, {**self.counters, **result.to_json()})
        self.writer.write(self.counters, result.metrics() | self._replay_metrics())
        if self.best is None or result.mean >= self.best:
            self.best = result.mean
            seen = {"updates": self.updater.updates, "longest_episode": longest}
            description = {**self.description, **seen}
            save_model(self.path / "checkpoints" / "best", self.agent, description)
        self.save_checkpoint()
        self.display.say(f"step {self.env_steps:,}: evaluation return {result.summary()}")
        if settings.videos:
            with self.display.busy("drawing the dream video"):
                self._draw(result)

    def _forget_best_of_shorter_episodes(self, result: Evaluation) -> None:
        """Returns of episodes that were cut off sooner than those of this evaluation are not comparable with it."""
        before = read_scores(self.path)[-1:]
        if before and before[0].get("cut_off") and before[0]["episode_limit"] < result.limit:
            self.best = None

    def _draw(self, result: Evaluation) -> None:
        try:
            sequences = choose_sequences(result.episodes, VIDEO_LENGTH, VIDEO_SEQUENCES)
        except ReverieError as error:
            self.display.say(f"no dream video: {error}")
            return
        with torch.random.fork_rng([self.agent.device] if self.agent.device.type == "cuda" else []):
            torch.manual_seed(self.settings.seed)
            prediction = predict_open_loop(self.agent, sequences)
        title = f"{self.config.name} on {self.source.name}, step {self.env_steps:,}"
        drawing = Drawing(prediction, self._scene, title, most_frames=VIDEO_FRAMES)
        partial = self.path / "videos" / PARTIAL_VIDEOS
        for file in drawing.save(partial / f"open_loop_{self.env_steps:09d}.mp4"):
            self.display.say(f"drawn: {shown(file.replace(partial.parent / file.name))}")
        remove_folder(partial, OWN_VIDEOS)
        self.writer.video("dream/open_loop", drawing.narrow(TENSORBOARD_COLUMNS), self.counters, fps=drawing.fps)
        if drawing.board is not None:
            self.writer.image("dream/curves", drawing.board.picture, self.counters)

    @cached_property
    def _scene(self) -> Scene:
        """What is known of the task, for the pictures of its dreams."""
        return Scene.of_source(self.source)

    # ------------------------------------------------------------------ stopping

    @property
    def _reached(self) -> bool:
        """Whether an evaluation was as good as `stop_at` asks for."""
        goal = self.settings.stop_at
        return goal is not None and self.best is not None and self.best >= goal

    @property
    def _stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._interruption.requested

    def close(self) -> None:
        """Ends environments, closes files and frees the folder."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._interruption.end)
            stack.callback(self.folder.close)
            # What a checkpoint needs is on the disk already; the rest cannot be fixed here.
            stack.enter_context(contextlib.suppress(OSError))
            stack.callback(self.writer.close)
            self.pool.close()


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _unwritable(path: Path, error: OSError) -> RunFolderError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return RunFolderError(
        f"{path} could not be written ({error.strerror or error}); the last checkpoint is whole: "
        f"{'free some space' if full else 'fix that'}, then repeat the command to continue"
    )
