"""Trains World Models (2018) from the first random step to the last evaluation, a stage at a time."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie.agents.registry import make_config
from reverie.agents.world_models import WorldModelsConfig
from reverie.behaviors.evolution import Evolution
from reverie.dream.dream import Dream
from reverie.dream.evolve import RememberingAgent, dreamed_returns
from reverie.envs import EnvironmentPool, EnvironmentSource, Vectorization, make_pool
from reverie.errors import CheckpointError, ConfigError
from reverie.spaces import Interface
from reverie.tensor_files import read_tensors, save_tensors
from reverie.training.device import choose_device
from reverie.training.evaluation import Evaluation, evaluate
from reverie.training.files import read_json, write_json
from reverie.training.interruption import Interruption
from reverie.training.memory import keep_freed_memory
from reverie.training.metrics import SCORES_FILE
from reverie.training.pipeline.frames import FrameStore, collect
from reverie.training.pipeline.learning import Training, encode_frames, seed_update, train_memory, train_vision
from reverie.training.pipeline.pictures import TEMPERATURES, dream_video, reconstruction_grid
from reverie.training.pipeline.real import real_returns
from reverie.training.progress import Display
from reverie.training.run_folder import CONFIG_FILE, RunFolder
from reverie.training.settings import check_seed

MOST_STARTS = 1000
"""Episodes whose first frames begin dreams (released code of World Models)."""


@dataclass(frozen=True)
class PipelineSettings:
    """How to train."""

    seed: int = 0
    """Seed of weights, environments and sampling."""
    num_envs: int = 8
    """Environments that are stepped side by side when frames are collected."""
    vectorization: Vectorization = "auto"
    """Step environments in this process or in worker processes; auto decides by how long a step takes."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    threads: int | None = None
    """Threads of PyTorch on the CPU; all cores by default."""
    checkpoint_minutes: float = 2.0
    """Minutes between checkpoints within a stage."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.num_envs < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError(f"num_envs and threads must be at least 1, got {self.num_envs} and {self.threads}")
        if not self.checkpoint_minutes >= 0:
            raise ConfigError(f"checkpoint_minutes must not be negative, got {self.checkpoint_minutes}")


class WorldModelsTraining:
    """One run of all stages; the same arguments go on where a run was interrupted.

    Stages and their files in the run folder: frames of random play (`frames/`), V (`vision.safetensors`), latents of
    all frames (`latents.npy`), M (`memory.safetensors`), C (`controller.safetensors`) with its scores (`scores.json`).

    Args:
        config: World Models' settings.
        settings: the run's.
        source: recipe for environments.
        path: run folder.
        visible: show progress.

    Raises:
        ConfigError: the environment does not show one 64x64 colour image.
        RunFolderError: the folder cannot be written, is in use, or holds another run.
    """

    def __init__(
        self,
        config: WorldModelsConfig,
        settings: PipelineSettings,
        source: EnvironmentSource,
        path: Path,
        visible: bool = True,
    ) -> None:
        self.config, self.settings, self.source, self.path, self.visible = config, settings, source, path, visible
        device = choose_device(settings.device)
        keep_freed_memory()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        adapter = source.make()
        self.interface = adapter.interface
        adapter.close()
        torch.manual_seed(settings.seed)
        self.device = device
        self.model = config.build(self.interface).to(device)
        self.controller = config.build_controller(self.model.features, self.interface.action_width)
        self.folder = RunFolder(path)
        try:
            self._open()
        except BaseException:
            self.folder.close()
            raise
        self.scores: list[dict[str, Any]] = []
        self.tried = 0.0
        self._interruption = Interruption()
        self._pool: EnvironmentPool | None = None
        self.display = Display("", 1, visible)

    def _open(self) -> None:
        config, settings = self.config, self.settings
        identity = {
            "agent_config": asdict(config),
            "settings": {"seed": settings.seed, "num_envs": settings.num_envs},
            "environment": self.source.to_json(),
            "interface": self.interface.to_json(),
        }
        self.folder.claim({"agent": config.name, "seed": settings.seed, **identity}, identity)
        capacity = config.collect_episodes * config.collect_steps
        self.store = FrameStore(self.path / "frames", self.model.name, self.interface.action_width, capacity)

    @property
    def _stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._interruption.requested

    def close(self) -> None:
        """Closes environments and frees the folder."""
        if self._pool is not None:
            self._pool.close()
        self.folder.close()

    def run(self) -> bool:
        """All stages; returns False if Ctrl-C ended them early, with everything saved."""
        stages: tuple[Callable[[], None], ...] = (self._collect, self._learn_vision, self._learn_memory, self._evolve)
        with self._interruption.listen(lambda text: self.display.say(text)):
            for stage in stages:
                stage()
                if self._stop:
                    return False
            self._draw()
        return True

    @contextlib.contextmanager
    def _stage(self, name: str, total: int, unit: str) -> Iterator[Display]:
        with Display(f"{name} · {self.source.name}", total, self.visible, unit) as self.display:
            yield self.display

    def _collect(self) -> None:
        config, settings = self.config, self.settings
        if len(self.store.lengths) >= config.collect_episodes:
            return
        with (
            self._stage("collecting", config.collect_episodes, "episodes") as display,
            make_pool(self.source, settings.num_envs, settings.seed, settings.vectorization) as pool,
        ):
            collect(
                pool,
                self.store,
                config.collect_episodes,
                config.collect_steps,
                config.shortest_episode,
                config.hold,
                settings.seed,
                lambda episodes: display.update(episodes, f"{self.store.rows:,} frames"),
                lambda: self._stop,
            )

    def _after_update(self, training: Training, display: Display) -> Callable[[int], bool]:
        def done(updates: int) -> bool:
            if training.losses and (updates % 20 == 0 or training.complete):
                terms = (f"{name} {value:.4g}" for name, value in training.losses[-1].items() if name != "update")
                display.update(updates, " · ".join(terms))
            training.save_if_due(self.settings.checkpoint_minutes, force=training.complete or self._stop)
            return self._stop

        return done

    def _learn_vision(self) -> None:
        config = self.config
        total = config.vision_epochs * max(1, self.store.rows // config.vision_batch)
        path = self.path / "vision.safetensors"
        training = Training(path, self.model.vision, config.vision_learning_rate, total)
        if not training.complete:
            with self._stage("learning to see (V)", total, "updates") as display:
                done = self._after_update(training, display)
                train_vision(training, self.store, config.vision_batch, self.settings.seed, self.device, done)

    def _learn_memory(self) -> None:
        config, settings = self.config, self.settings
        with self._stage("encoding frames", self.store.rows, "frames") as display:

            def encoded_so_far(rows: int) -> bool:
                display.update(rows, "latents")
                return self._stop

            encoded = encode_frames(self.model, self.store, self.path / "latents.npy", encoded_so_far)
        if encoded is None:
            return
        self.encoded = encoded
        path = self.path / "memory.safetensors"
        training = Training(path, self.model.memory, config.memory_learning_rate, config.memory_updates)
        if config.random_memory:
            training.save_if_due(0, force=not path.exists())
            return
        if not training.complete:
            with self._stage("learning to predict (M)", config.memory_updates, "updates") as display:
                train_memory(
                    training,
                    self.store,
                    encoded,
                    config.memory_batch,
                    config.memory_length,
                    config.memory_clip,
                    settings.seed,
                    self.device,
                    self._after_update(training, display),
                )

    def dream(self, temperature: float, seed: int | tuple[int, ...]) -> Dream[Any]:
        """A dream that begins in first frames of collected episodes, with latents drawn anew."""
        rows = self.store.starts[:MOST_STARTS]
        mean, log_variance = (torch.from_numpy(self.encoded[k][rows].astype(np.float32)) for k in (0, 1))
        generator = np.random.default_rng(seed)
        noise = torch.from_numpy(generator.standard_normal(mean.shape, np.float32))
        latents = (mean + torch.exp(0.5 * log_variance) * noise).to(self.device)
        dream = Dream(self.model, self.model.begin(latents), 1, temperature, draw_ends=False)
        dream.random = generator
        return dream

    def _evolve(self) -> None:
        config, settings = self.config, self.settings
        memory_updates = 0 if config.random_memory else config.memory_updates
        self.updates = config.vision_epochs * max(1, self.store.rows // config.vision_batch) + memory_updates
        self.model.eval()
        self.evolution = Evolution(self.controller.count, config.population, config.deviation, settings.seed)
        path = self.path / "controller.safetensors"
        if path.exists():
            self._load_evolution(path)
        saved = time.monotonic()
        with self._stage(f"evolving in the {config.evolve_in} (C)", config.generations, "generations") as display:
            while not self._stop:
                generation = self.evolution.generation
                due = generation % config.evaluate_every == 0 or generation == config.generations
                if generation and due and all(score["generation"] != generation for score in self.scores):
                    self._score(display)
                    self._save_evolution(path)
                if generation >= config.generations or self._stop:
                    break
                returns = self._try_candidates(generation)
                if returns is None:
                    break
                self.tried = round(float(returns.mean()), 3)
                self.evolution.tell(self.evolution.ask(), returns)
                note = f"mean return in the {config.evolve_in} {returns.mean():.4g}, best {returns.max():.4g}"
                display.update(generation + 1, note)
                if time.monotonic() - saved > settings.checkpoint_minutes * 60:
                    self._save_evolution(path)
                    saved = time.monotonic()
            if self._stop:
                self._save_evolution(path)

    def _try_candidates(self, generation: int) -> np.ndarray | None:
        """Mean returns of this generation's candidates [P]; None if Ctrl-C cut real episodes short."""
        config, settings, parts = self.config, self.settings, self.interface.actions
        candidates = self.evolution.ask()
        if config.evolve_in == "dream":
            dream = self.dream(config.temperature, (settings.seed, 3, generation))
            parameters = torch.from_numpy(candidates).to(self.device, torch.float32)
            return dreamed_returns(dream, self.controller, parameters, parts, config.rollouts, config.dream_horizon)
        if self._pool is None:
            self._pool = make_pool(self.source, settings.num_envs, settings.seed + 1, settings.vectorization)
        seed_update(settings.seed, 5, generation)
        first = generation * config.population * config.rollouts
        return real_returns(
            self._pool,
            self.model,
            self.controller,
            candidates,
            config.rollouts,
            first,
            lambda: self._stop,
        )

    def _draw(self) -> None:
        """The pictures of the finished run."""
        videos = self.path / "videos"
        videos.mkdir(exist_ok=True)
        reconstruction_grid(self.model, self.store, videos / "reconstruction.png")
        dreams = [self.dream(temperature, (self.settings.seed, 4)) for temperature in TEMPERATURES]
        dream_video(self.agent(), dreams, videos / "dream.mp4")

    def agent(self) -> RememberingAgent:
        """The agent with the mean of the distribution as its controller."""
        return RememberingAgent(self.model, self.controller, self.evolution.mean, self.interface.actions)

    def _score(self, display: Display) -> None:
        """Plays real episodes with the newest controller; nothing is kept if Ctrl-C cuts them short."""
        result: Evaluation = evaluate(
            self.agent(),
            self.source,
            self.config.evaluation_episodes,
            self.settings.seed,
            stop=lambda: self._stop,
            vectorization=self.settings.vectorization,
        )
        if self._stop:
            return
        rows = self.store.rows
        counters = {"env_steps": rows, "frames": rows * self.source.action_repeat, "updates": self.updates}
        score = {**counters, "generation": self.evolution.generation, "tried": self.tried, **result.to_json()}
        self.scores.append(score)
        write_json(self.path / SCORES_FILE, self.scores)
        display.say(
            f"generation {self.evolution.generation}: in the {self.config.evolve_in} {self.tried:.1f}, real return "
            f"{result.mean:.1f} ± {result.standard_deviation:.1f} over {len(result.returns)} episodes"
        )

    def _save_evolution(self, path: Path) -> None:
        data, arrays = self.evolution.state()
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        text = json.dumps({"evolution": data, "scores": self.scores, "tried": self.tried}).encode()
        tensors["json"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        partial = path.with_name(f".{path.name}.partial")
        save_tensors(tensors, partial)
        os.replace(partial, path)

    def _load_evolution(self, path: Path) -> None:
        data, arrays = _read_evolution(path)
        self.scores, self.tried = data["scores"], data["tried"]
        self.evolution.restore(data["evolution"], arrays)


def _read_evolution(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `_save_evolution` wrote: plain data and arrays."""
    tensors = read_tensors(path)
    data = json.loads(bytes(tensors.pop("json").numpy()))
    return data, {name: value.numpy() for name, value in tensors.items()}


def load_world_models(path: Path, device: str = "auto") -> tuple[RememberingAgent, EnvironmentSource]:
    """The agent of a run, with the mean of its distribution as controller, and the recipe of its environment.

    Raises:
        CheckpointError: the run has no controller yet, or a file is damaged.
    """
    description = read_json(path / CONFIG_FILE)
    for name in ("vision", "memory", "controller"):
        if not (path / f"{name}.safetensors").exists():
            raise CheckpointError(f"{path} has no {name}.safetensors yet: train first")
    config = make_config(description["agent"], description["agent_config"])
    interface = Interface.from_json(description["interface"])
    model = config.build(interface).to(choose_device(device))
    for name, module in (("vision", model.vision), ("memory", model.memory)):
        Training(path / f"{name}.safetensors", module, 1.0, 1)
    controller = config.build_controller(model.features, interface.action_width)
    _, arrays = _read_evolution(path / "controller.safetensors")
    agent = RememberingAgent(model.eval(), controller, arrays["mean"], interface.actions)
    return agent, EnvironmentSource.from_json(description["environment"], None)
