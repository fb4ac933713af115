"""The agents by class: a class per agent, and what World Models does in its own way."""

from __future__ import annotations

from typing import Any

import numpy as np

from reverie.agents.registry import config_class
from reverie.api.learner import Learner
from reverie.dream.dream_env import DreamEnv, DreamVectorEnv
from reverie.dream.open_loop import OpenLoop, remember_open_loop
from reverie.errors import ConfigError
from reverie.training.model_files import load_model
from reverie.training.pipeline.settings import PipelineSettings
from reverie.training.pipeline.world_models import WorldModelsTraining


class DreamerV3(Learner):
    """DreamerV3, Nature 2025. Settings: `reverie.agents.dreamer_v3.DreamerV3Config`."""

    agent_name = "dreamer-v3"


class DreamerV3In2023(Learner):
    """DreamerV3, arXiv 2023. Settings: `reverie.agents.dreamer_v3_2023.DreamerV3In2023Config`."""

    agent_name = "dreamer-v3-2023"


class WorldModels(Learner):
    """World Models (2018), which learns in stages. Settings: `reverie.agents.world_models.WorldModelsConfig`.

    The tasks of its paper, `CarRacing-v3` and `VizdoomTakeCover-v1`, bring their environment and their preset.
    `evaluate`, `predict`, `dream` and `dream_env` are those of `Learner`. Dreams with `context=0`, the default here,
    begin in the first latents that the agent has stored instead of in fresh real episodes.
    """

    agent_name = "world-models"
    settings_class = PipelineSettings

    def learn(self, steps: int | None = None, *, progress: bool = True, **origin: Any) -> WorldModels:
        """Runs all stages, continuing where the run folder is.

        Args:
            steps: not used; settings such as `collect_episodes`, `memory_updates` and `generations` say how much.
            progress: show progress bars.
            origin: not used; its settings `reuse` and `vision` take parts of other runs.

        Returns:
            The learner itself, with the mean of the last distribution as its controller.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; everything was saved first.
            ConfigError: steps were given, or the agent was loaded from a folder made by `save`.
        """
        if steps is not None:
            raise ConfigError(
                f"world-models learns in stages, not for {steps} steps: call learn() and set collect_episodes, "
                f"vision_epochs, memory_updates and generations instead"
            )
        if origin.get("from_") is not None:
            raise ConfigError("world-models takes parts of other runs by its settings reuse and vision, not by from_")
        if self._saved_in is not None:
            raise ConfigError(
                f"{self._saved_in} holds an agent without its frames, so its run cannot be resumed from it; load the "
                f"run folder that it came from"
            )
        self.close()
        settings = PipelineSettings(**self._settings)
        source = self._source_of_run()
        training = WorldModelsTraining(self.config, settings, source, path=self.run_folder, visible=progress)
        try:
            complete = training.run()
        finally:
            training.close()
        if not complete:
            raise KeyboardInterrupt
        self.agent, description = load_model(self.run_folder, self._device)
        self._longest_episode = description["longest_episode"]
        self._trained = True
        return self

    def dream_env(
        self, num_envs: int | None = None, *, context: int = 0, draw_ends: bool | None = None, **options: Any
    ) -> DreamEnv | DreamVectorEnv:
        """See `Learner.dream_env`; `context=0` begins in stored first latents, at most `starts` of them.

        Latents and ends are those of the dreams in which C evolves.
        """
        draw_ends = self.config.draw_ends if draw_ends is None else draw_ends
        return super().dream_env(num_envs, context=context, draw_ends=draw_ends, **options)

    def _check_trained(self) -> None:
        super()._check_trained()
        if self.config.random_memory:
            raise ConfigError("the memory of this agent is random (random_memory), so it has nothing to dream")

    def _starts(self, count: int, context: int, seed: int) -> Any:
        return (
            super()._starts(count, context, seed)
            if context
            else self.agent.first_states(count, np.random.default_rng(seed))
        )

    def _open_loop(self, sequences: dict[str, np.ndarray]) -> OpenLoop:
        return remember_open_loop(self.agent.world_model, sequences)


class DreamerV2(Learner):
    """DreamerV2, 2021. Settings: `reverie.agents.dreamer_v2.DreamerV2Config`."""

    agent_name = "dreamer-v2"


class DreamerV1(Learner):
    """Dreamer, 2020. Settings: `reverie.agents.dreamer_v1.DreamerV1Config`."""

    agent_name = "dreamer-v1"


class PlaNet(Learner):
    """PlaNet, 2019. Settings: `reverie.agents.planet.PlaNetConfig`."""

    agent_name = "planet"


_CLASSES: tuple[type[Learner], ...] = (DreamerV3, DreamerV3In2023, DreamerV2, DreamerV1, PlaNet, WorldModels)
LEARNERS: dict[str, type[Learner]] = {cls.agent_name: cls for cls in _CLASSES}


def learner_class(name: str) -> type[Learner]:
    """The class of an agent by its name; for one of another package its subclass of `Learner`, or one made here.

    Raises:
        ConfigError: no agent has this name.
    """
    config = config_class(name)
    classes = (*_CLASSES, *Learner.__subclasses__())
    own = next((cls for cls in classes if getattr(cls, "agent_name", None) == name), None)
    return own or type(config.__name__, (Learner,), {"agent_name": name, "__doc__": config.__doc__})
