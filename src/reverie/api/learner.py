"""What all agents do in Python: an agent bound to an environment."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch

from reverie.agents.imagination_agent import PolicyState
from reverie.agents.registry import action_repeat as paper_repeat
from reverie.agents.registry import agent_settings, config_class, default_preset, make_config, recipe
from reverie.dream.dream import Dream, collect_starts
from reverie.dream.dream_env import DreamEnv, DreamObservation, DreamVectorEnv
from reverie.dream.film import audience_of
from reverie.dream.open_loop import OpenLoop, check_sequences, choose_sequences, predict_open_loop
from reverie.envs import EnvironmentAdapter, EnvironmentSource, Vectorization
from reverie.envs.batches import encode_actions, encode_batch, join_batch
from reverie.envs.code_identity import code_difference
from reverie.errors import ConfigError
from reverie.training import evaluation
from reverie.training.device import choose_device, choose_precision
from reverie.training.evaluation import Evaluation, Playing, to_tensors
from reverie.training.model_files import load_model, save_model
from reverie.training.origin import Origin
from reverie.training.run_folder import default_path
from reverie.training.settings import TrainSettings, checked_names
from reverie.training.stored_run import StoredRun, run_defaults, stored_run
from reverie.training.trainer import Trainer
from reverie.typed_values import checked_arguments, field_names

Environment = str | gymnasium.Env[Any, Any] | Callable[..., gymnasium.Env[Any, Any]] | EnvironmentSource


class Learner:
    """An agent and the environment it learns in.

    Args:
        environment: a Gymnasium id, an environment, or a function that makes one.
        seed: of weights, environments, replay and sampling.
        run: run folder; by default runs/<task>/<agent>/<seed>, or <seed>-2 and so on where that holds a run of other
            code.
        device: auto, cpu, cuda or cuda:N.
        pixels: observe rendered frames instead of the environment's observations.
        image_size: resize images to this side, or (height, width).
        action_repeat: environment frames per action; by default as in the agent's paper for its tasks, given by their
            id, and 1 for all others.
        time_limit: truncate episodes after this many frames.
        parts: name of an observation part -> what it is, where its space does not tell: `image`, `image:AXES` with a
            letter for each axis (t frames, h height, w width, c colors), `vector` or `discrete`.
        ignore: names of observation parts to leave out, e.g. `["mission"]`.
        preset: `quick` for small tasks on a CPU within the hour, `paper` for the paper's protocol for this kind of
            task, or another of `PRESETS` in the agent's file; by default quick on a CPU and paper on a GPU. A run that
            is there keeps its preset and its settings.
        change: whether a run that is there continues with settings given here which differ from its own, where its
            tensors do not depend on them, with a warning; by default only in a folder that `run` names.
        settings: fields of `TrainSettings` and of the agent's configuration, e.g. `size="12m"`, `num_envs=8`.

    Raises:
        ConfigError: an unknown setting, with the nearest right one.
        SpaceError: a space that is not supported.
    """

    agent_name: ClassVar[str]
    settings_class: ClassVar[type[Any]] = TrainSettings

    @checked_arguments
    def __init__(
        self,
        environment: Environment,
        *,
        seed: int = 0,
        run: str | Path | None = None,
        device: str = "auto",
        pixels: bool = False,
        image_size: int | tuple[int, int] | None = None,
        action_repeat: int | None = None,
        time_limit: int | None = None,
        parts: Mapping[str, str] | None = None,
        ignore: Collection[str] = (),
        preset: str | None = None,
        change: bool | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(environment, EnvironmentSource):
            beside = (pixels, image_size is not None, action_repeat not in (None, 1), time_limit is not None)
            if any(beside) or parts or ignore:
                raise ConfigError(
                    "got an EnvironmentSource and wrapper settings beside it; give pixels, image_size, action_repeat, "
                    "time_limit, parts and ignore to the EnvironmentSource"
                )
            self.source = environment
        else:
            if isinstance(environment, str):
                environment, preset = recipe(self.agent_name, environment, preset, device=choose_device(device).type)
            if action_repeat is None:
                action_repeat = paper_repeat(self.agent_name, environment)
            wanted = partial(EnvironmentSource, action_repeat=action_repeat, time_limit=time_limit, ignore=ignore)
            self.source = wanted(environment, pixels, image_size, parts=parts or {})
        self._device = choose_device(device)
        own = field_names(self.settings_class)
        self._chosen = agent_settings(self.agent_name, settings, own)
        self._asked, self._usual = preset, default_preset(self.agent_name, self._device.type)
        make_config(
            self.agent_name, self._chosen, preset or self._usual
        )  # mistakes are reported before an environment is made
        self.translator = self.source.translator()
        self.interface = self.translator.interface
        folder = Path(run) if run else default_path(self.source.name, self.agent_name, seed, code=self.source.code)
        self.run_folder = folder.absolute()  # an environment may change the working directory
        self._may_change = run is not None if change is None else change
        self._run_settings = {key: value for key, value in settings.items() if key in own}
        self._run_settings |= {"seed": seed, "device": device}
        self._settle(stored_run(self.run_folder, self.agent_name))
        self._saved_in: Path | None = None
        self._stored_environment: Mapping[str, Any] | None = None
        self._trained = False
        self._code_of_run: Mapping[str, str] | None = None
        self._updates: int | None = None
        self._longest_episode: int | None = None
        self._vectorization: Vectorization = self._settings.get("vectorization", "auto")
        self._agent: Any = None
        self._adapter: EnvironmentAdapter | None = None

    def _settle(self, stored: StoredRun | None, steps: int | None = None) -> None:
        """Fills in the settings that nobody chose: those of a run that is there, else those of the preset."""
        name, own = self.agent_name, field_names(self.settings_class)
        usual, task, steps = self._usual, self.interface, steps or self._run_settings.get("steps")
        self.preset, values = run_defaults(name, self._asked, usual, stored=stored, interface=task, steps=steps)
        if self.source.kind == "object":
            values["num_envs"] = 1
        self._settings = {key: value for key, value in values.items() if key in own} | self._run_settings
        self.settings_class(**self._settings)  # says what cannot work before anything is made
        mine = {key: value for key, value in values.items() if key in field_names(config_class(name))}
        self.config = make_config(name, {**mine, **self._chosen}, preset=None)

    @property
    def adapter(self) -> EnvironmentAdapter:
        """An environment with the wrappers of training, made when it is first asked for; `learn` closes it.

        Raises:
            EnvironmentProblem: it cannot be made, or only a file names the module that it is in.
            ConfigError: it was a function or an object, and the agent was loaded without it.
        """
        if self._adapter is None:
            self._adapter = self.source.make()
        return self._adapter

    @property
    def agent(self) -> Any:
        """World model, behavior and optimizer; before `learn` or `load` with the weights that the seed gives."""
        if self._agent is None:
            devices = [self._device] if self._device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                torch.manual_seed(self._settings["seed"])
                self.agent = self._build()
            return self.agent
        return self._agent

    @agent.setter
    def agent(self, agent: Any) -> None:
        agent.compute_dtype = choose_precision(self._settings.get("precision", "auto"), self._device)
        self._agent = agent

    def _build(self) -> Any:
        """A new agent on the device."""
        return self.config.build(self.interface).to(self._device)

    @checked_arguments
    def learn(
        self,
        steps: int | None = None,
        *,
        progress: bool = True,
        from_: str | Path | None = None,
        from_checkpoint: str = "best",
        from_replay: bool = False,
    ) -> Learner:
        """Trains until the run has made `steps` environment steps, resuming from its last checkpoint.

        Args:
            steps: environment steps at the end, counted from the beginning of the run; by default as the preset says.
            progress: show a progress bar.
            from_: run folder or saved agent whose weights a new run begins with. It must have learned with the same
                observations and actions, perhaps in another environment (curriculum, fine-tuning). The agent's
                settings are those of that run unless they were given.
            from_checkpoint: in a run folder `best`, `latest`, or the name of a checkpoint.
            from_replay: begin with the experience of that run, too; it must have as many environments.

        Returns:
            The learner itself, with the newest weights.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; a checkpoint was written first.
            ConfigError: the agent was loaded from a folder made by `save`, which has no optimizer state and no replay.
        """
        if self._saved_in is not None:
            raise ConfigError(
                f"{self._saved_in} holds weights only, neither optimizer state nor experience, so its run cannot be "
                f"resumed from it; load the run folder that it came from, or begin a new run with learn(from_=...)"
            )
        self.close()
        origin = None if from_ is None else Origin(Path(from_), from_checkpoint, from_replay)
        if stored_run(self.run_folder, self.agent_name) is None:
            self._settle(None if origin is None else stored_run(origin.path, self.agent_name), steps)
        settings = TrainSettings(**{**self._settings, **({} if steps is None else {"steps": steps})})
        trainer = Trainer(
            self.config,
            settings,
            self._source_of_run(),
            path=self.run_folder,
            visible=progress,
            preset=self.preset,
            change=self._may_change,
            origin=origin,
        )
        try:
            complete = trainer.run()
        finally:
            trainer.close()
            self._adopt(trainer)
        if not complete:
            raise KeyboardInterrupt
        return self

    def _adopt(self, trainer: Trainer) -> None:
        """Takes over what was learned, also if an error has ended it; where weights diverged, the last whole ones."""
        if not trainer.updater.diverged:
            self.agent, self._updates = trainer.agent, trainer.updater.updates
        elif trainer.checkpoints.names():
            self.agent, description = load_model(self.run_folder, self._device, "latest")
            self._updates = description["updates"]
        self._longest_episode, self._vectorization = trainer.collector.longest, trainer.vectorization
        self._trained = True

    def _source_of_run(self) -> EnvironmentSource:
        """The recipe, taken for the code of the run that was loaded with it."""
        if self._code_of_run is None:
            return self.source
        difference = code_difference(self._code_of_run, self.source.code)
        if difference is not None:
            warnings.warn(
                f"the run in {self.run_folder} continues with other code than it began with: {difference}", stacklevel=3
            )
        return self.source.with_code(self._code_of_run)

    @checked_arguments
    def evaluate(
        self,
        episodes: int = 10,
        *,
        deterministic: bool = False,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
        episode_limit: int | None = None,
        watch: Callable[[Playing], None] | None = None,
        info: Sequence[str] | None = None,
        video: str | Path | None = None,
        fps: int | None = None,
    ) -> Evaluation:
        """Plays episodes in fresh environments.

        Args:
            episodes: how many.
            deterministic: take most likely latents and actions; by default as in the agent's paper: DreamerV3 samples
                both, the agents before it sample latents and take the most likely actions. `predict` does the same.
            seed: of the episodes and of sampling.
            progress: called with the number of finished episodes.
            episode_limit: decisions after which an episode is cut off. By default that is the environment's time limit,
                or where it has none ten times the longest episode of training, at least 500, or 10,000 where that is
                not known; then a warning says if episodes were cut off.
            watch: called after every step with how far the evaluation is.
            info: names of numbers of the environment's info, such as `("success",)`, whose values in the last step of
                every episode are kept in `Evaluation.info`; by default those of the setting `info`.
            video: file to write the played episodes to, ending in `.mp4` or `.gif`, or `human` for a window. A long
                film is cut off, with a warning (`reverie.dream.film.MOST_FRAMES`).
            fps: frames per second of the video; by default as the environment's makers meant it.

        Raises:
            ConfigError: an option is out of range, or the environment shows nothing that could be filmed.
        """
        if self._updates == 0:
            warnings.warn("the agent has made no update: these are the scores of untrained weights", stacklevel=2)
        options: dict[str, Any] = {"progress": progress, "limit": episode_limit, "watch": watch}
        options["info"] = checked_names(self._settings.get("info", ()) if info is None else info)
        if video is None:
            return self._play(episodes, seed, deterministic=deterministic, **options)
        updates = "" if self._updates is None else f", {self._updates:,} updates"
        title = f"{self.agent_name} on {self.source.name}{updates}"
        with contextlib.closing(audience_of(video, self.adapter, title, fps=fps)) as audience:
            result = self._play(episodes, seed, deterministic=deterministic, audience=audience, **options)
            audience.save()
        return result

    def _play(self, episodes: int, seed: int, **options: Any) -> Evaluation:
        """See `evaluate` of `reverie.training.evaluation`; how environments are stepped is chosen once."""
        if self._lanes() == 1:
            self.close()  # perhaps there may be only one simulator at a time
        else:
            self._vectorization = evaluation.settle_vectorization(self._vectorization, self.source, episodes, seed=seed)
        options |= {"vectorization": self._vectorization, "longest": self._longest_episode, "num_envs": self._lanes()}
        return evaluation.evaluate(self.agent, self.source, episodes, seed=seed, **options)

    def predict(
        self,
        observation: Any,
        state: PolicyState | None = None,
        *,
        deterministic: bool = False,
        episode_start: Any = None,
    ) -> tuple[Any, PolicyState]:
        """Chooses an action for one observation of the environment, or for a batch, as `evaluate` does.

        The environment is not needed for it. Sampling follows PyTorch's global seed: after the same
        `torch.manual_seed` the same actions are chosen.

        Args:
            observation: as the environment returns it; with `pixels=True` a frame of its `render()`. For a batch its
                arrays have an axis [N] in front, as those of a vector environment have.
            state: what the previous call returned; None at the beginning of an episode.
            deterministic: take most likely latents and actions; by default as in the agent's paper: DreamerV3 samples
                both, the agents before it sample latents and take the most likely actions.
            episode_start: bool, or bool [N] for a batch, whether the observation begins an episode; by default where
                there is no state.

        Returns:
            An action as the environment takes it, or a batch of them, and the state for the next call.

        Raises:
            EnvironmentProblem: an observation does not fit its space.
            ConfigError: the state is of another number of observations.
        """
        count, parts = encode_batch(self.translator, observation)
        device, lanes = self.agent.device, count or 1
        if state is not None and state.action.shape[0] != lanes:
            raise ConfigError(
                f"predict got {lanes} observations and the state of {state.action.shape[0]}; give what the previous "
                f"call for as many observations returned, or None"
            )
        begins = np.broadcast_to(state is None if episode_start is None else episode_start, lanes).astype(np.bool_)
        is_first = torch.from_numpy(begins.copy()).to(device)
        action, state = self.agent.act(to_tensors(parts, device), is_first, state, deterministic=deterministic)
        decoded = [self.translator.decode_action(flat) for flat in action.float().cpu().numpy()]
        return decoded[0] if count is None else join_batch(self.translator.environment.action_space, decoded), state

    def latents(self, observations: Any, actions: Any = None, *, deterministic: bool = True) -> np.ndarray:
        """What the world model makes of observations: features for other programs, such as a probe or a classifier.

        Args:
            observations: a batch [N, ...] in the structure of the observation space, as `predict` takes it.
            actions: a batch of N actions, each taken after the observation at its place; the observations are then one
                episode in order. Without them every observation counts as the first of an episode.
            deterministic: take the most likely latents instead of drawing them.

        Returns:
            float32 [N, F]: h and z side by side, D + S C numbers in the recurrent state-space models.

        Raises:
            EnvironmentProblem: an observation does not fit its space.
            ConfigError: it is not a batch, or there are not as many actions.
        """
        count, parts = encode_batch(self.translator, observations)
        if count is None:
            raise ConfigError(
                "latents needs a batch: observations with an axis [N] in front, such as observation[None]"
            )
        device, model = self.agent.device, self.agent.world_model
        tensors = to_tensors(parts, device)
        with torch.no_grad():
            if actions is None:
                first = torch.ones(count, dtype=torch.bool, device=device)
                _, state = self.agent.act(tensors, first, deterministic=deterministic)
                return model.feature(state.latent).float().cpu().numpy()
            taken = encode_actions(self.translator, actions, count)
            features, state = [], None
            for t, flat in enumerate(taken):
                now = {name: value[t : t + 1] for name, value in tensors.items()}
                _, state = self.agent.act(now, torch.tensor([not t], device=device), state, deterministic=deterministic)
                features.append(model.feature(state.latent))
                state.action = torch.from_numpy(flat[None]).to(device)
            return torch.cat(features).float().cpu().numpy()

    @checked_arguments
    def dream(
        self, length: int = 50, sequences: int = 6, *, seed: int = 0, watch: Callable[[Playing], None] | None = None
    ) -> OpenLoop:
        """Plays the beginnings of episodes, shows the world model their first half and lets it imagine the rest.

        Args:
            length: steps per sequence, at most 100.
            sequences: how many.
            seed: of the episodes and of sampling.
            watch: called after every step with how far it is.

        Raises:
            ConfigError: the agent has neither learned nor been loaded.
        """
        self._check_trained()
        check_sequences(length, sequences)
        result = self._play(sequences, seed, record=sequences, limit=evaluation.RECORDED_STEPS, watch=watch)
        return self._open_loop(choose_sequences(result.episodes, length, sequences))

    def _open_loop(self, sequences: dict[str, np.ndarray]) -> OpenLoop:
        return predict_open_loop(self.agent, sequences)

    @checked_arguments
    def dream_env(
        self,
        num_envs: int | None = None,
        *,
        horizon: int = 100,
        temperature: float = 1.0,
        most_likely: bool = False,
        draw_ends: bool | None = None,
        observation: DreamObservation = "decoded",
        starts: int = 64,
        context: int = 1,
        seed: int = 0,
        render_mode: str | None = None,
    ) -> DreamEnv | DreamVectorEnv:
        """The world model as a Gymnasium environment with the spaces of the real one.

        Real episodes are begun first, to have states from which dreams can start.

        Args:
            num_envs: dreams in one vector environment; None for a single environment.
            horizon: steps after which a dreamed episode is truncated.
            temperature: of the latents; above 1 the dream is more random than the model, below 1 less.
            most_likely: take the most likely latents and ends instead of drawing them.
            draw_ends: draw the ends with the model's probability, or let a dream end where that is above the model's
                threshold; by default as `most_likely` says, and in World Models as its setting `draw_ends` says.
            observation: `decoded`, as the environment's observations are, or `latent`, features [D + S C].
            starts: number of starting states.
            context: real observations that the model sees before each start.
            seed: of the real episodes.
            render_mode: None or `rgb_array`.

        Raises:
            ConfigError: the agent has neither learned nor been loaded, or an option is out of range.
        """
        self._check_trained()
        states = self._starts(starts, context, seed)
        lanes = 1 if num_envs is None else num_envs
        dream = Dream(
            self.agent.world_model, states, lanes, temperature=temperature, most_likely=most_likely, draw_ends=draw_ends
        )
        kind = DreamEnv if num_envs is None else DreamVectorEnv
        adapter = self.translator if render_mode is None else self.adapter
        return kind(dream, adapter, horizon=horizon, observation=observation, render_mode=render_mode)

    def _check_trained(self) -> None:
        """Refuses to dream in a world model that knows nothing."""
        if not self._trained:
            raise ConfigError(
                "the world model of this agent has not learned yet, so it has nothing to dream: call learn, or load a "
                "trained agent with reverie.load"
            )

    def _starts(self, count: int, context: int, seed: int) -> Any:
        """States in which dreams begin, [N, ...]."""
        return collect_starts(
            self.agent, self.source, count, context=context, seed=seed, vectorization=self._vectorization
        )

    @checked_arguments
    def save(self, folder: str | Path) -> None:
        """Writes the agent to a folder: config.json and model.safetensors, with all that acting and dreaming need."""
        save_model(Path(folder), self.agent, self._description())

    def _description(self) -> dict[str, Any]:
        """What `load` needs besides the weights."""
        return {
            "agent": self.agent_name,
            "agent_config": asdict(self.config),
            "environment": self._stored_environment or self.source.to_json(),
            "interface": self.interface.to_json(),
            "spaces": self.source.spaces,
            "seed": self._settings["seed"],
            "updates": self._updates,
            "longest_episode": self._longest_episode,
        }

    def close(self) -> None:
        """Closes the environment of `adapter`, if one was made; it is made again when it is asked for."""
        if self._adapter is not None:
            self._adapter.close()
        self._adapter = None

    def _lanes(self) -> int | None:
        """How many environments an evaluation may have: one where training has one, None if that is open."""
        wanted = self._settings.get("evaluation_envs")
        return 1 if wanted == 0 or (wanted is None and self._settings.get("num_envs") == 1) else wanted
