"""Published scores: the tables of the papers, to be drawn beside our own runs.

Each file in `published_scores/` is one table of one source, and says what its columns are and what they count;
docs/published_scores.md lists the files and the layout.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from reverie.errors import ReverieError

Choice = Literal["none", "same", "agents", "all"]
"""Which published scores to draw: none, those of the agents of the runs, those of all agents of the library, or those
of baselines and variants too."""

KINDS = ("agent", "variant", "baseline", "reference")
"""What a series is: an agent of the library, a variant or ablation of one, another agent, or a number that only
serves to normalize others and is never drawn."""

_ALE_FRAME_SKIP = 4


@dataclass(frozen=True)
class PublishedScore:
    """What one source says about one agent on one task: a final score, or a curve.

    Attributes:
        task: environment id, as in the data file.
        agent: name of the agent in the library, or None.
        name: name of the agent in the source, with its variant.
        kind: one of `KINDS`.
        observation: what the agent sees, e.g. `images` or `vectors`.
        reference: the source in a few words.
        source: the source in full.
        seeds: number of training runs, or None if the source does not say.
        frames: environment frames of each point, increasing, float [P]; NaN if they are not known.
        mean: mean episode return at each point, float [P].
        deviation: standard deviation over what the table names, float [P]; NaN where the source has none.
    """

    task: str
    agent: str | None
    name: str
    kind: str
    observation: str
    reference: str
    source: str
    seeds: int | None
    frames: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


@dataclass(frozen=True)
class PublishedTable:
    """One data file.

    Attributes:
        file: its name.
        source: paper and table, or score file of the official code.
        reference: the source in a few words, for legends.
        x: what `frames` counts.
        score: what a number is the mean of.
        deviation: what the standard deviation is taken over, or None if there is none.
        notes: what a reader must know before comparing with these numbers.
        series: for each agent of the table `agent`, `name`, `kind`, `observation`, `frames` (one entry per column) and
            `seeds`.
        tasks: environment id -> the cells of its row, for all series one after the other: a mean, a pair of mean and
            standard deviation, or None.
        further: numbers of the source that are not returns in one task, by name.
    """

    file: str
    source: str
    reference: str
    x: str
    score: str
    deviation: str | None
    notes: tuple[str, ...]
    series: tuple[Mapping[str, Any], ...]
    tasks: Mapping[str, Sequence[Any]]
    further: Mapping[str, Any]

    def scores(self, task: str) -> list[PublishedScore]:
        """The row of a task, given by its id in this table, as one score or curve for each series that has values."""
        row, found = self.tasks[task], []
        for series in self.series:
            cells, row = row[: len(series["frames"])], row[len(series["frames"]) :]
            points = [
                (at, *(cell if isinstance(cell, list) else (cell, None)))
                for at, cell in zip(series["frames"], cells, strict=True)
                if cell is not None
            ]
            if points:
                frames, mean, deviation = np.array(points, dtype=np.float64).T  # each [P]; None becomes NaN
                found.append(
                    PublishedScore(
                        task,
                        **{key: series[key] for key in ("agent", "name", "kind", "observation", "seeds")},
                        reference=self.reference,
                        source=self.source,
                        frames=frames,
                        mean=mean,
                        deviation=deviation,
                    )
                )
        return found


@functools.cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All data files, sorted by name."""
    folder = files("reverie.training").joinpath("published_scores")
    tables = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".json"):
            content = json.loads(entry.read_text(encoding="utf-8"))
            content |= {"notes": tuple(content["notes"]), "series": tuple(content["series"])}
            tables.append(PublishedTable(file=entry.name, **content))
    return tuple(tables)


def published_tasks() -> list[str]:
    """The environment ids for which there are scores, sorted."""
    return sorted({task for table in published_tables() for task in table.tasks})


