"""What is known of the task whose dreams are drawn: names, actions, and a renderer of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from reverie.dream.plots import Row
from reverie.envs import EnvironmentAdapter, EnvironmentSource
from reverie.envs.action_codec import ActionVariable
from reverie.envs.known_tasks import KnownTask, known_task
from reverie.envs.state_renderer import StateRenderer

MOST_ACTIONS = 4
"""Rows for the numbers of an action that are drawn."""


@dataclass(frozen=True)
class Scene:
    """What drawings of a task can use; an empty scene knows nothing.

    Attributes:
        names: part name -> names of its entries.
        variables: the numbers of an action.
        choices: names of the choices of a task with a single discrete action.
        renderer: draws observations; None where the task has none.
        part: the observation that the renderer draws.
    """

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    variables: tuple[ActionVariable, ...] = ()
    choices: tuple[str, ...] = ()
    renderer: StateRenderer | None = None
    part: str = ""

    @staticmethod
    def of(adapter: EnvironmentAdapter) -> Scene:
        """The scene of an environment, which is left alone."""
        parts = adapter.interface.observations
        task, renderer = known_task(adapter.environment), None
        names: dict[str, tuple[str, ...]] = {}
        if task is not None and len(parts) == 1 and parts[0].kind == "vector":
            renderer = StateRenderer.of(adapter.environment)
            if parts[0].shape == (len(task.observation),):
                names = {parts[0].name: task.observation}
        variables, choices = _named(adapter.action_variables, task)
        return Scene(names, variables, choices, renderer=renderer, part=parts[0].name)

    @staticmethod
    def of_source(source: EnvironmentSource) -> Scene:
        """The scene of a recipe, of which one environment is made for a moment."""
        adapter = source.make()
        try:
            return Scene.of(adapter)
        finally:
            adapter.close()

    def action_rows(self, actions: np.ndarray | None) -> list[Row]:
        """Rows that show flat actions [B, T, A]: choices by their names or numbers, others by their values."""
        if actions is None:
            return []
        return [
            Row(variable.name, variable.values(actions), held=True, choices=self.choices)
            for variable in self.variables[:MOST_ACTIONS]
        ]


def _named(
    variables: tuple[ActionVariable, ...], task: KnownTask | None
) -> tuple[tuple[ActionVariable, ...], tuple[str, ...]]:
    """The variables under the names that are known, and the names of the choices."""
    if task is None:
        return variables, ()
    if len(variables) == 1 and variables[0].discrete:
        matches = (variables[0].low, variables[0].high) == (0, len(task.choices) - 1)
        return variables, task.choices if matches else ()
    if len(variables) == len(task.controls):
        variables = tuple(replace(variable, name=name) for variable, name in zip(variables, task.controls, strict=True))
    return variables, ()
