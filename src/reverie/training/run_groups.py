"""Which runs belong together: those of one agent on one task whose settings are the same except for the seed."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from reverie.errors import ReverieError
from reverie.training.files import read_json
from reverie.training.settings import SAME_LEARNING, TrainSettings, may_change_in_stages

Setting = tuple[str, str]
"""Section of `config.json` and name; keyword arguments of the environment have the section `kwargs`."""

SEED: Setting = ("settings", "seed")
ALWAYS_APART = ("agent", "task")
"""Fields that separate runs whatever else does."""
_BOOKKEEPING = {"environment", "rebuildable", "plain_kwargs", "kwargs"}
_SURROUNDINGS = ("environment", "kwargs")
_VALUE_LETTERS, _SETTINGS_IN_A_NAME = 24, 12
_ABSENT = object()


@dataclass(frozen=True)
class RunIdentity:
    """What `config.json` says of a run.

    Attributes:
        folder: the run folder.
        task: environment id.
        agent: name of the agent.
        seed: seed, or the folder's name where it is not known.
        settings: values of the agent, the run, the environment and its parts; lists are tuples.
        label: name that was given to the run, in place of the agent's, or None.
    """

    folder: Path
    task: str
    agent: str
    seed: str
    settings: Mapping[Setting, Hashable]
    label: str | None

    @property
    def head(self) -> str:
        """What its legend begins with."""
        return self.agent if self.label is None else self.label

    def what_is_learned(self) -> set[Setting]:
        """The settings that change what the run learns, without the seed."""
        iterations = self.settings.get(("agent_config", "iterations"))
        free = may_change_in_stages(iterations if isinstance(iterations, int) else 1)
        unimportant = {("settings", name) for name in SAME_LEARNING} | {("agent_config", name) for name in free}
        return set(self.settings) - unimportant - {SEED}


R = TypeVar("R", bound=RunIdentity)


@dataclass(frozen=True)
class RunGroup(Generic[R]):
    """Runs that count as seeds of one thing.

    Attributes:
        name: label or agent, and what sets the group apart from others of its task.
        color_key: equal for groups on several tasks that should have the same color.
        runs: the runs, at least one.
        pooled: names of settings that change what is learned and differ between the runs.
    """

    name: str
    color_key: Hashable
    runs: tuple[R, ...]
    pooled: tuple[str, ...]

    @property
    def count(self) -> str:
        """How many runs there are, as seeds if none occurs twice."""
        word = "seed" if len({run.seed for run in self.runs}) == len(self.runs) else "run"
        return f"{len(self.runs)} {word}{'s' if len(self.runs) > 1 else ''}"


# ---------------------------------------------------------------- reading


def read_identity(folder: Path, label: str | None = None) -> RunIdentity:
    """Reads `config.json`; task, agent and seed that it does not say come from the folder names `task/agent/seed`."""
    resolved = folder.resolve()
    config: Any = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    config = config if isinstance(config, dict) else {}
    environment = _section(config, "environment")
    values: dict[Setting, Hashable] = {}
    for section in ("agent_config", "settings"):
        values |= {(section, name): _frozen(value) for name, value in _section(config, section).items()}
    values |= {("environment", k): _frozen(value) for k, value in environment.items() if k not in _BOOKKEEPING}
    values |= {("kwargs", name): _frozen(value) for name, value in _section(environment, "kwargs").items()}
    values |= _parts(_section(config, "interface")) | _history(config)
    seed = config.get("seed", values.get(SEED))
    seed = resolved.name if seed is None else seed
    values[SEED] = _frozen(seed)
    task = _name_in(config.get("environment")) or resolved.parent.parent.name
    agent = _name_in(config.get("agent")) or resolved.parent.name
    return RunIdentity(folder, task, agent, seed=str(seed), settings=values, label=label)


def _history(config: Mapping[str, Any]) -> dict[Setting, Hashable]:
    """The run that it began with, and the settings that were changed on the way, in words."""
    history: dict[Setting, Hashable] = {}
    origin = _section(config, "from")
    if origin:
        replay = " with its replay" if origin.get("replay") else ""
        history["history", "from"] = f"{origin.get('run')} at {origin.get('env_steps')} steps{replay}"
    changes = config.get("changes")
    for change in changes if isinstance(changes, list) else []:
        for name, values in _section(change, "settings").items() if isinstance(change, dict) else ():
            history["history", f"change of {name}"] = f"{values} at step {change.get('env_steps')}"
    return history


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A dictionary in the configuration; empty if there is none."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _name_in(value: Any) -> str:
    """The name in a config entry that is text or a dictionary with `environment` or `name`; empty if there is none."""
    if isinstance(value, dict):
        value = value.get("environment") or value.get("name")
    return value if isinstance(value, str) else ""


def _frozen(value: Any) -> Hashable:
    """A JSON value that compares and hashes; addresses in the memory of one process make no difference."""
    if isinstance(value, dict):
        return tuple(sorted((name, _frozen(entry)) for name, entry in value.items()))
    if isinstance(value, list | tuple):
        return tuple(_frozen(entry) for entry in value)
    return re.sub(r" at 0x[0-9a-fA-F]*", "", value) if isinstance(value, str) else value


def _parts(interface: Mapping[str, Any]) -> dict[Setting, Hashable]:
    """The observation and action parts of an environment, each as a short text such as `image 64x64x3`."""
    parts: dict[Setting, Hashable] = {}
    for kind, entries in (("observation", interface.get("observations")), ("action", interface.get("actions"))):
        for part in entries if isinstance(entries, list) else ():
            sizes = part.get("classes") or part.get("shape") or [part.get("size", "")]
            name = f"{kind}.{part.get('name')}"
            parts["interface", name] = f"{part.get('kind')} {'x'.join(map(str, sizes))}"
    return parts


def with_defaults(runs: Sequence[R]) -> list[R]:
    """The runs with what an older `config.json` does not say: the defaults of today's version.

    A run that says nothing of the parts of its environment has those of a run with otherwise the same settings.
    """
    keys = {agent: {key for run in runs if run.agent == agent for key in run.settings} for agent in _agents(runs)}
    everywhere = {key for run in runs for key in run.settings if key[0] in ("settings", "environment")}
    filled = []
    for run in runs:
        told = {key for key in keys[run.agent] if key[0] == "agent_config"} | everywhere
        missing = told - set(run.settings)
        filled.append(replace(run, settings={**run.settings, **_defaults(run.agent, missing)}))
    known = {_without_interface(run): run.settings for run in reversed(filled) if _interface(run.settings)}
    return [
        run
        if _interface(run.settings)
        else replace(run, settings={**run.settings, **_interface(known.get(_without_interface(run), {}))})
        for run in filled
    ]


def _agents(runs: Sequence[RunIdentity]) -> list[str]:
    return sorted({run.agent for run in runs})


def _interface(settings: Mapping[Setting, Hashable]) -> dict[Setting, Hashable]:
    return {key: value for key, value in settings.items() if key[0] == "interface"}


def _without_interface(run: RunIdentity) -> Hashable:
    """What identifies a run except for its seed and its environment's parts."""
    return _key(run, {key for key in run.what_is_learned() if key[0] != "interface"})


