"""What the package says of itself, what it needs, and which Python `make` takes."""

import ast
import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import reverie

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BROUGHT_BY = {"pygame": "gymnasium[classic-control]"}
"""Modules that come with an extra of a package that is declared."""


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements):
    return {normal(re.match(r"[\w.-]+", line).group()) for line in requirements}


def third_party(folder):
    """Top-level modules that the files of a folder import anywhere, without Python's own and ours."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    own = {path.stem for place in ("tests", "benchmarks", "examples") for path in (ROOT / place).rglob("*.py")}
    return found - sys.stdlib_module_names - own - {"reverie", "__future__"}


@functools.cache
def distributions_of_modules():
    """Module -> names of the packages that it comes with."""
    return importlib.metadata.packages_distributions()


def declared(folder):
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"]]
    needed += [line for name, lines in extras.items() if folder != "src" or name != "dev" for line in lines]
    return needed


@pytest.mark.parametrize("folder", ["src", "tests", "examples"])  # benchmarks run other libraries as well
def test_every_imported_module_is_declared(folder):
    distributions = distributions_of_modules()
    requirements = declared(folder)
    for module in sorted(third_party(ROOT / folder)):
        if module in BROUGHT_BY:
            assert any(line.startswith(BROUGHT_BY[module]) for line in requirements), module
            continue
        sources = {normal(name) for name in distributions.get(module, [module])}
        assert sources & names(requirements), f"{folder} imports {module}, which pyproject.toml does not declare"


def test_every_dependency_is_imported():
    distributions = distributions_of_modules()
    imported = {normal(name) for module in third_party(ROOT / "src") for name in distributions.get(module, [module])}
    assert names(PROJECT["dependencies"]) - imported == set()


def test_every_dependency_is_pinned():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = names(line for line in lines if not line.startswith("#"))
    assert names(PROJECT["dependencies"]) <= pinned


def test_the_package_says_who_made_it_and_what_it_is_for():
    assert PROJECT["authors"] == [{"name": "Reverie contributors"}]
    assert PROJECT["keywords"] and PROJECT["version"] == reverie.__version__
    versions = {entry.split(" :: ")[-1] for entry in PROJECT["classifiers"] if "Python :: 3." in entry}
    assert versions == {"3.11", "3.12", "3.13"}


def run_make(folder, pythons, *words):
    """Runs make where only these programs are found: name -> what a shell does for it."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    for name, does in pythons.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"} | {"PATH": str(programs)}
    return subprocess.run(
        [make, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


REAL = f'exec {sys.executable} "$@"'


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3.11": REAL, "python3.12": REAL, "python3.13": REAL}, "python3.11"),
        ({"python3.12": REAL, "python3.13": REAL}, "python3.12"),
        ({"python3.11": "exit 127", "python3.12": "echo no; exit 1", "python3.13": REAL}, "python3.13"),
        ({"python3": REAL}, "python3"),
    ],
)
def test_make_takes_the_first_python_that_works(pythons, taken, tmp_path):
    done = run_make(tmp_path, pythons, "--dry-run", ".venv/installed")
    assert f"|| {taken} -m venv .venv" in done.stdout, done.stderr


@pytest.mark.parametrize("pythons", [{}, {"python3.11": "exit 1"}, {"python3": "exit 3"}])
def test_make_says_what_to_install_where_no_python_works(pythons, tmp_path):
    done = run_make(tmp_path, pythons, "demo")
    assert done.returncode != 0
    assert "no Python 3.11, 3.12 or 3.13" in done.stderr and "install one" in done.stderr
    assert not (tmp_path / ".venv").exists()
