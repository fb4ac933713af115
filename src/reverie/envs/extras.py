"""Which optional package an environment id needs, and the list of known environments."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import gymnasium

from reverie.envs.calls import Calls
from reverie.errors import EnvironmentProblem


@dataclass(frozen=True)
class Extra:
    """One optional suite of environments.

    Attributes:
        name: the extra, as in `pip install "reverie-rl[name]"`.
        pattern: regular expression that the beginning of an environment id matches, without any `module:`.
        package: module that must be importable.
        registers: module whose import registers the ids; empty if gymnasium itself does.
        example: an id of the suite, for lists; empty if there is no Gymnasium id for it yet.
    """

    name: str
    pattern: str
    package: str
    registers: str = ""
    example: str = ""

    @property
    def installed(self) -> bool:
        """True if the package can be imported."""
        return importlib.util.find_spec(self.package) is not None


_MUJOCO_TASKS = (
    "Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedDoublePendulum|InvertedPendulum|Pusher|Reacher|Swimmer|"
    "Walker2d"
)
EXTRAS = (
    Extra(
        "box2d",
        r"(reverie/CarRacing|reverie/WorldModelsCarRacing|CarRacing|LunarLander|LunarLanderContinuous|BipedalWalker|BipedalWalkerHardcore)-",
        "Box2D",
    ),
    Extra("mujoco", rf"({_MUJOCO_TASKS})-", "mujoco"),
    Extra("atari", r"ALE/", "ale_py", registers="ale_py", example="ALE/Pong-v5"),
    Extra("dmc", r"dmc/", "dm_control"),
    Extra("minigrid", r"(MiniGrid|BabyAI)-", "minigrid", registers="minigrid", example="MiniGrid-MemoryS7-v0"),
    Extra(
        "vizdoom",
        r"Viz[Dd]oom|reverie/TakeCover-",
        "vizdoom",
        registers="vizdoom.gymnasium_wrapper",
        example="VizdoomTakeCover-v1",
    ),
    Extra("bsuite", r"bsuite/", "bsuite", registers="shimmy", example="bsuite/memory_len-v0"),
)


def extra_for(environment_id: str) -> Extra | None:
    """The optional suite to which an id belongs, or None."""
    bare = environment_id.rpartition(":")[2]
    return next((extra for extra in EXTRAS if re.match(extra.pattern, bare)), None)


def register_suite(environment_id: str) -> None:
    """Import the package that registers `environment_id`, if the id is unknown and belongs to an optional suite.

    Raises:
        EnvironmentProblem: if the package is not installed.
    """
    extra = extra_for(environment_id)
    if extra is None or ":" in environment_id or environment_id in gymnasium.registry:
        return
    if not extra.installed:
        raise missing_package(environment_id, ModuleNotFoundError(f"no module named {extra.package!r}"))
    if extra.registers:
        import_module(environment_id, extra.registers)


def look_in_current_folder(environment_id: str) -> None:
    """Lets `module:Id` find its module in the current folder, as a program that lies there would.

    An installed command does not look there by itself. Only for an id that the user has written, since importing a
    module runs its code.
    """
    top = environment_id.rpartition(":")[0].partition(".")[0]
    here = os.getcwd()
    if top and here not in sys.path and any(os.path.exists(os.path.join(here, name)) for name in (top, f"{top}.py")):
        sys.path.insert(0, here)


def import_module(environment_id: str, module: str) -> None:
    """Import the module that registers an id.

    Raises:
        EnvironmentProblem: it cannot be imported; the message says which import has failed.
    """
    if module not in sys.modules:
        Calls(f"the module {module!r}").run("import", _import, environment_id, module)


def _import(environment_id: str, module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise missing_package(environment_id, error) from error
    except Exception as error:
        if extra_for(environment_id) is None:
            raise
        raise missing_package(environment_id, error) from error


def missing_package(environment_id: str, error: Exception) -> EnvironmentProblem:
    """The error for an import that has failed: which one, and what to install."""
    extra, module = extra_for(environment_id), environment_id.rpartition(":")[0]
    remedy = f'pip install "reverie-rl[{extra.name}]"' if extra is not None else "install the package that it needs"
    if isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0]) and module:
        return EnvironmentProblem(
            f"the environment {environment_id!r} needs the module {error.name!r}, which is not installed and not in "
            f"the current folder: run the command in the folder that holds it, or install its package"
        )
    by = _importer(error)
    if isinstance(error, ModuleNotFoundError | gymnasium.error.DependencyNotInstalled):
        return EnvironmentProblem(
            f"the environment {environment_id!r} needs a package that is not installed ({error}{by}): {remedy}"
        )
    repair = remedy.replace("install", "install --force-reinstall", 1)
    return EnvironmentProblem(
        f"the environment {environment_id!r} needs a package whose import fails ({type(error).__name__}: {error}{by}): "
        f"repair the installation, e.g. with {repair}"
    )


def _importer(error: Exception) -> str:
    """The module whose import ended with the error, in words; empty if it was only ours."""
    name = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        current = frame.f_globals.get("__name__", "")
        if current.partition(".")[0] not in ("importlib", "reverie"):
            name = current
    return f", imported by {name}" if name and name != "gymnasium.envs.registration" else ""


def list_environments() -> list[dict[str, Any]]:
    """Environments that `make` knows, newest versions only, sorted by suite and id.

    Returns:
        One dictionary each with `id`, `suite`, `extra` (the extra to install, or None) and `installed`. A suite that
        is not installed, and so cannot name its environments, has one row with an example id.
    """
    broken = set()
    for extra in EXTRAS:
        if extra.registers and extra.installed:
            try:
                import_module(extra.example, extra.registers)
            except EnvironmentProblem:  # a broken installation must not spoil the list
                broken.add(extra.name)
    rows = [_row(spec) for spec in _newest_versions()]
    listed = {row["id"] for row in rows}
    rows += [
        {"id": extra.example, "suite": extra.name, "extra": extra.name, "installed": False}
        for extra in EXTRAS
        if extra.example and extra.example not in listed and (extra.name in broken or not extra.installed)
    ]
    return sorted(rows, key=lambda row: (row["suite"], row["id"]))


def _newest_versions() -> list[gymnasium.envs.registration.EnvSpec]:
    """The registered environment specifications without older versions, deprecated ids and gymnasium's JAX demos."""
    newest: dict[tuple[str | None, str], gymnasium.envs.registration.EnvSpec] = {}
    for spec in gymnasium.registry.values():
        if not isinstance(spec.entry_point, str) or spec.namespace in ("phys2d", "tabular") or _lacks_files(spec):
            continue
        key = (spec.namespace, spec.name)
        if key not in newest or (spec.version or 0) > (newest[key].version or 0):
            newest[key] = spec
    return list(newest.values())


def _lacks_files(spec: gymnasium.envs.registration.EnvSpec) -> bool:
    """Whether the id is one of those whose pictures the wheels of minigrid (3.2.0) lack, so that no reset works."""
    if not str(spec.entry_point).startswith("minigrid.envs.wfc"):
        return False
    package = importlib.util.find_spec("minigrid.envs.wfc")
    folders = package.submodule_search_locations if package is not None else None
    return not any(os.path.isdir(os.path.join(folder, "patterns")) for folder in folders or ())


def _row(spec: gymnasium.envs.registration.EnvSpec) -> dict[str, Any]:
    """One row of `list_environments`."""
    extra = extra_for(spec.id)
    if extra is not None:
        suite = extra.name
    elif spec.namespace:
        suite = spec.namespace
    else:
        parts = str(spec.entry_point).partition(":")[0].split(".")
        suite = parts[2].replace("_", "-") if parts[:2] == ["gymnasium", "envs"] else parts[0]
    return {
        "id": spec.id,
        "suite": suite,
        "extra": extra.name if extra is not None else None,
        "installed": extra is None or extra.installed,
    }