def _defaults(agent: str, missing: Collection[Setting]) -> dict[Setting, Hashable]:
    """Today's values of settings, None for those that today's version does not know."""
    today: dict[Setting, Any] = {}
    sections = {section for section, _ in missing}
    if "settings" in sections:
        today |= {("settings", field.name): field.default for field in fields(TrainSettings)}
    if "environment" in sections:
        from reverie.envs import EnvironmentSource

        today |= {("environment", field.name): field.default for field in fields(EnvironmentSource)}
        today |= {("environment", "kind"): "id", ("environment", "parts"): {}, ("environment", "code"): {}}
    if "agent_config" in sections:
        from reverie.agents.registry import agent_names, config_class

        known = fields(config_class(agent)) if agent in agent_names() else ()
        today |= {("agent_config", field.name): field.default for field in known}
    return {key: _frozen(today.get(key)) for key in missing}


# ---------------------------------------------------------------- grouping


def without_copies(runs: Sequence[R], by: Sequence[str] | None = None) -> tuple[list[R], list[tuple[R, R]]]:
    """Runs of which no two have the same task, agent, label, settings and seed.

    Args:
        runs: the runs; of equal ones the first is kept.
        by: further settings that make runs different ones, see `group_runs`.

    Returns:
        What is kept, and pairs of a run that is not and the one that stands for it.
    """
    kept: dict[Hashable, R] = {}
    copies = []
    chosen = _settings_called(by or (), runs)
    for run in runs:
        key = (_key(run, run.what_is_learned() | chosen), run.seed)
        if kept.setdefault(key, run) is not run:
            copies.append((run, kept[key]))
    return list(kept.values()), copies