def task_key(environment_id: str) -> str:
    """What two ids of the same task have in common: its name without punctuation, version, module and library.

    `dmc/walker-walk-v0`, `dm_control/walker_walk` and the folder name `dmc-walker-walk-v0` are all `walkerwalk`;
    `ALE/Pong-v5` and `PongNoFrameskip-v4` are `alepong`; `reverie/CarRacing-v0`, `CarRacing-v3` and, with the picture
    and the actions of World Models, `reverie/WorldModelsCarRacing-v0` are `carracing`.
    """
    name = re.sub(r"[-_]v\d+$", "", environment_id.rpartition(":")[2])
    name = re.sub(r"[^a-z0-9]", "", name.lower())
    if name.endswith("noframeskip"):
        name = "ale" + name.removesuffix("noframeskip").removeprefix("ale")
    return re.sub(r"^(reverie|worldmodels|dmcontrol|dmc|vizdoom|doom)+", "", name)


def frames_in_a_step(environment_id: str, keywords: Mapping[str, Any]) -> int:
    """How many published frames one step of an environment is, before any action repeat.

    The Arcade Learning Environment repeats actions itself, and Atari scores count the frames of the emulator.

    Args:
        environment_id: the id.
        keywords: keyword arguments that the environment was made with.
    """
    if not re.match(r"ALE[/-]", environment_id.rpartition(":")[2]):
        return 1
    skip = keywords.get("frameskip")
    return skip if isinstance(skip, int) and skip > 0 else _ALE_FRAME_SKIP


def published_scores(environment_id: str) -> list[PublishedScore]:
    """All scores of a task, from all sources; empty if there is none.

    Args:
        environment_id: any id of the task, see `task_key`.
    """
    key = task_key(environment_id)
    return [
        score
        for table in published_tables()
        for task in table.tasks
        if task_key(task) == key
        for score in table.scores(task)
    ]


def choose_scores(environment_id: str, choice: Choice, agents: Collection[str]) -> list[PublishedScore]:
    """The scores of a task that a figure shows: agents of the library first, then variants, then baselines.

    A baseline that two papers quote is shown once.

    Args:
        environment_id: any id of the task.
        choice: which scores.
        agents: names of the agents whose runs are drawn, for the choice `same`.
    """
    chosen: dict[tuple[Any, ...], PublishedScore] = {}
    for score in published_scores(environment_id) if choice != "none" else ():
        wanted = score.kind == "agent" and (choice == "agents" or score.agent in agents)
        if wanted or (choice == "all" and score.kind != "reference"):
            same = (score.name, score.observation, *score.frames) if score.kind == "baseline" else (len(chosen),)
            chosen.setdefault(same, score)
    return sorted(chosen.values(), key=lambda score: KINDS.index(score.kind))


def refuse_without_scores(environment_ids: Sequence[str], choice: Choice, agents: Collection[str]) -> None:
    """Raises the error that says what is available, if no task has a score to draw.

    Args:
        environment_ids: tasks of the runs.
        choice: which scores were asked for.
        agents: names of the agents whose runs are drawn.

    Raises:
        ReverieError: there is nothing to draw.
    """
    if any(choose_scores(task, choice, agents) for task in environment_ids):
        return
    others = sorted({s.agent for task in environment_ids for s in choose_scores(task, "agents", ()) if s.agent})
    if others:
        raise ReverieError(
            f"There are no published scores of {_listed(agents)} in {_listed(environment_ids)}, but there are some of "
            f"{_listed(others)}: draw them with --published agents."
        )
    close = [match for task in environment_ids for match in _closest(task)]
    raise ReverieError(
        f"There are no published scores for {_listed(environment_ids)}"
        f"{f' (did you mean {_listed(close)}?)' if close else ''}; there are some for {available()} "
        f"(all in docs/published_scores.md)."
    )


def available() -> str:
    """The tasks that have scores, in a few words: all of a small suite, number and example of a large one."""
    suites: dict[str, list[str]] = {}
    for task in published_tasks():
        suites.setdefault(task.partition("/")[0], []).append(task)
    parts: list[str] = []
    for tasks in suites.values():
        parts += tasks if len(tasks) < 4 else [f"{len(tasks)} tasks like {tasks[-1]}"]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _closest(environment_id: str) -> list[str]:
    """The known id whose name is much like the given one, or nothing."""
    known = {task_key(task): task for task in published_tasks()}
    return [known[key] for key in difflib.get_close_matches(task_key(environment_id), known, 1, 0.8)]


def _listed(names: Collection[str]) -> str:
    """Names separated by commas."""
    return ", ".join(sorted(set(names)))