def group_runs(runs: Sequence[R], by: Sequence[str] | None = None) -> dict[str, list[RunGroup[R]]]:
    """Groups runs of one task, one agent and one label by their settings, and names what differs between the groups.

    Args:
        runs: the runs, see `with_defaults`.
        by: names of the settings that separate groups; runs that differ in others only are pooled. `agent` stands for
            none but agent, task and label. By default all settings separate that change what is learned.

    Returns:
        Task -> groups, in the order of agents or labels and the values that differ.

    Raises:
        ReverieError: no run has a setting of that name.
    """
    chosen = None if by is None else _settings_called(by, runs)
    buckets: dict[Hashable, list[R]] = {}
    for run in runs:
        buckets.setdefault(_key(run, _separating(run, chosen)), []).append(run)
    tasks: dict[str, list[list[R]]] = {}
    for bucket in buckets.values():
        tasks.setdefault(bucket[0].task, []).append(bucket)
    shown: dict[str, set[Setting]] = {}
    for several in tasks.values():
        for bucket in several:
            shown.setdefault(bucket[0].head, set()).update(_differing(bucket[0], several, chosen))
    names = _Names(runs)
    return {task: _name_groups(tasks[task], shown, chosen, names=names) for task in sorted(tasks)}


def differing_settings(runs: Sequence[RunIdentity]) -> list[str]:
    """`agent`, `task` and names of settings that change what is learned, as far as they differ (`with_defaults`).

    The environment's parts are among them only where nothing else differs.
    """
    keys = {key for run in runs for key in run.what_is_learned()}
    differing = {key for key in keys if len({run.settings.get(key, _ABSENT) for run in runs}) > 1}
    names = _Names(runs)
    apart = [name for name in ALWAYS_APART if len({getattr(run, name) for run in runs}) > 1]
    return apart + sorted(map(names.setting, {key for key in differing if key[0] != "interface"} or differing))


def _key(run: RunIdentity, settings: Collection[Setting]) -> Hashable:
    return (run.task, run.label, run.agent, frozenset((key, run.settings.get(key, _ABSENT)) for key in settings))


def _separating(run: RunIdentity, chosen: set[Setting] | None) -> set[Setting]:
    return run.what_is_learned() if chosen is None else chosen


def _settings_called(names: Sequence[str], runs: Sequence[RunIdentity]) -> set[Setting]:
    """The settings that the names mean, `horizon` or, with its section, `kwargs.horizon`; dashes are underscores."""
    known = {key for run in runs for key in run.settings}
    found: set[Setting] = set()
    for name in names:
        wanted = name.strip("-").replace("-", "_")
        means = {key for key in known if wanted in (key[1].replace("-", "_"), ".".join(key).replace("-", "_"))}
        if not means and wanted not in ALWAYS_APART:
            close = difflib.get_close_matches(wanted, {key[1] for key in known}, 1)
            hint = f"did you mean {close[0]!r}?" if close else "the names are those of config.json, such as horizon"
            raise ReverieError(f"No run has a setting {name!r} to group by; {hint}")
        found |= means
    return found


def _differing(run: RunIdentity, buckets: Sequence[Sequence[RunIdentity]], chosen: set[Setting] | None) -> set[Setting]:
    """The settings that set a run's group apart from the other groups of its task.

    Settings of the agent and the run compare with groups of the same agent, those of the environment with all groups
    that no label names. The environment's parts count only where nothing else tells two groups apart.
    """
    firsts = [bucket[0] for bucket in buckets]
    family = [other for other in firsts if (other.head, other.agent) == (run.head, run.agent)]
    beside = [other for other in firsts if other.label is None] if run.label is None else family
    found = {
        key
        for other in firsts
        for key in _separating(other, chosen)
        for peers in [beside if key[0] in _SURROUNDINGS else family]
        if len({peer.settings.get(key, _ABSENT) for peer in peers}) > 1
    }
    brief = {key for key in found if key[0] != "interface"}
    return brief if len({_key(other, brief) for other in family}) == len(family) else found


def _name_groups(
    buckets: list[list[R]], shown: Mapping[str, set[Setting]], chosen: set[Setting] | None, names: _Names
) -> list[RunGroup[R]]:
    """The groups of one task, named and sorted."""
    differing = [_differing(bucket[0], buckets, chosen) for bucket in buckets]
    brief = [names.group(bucket[0], keys, _SETTINGS_IN_A_NAME) for bucket, keys in zip(buckets, differing, strict=True)]
    groups = []
    for bucket, keys, name in zip(buckets, differing, brief, strict=True):
        first = bucket[0]
        order = sorted(shown[first.head] | keys)
        values = tuple((key, first.settings.get(key, _ABSENT)) for key in order)
        whole = name if brief.count(name) == 1 else names.group(first, keys, len(keys))
        group = RunGroup(
            name=whole,
            color_key=(first.head, first.agent, values),
            runs=tuple(bucket),
            pooled=tuple(differing_settings(bucket)),
        )
        groups.append(((first.head, first.agent, [_order(value) for _, value in values]), group))
    return [group for _, group in sorted(groups, key=lambda pair: pair[0])]


def _order(value: Hashable) -> tuple[int, float, str]:
    """Sorts numbers before all else."""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


class _Names:
    """Short texts of settings, their values and groups.

    Args:
        runs: all runs of a figure; a value is shortened so that it differs from all others of its setting.
    """

    def __init__(self, runs: Sequence[RunIdentity]) -> None:
        self._agents: dict[str, set[str]] = {}
        values: dict[Setting, set[Hashable]] = {}
        for run in runs:
            self._agents.setdefault(run.head, set()).add(run.agent)
            for key, value in run.settings.items():
                values.setdefault(key, set()).add(value)
        self._values = values
        self._sections: dict[str, set[str]] = {}
        for section, name in values:
            self._sections.setdefault(name, set()).add(section)

    def setting(self, key: Setting) -> str:
        """The name, with its section if there are several of the name."""
        return key[1] if len(self._sections[key[1]]) == 1 else ".".join(key)

    def group(self, run: RunIdentity, keys: Collection[Setting], most: int) -> str:
        """Label or agent of a run, and its values of up to `most` settings: environment, then those of most values."""
        head = run.head if len(self._agents[run.head]) == 1 else f"{run.head}, {run.agent}"
        order = sorted(keys, key=lambda key: (key[0] not in _SURROUNDINGS, -len(self._values[key]), key))
        texts = [f"{self.setting(key)}={self._value(key, run.settings.get(key, _ABSENT))}" for key in order]
        if len(texts) > most:
            texts = [*texts[: most - 1], f"{len(texts) - most + 1} more"]
        return f"{head}: {', '.join(texts)}" if texts else head

    def _value(self, key: Setting, value: Hashable) -> str:
        if key[0] == "kwargs" and value is None:
            return "None"
        return _shortened(_text(value), {_text(other) for other in self._values[key]})


def _text(value: Hashable) -> str:
    """A value as a legend shows it."""
    if value is None or value is _ABSENT:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, tuple):
        whole = all(isinstance(entry, int) for entry in value)
        return "x".join(map(str, value)) if whole and value else json.dumps(value, separators=(",", ":"))
    return str(value)


def _shortened(text: str, texts: Collection[str]) -> str:
    """A text of few letters that still differs from all others of a set."""
    if len(text) <= _VALUE_LETTERS:
        return text
    room = _VALUE_LETTERS - 2
    start = max(len(os.path.commonprefix(sorted(texts))) - 2, 0)
    for cut in (slice(0, room), slice(-room, None), slice(start, start + room)):
        if len({other[cut] for other in texts}) == len(texts):
            part = text[cut]
            return f"{'' if text.startswith(part) else '…'}{part}{'' if text.endswith(part) else '…'}"
    return f"{text[:room]}… ({sorted(texts).index(text) + 1})"
