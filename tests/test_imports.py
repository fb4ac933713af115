"""The one-way rule of the imports, and other promises that the source itself must keep."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

import reverie
from reverie.agents.registry import AGENTS, PIPELINES

ROOT = Path(reverie.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Package -> packages it may import besides itself. `reverie` is __init__.py: the version and lazy names.
LINE = ["nn", "models", "behaviors", "agents", "dream", "training"]
BASE = {"ops", "errors", "spaces", "safe_files", "tensor_files", "typed_values"}
ALLOWED = {
    "errors": set(),
    "spaces": set(),
    "ops": set(),
    "safe_files": {"errors"},
    "tensor_files": {"errors", "safe_files"},
    "typed_values": {"errors"},
    "optim": {"ops", "errors"},
    "replay": BASE,
    "envs": BASE,
}
for _position, _package in enumerate(LINE):
    ALLOWED[_package] = BASE | set(LINE[:_position])
for _package in ("agents", "dream", "training"):
    ALLOWED[_package] |= {"optim"}
ALLOWED["dream"] |= {"envs", "replay"}
ALLOWED["training"] |= {"envs", "replay", "reverie"}
ALLOWED["api"] = BASE | set(LINE) | {"optim", "envs", "replay"}
ALLOWED["cli"] = ALLOWED["api"] | {"api", "reverie"}
ALLOWED["reverie"] = {"api"}
ALLOWED["__main__"] = {"cli"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def package_of(module: str) -> str:
    """reverie.nn.cells -> nn; reverie.errors -> errors; reverie -> reverie."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imported(path: Path) -> set[str]:
    """Modules of reverie that a file imports anywhere: at the top, within functions, for type checking only."""
    found: set[str] = set()
    own = module_of(path).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "reverie"}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = own if path.name == "__init__.py" else own[:-1]
                base = base[: len(base) - node.level + 1]
                source = ".".join([*base, *([node.module] if node.module else [])])
            else:
                source = node.module or ""
            if source.split(".")[0] == "reverie":
                for alias in node.names:
                    whole = f"{source}.{alias.name}"
                    found.add(whole if whole in MODULES else source)
    return found


def strings_that_name_modules(path: Path) -> set[str]:
    """Modules named in strings for importlib, as `reverie.agents.dreamer_v3:Config`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.split(":")[0]
            if name in MODULES and name != "reverie":
                found.add(name)
    return found


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_source_was_found():
    assert len(FILES) > 50
    assert {"reverie", "reverie.ops.returns", "reverie.cli.main"} <= MODULES.keys()


def test_every_package_has_its_place_in_the_rule():
    assert {package_of(module) for module in MODULES} <= ALLOWED.keys()


@pytest.mark.parametrize("path", FILES, ids=names)
def test_imports_point_one_way(path):
    own = package_of(module_of(path))
    for module in imported(path) | strings_that_name_modules(path):
        package = package_of(module)
        assert package == own or package in ALLOWED[own], f"{module_of(path)} must not import {module}"


def test_everything_imported_exists():
    for path in FILES:
        for module in imported(path):
            assert module in MODULES, f"{module_of(path)} imports {module}"


# Cycles that are known and wait to be mended. Each closes with an import within a function.
def test_modules_have_no_cycle():
    graph = {module: imported(path) & MODULES.keys() for module, path in MODULES.items()}
    # The front door names its rooms lazily, and rooms read the version from it: no cycle when imported.
    graph["reverie"] = set()
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module in done:
            return
        for following in sorted(graph[module] - {module}):
            visit(following, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_the_checker_sees_imports_in_functions_and_for_type_checking(tmp_path, monkeypatch):
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from reverie.api import load\n"
        "def f():\n    import reverie.cli.main\n    from reverie import errors\n    from . import returns\n"
    )
    path = ROOT / "ops" / "imaginary.py"
    monkeypatch.setattr(Path, "read_text", lambda self, **options: source)
    assert imported(path) == {"reverie.api", "reverie.cli.main", "reverie.errors", "reverie.ops.returns"}


# ---------------------------------------------------------------- nothing heavy


def loaded_by(statement: str) -> set[str]:
    """Names of the modules that a fresh Python has after a statement."""
    code = f"{statement}\nimport sys\nprint('\\n' + ' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(result.stdout.splitlines()[-1].split())


HEAVY = {"torch", "gymnasium", "matplotlib", "scipy", "tensorboard", "av", "PIL", "safetensors"}


def test_import_reverie_is_light():
    loaded = loaded_by("import reverie; reverie.__version__")
    assert "reverie" in loaded
    assert not loaded & (HEAVY | {"numpy"})


def test_help_is_light():
    loaded = loaded_by("from reverie.cli.main import main\nassert main(['--help']) == 0")
    assert "reverie.cli.main" in loaded
    assert not loaded & (HEAVY | {"numpy", "tyro", "rich"})


def test_help_as_a_process():
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "reverie.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "usage: reverie" in result.stdout
    modules = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if "|" in line}
    assert not modules & HEAVY


def test_names_of_the_front_door_are_found_lazily():
    loaded = loaded_by("import reverie; reverie.DreamerV3")
    assert {"reverie.api", "torch"} <= loaded
    assert set(reverie.__all__) >= {"DreamerV3", "DreamerV3In2023", "load"}
    for name in reverie.__all__:
        assert hasattr(reverie, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        reverie.nonsense  # noqa: B018


# ---------------------------------------------------------------- readable


@pytest.mark.parametrize("path", FILES, ids=names)
def test_files_and_functions_are_small_and_explained(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    assert len(text.splitlines()) <= (300 if path.parent.name == "agents" else 499)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 < 120, node.name


def test_our_functions_are_called_with_names():
    """No call of ours has more than three arguments without a name where agents are composed, and few elsewhere."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    nodes = {path: list(ast.walk(tree)) for path, tree in trees.items()}
    ours = {node.name for found in nodes.values() for node in found if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    calls = []
    for path, found in nodes.items():
        for call in (node for node in found if isinstance(node, ast.Call) and len(node.args) > 3):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in ours or ast.unparse(call.func) == "super().__init__":
                calls.append(f"{path.relative_to(ROOT)}:{call.lineno} {ast.unparse(call.func)}")
    # `Tensor.expand` shares its name with a function of ours.
    composed = [call for call in calls if call.split("/")[0] in ("agents", "nn", "models", "behaviors")]
    assert [call for call in composed if not call.endswith(".expand")] == []
    assert len(calls) < 10, calls


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "agents"], ids=names)
def test_every_setting_of_an_agent_says_where_it_comes_from(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Config")):
        for node, following in zip(cls.body, [*cls.body[1:], None], strict=True):
            if not isinstance(node, ast.AnnAssign) or "ClassVar" in ast.unparse(node.annotation):
                continue
            explained = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if cls.name != "AgentConfig":
                assert explained, f"{cls.name}.{ast.unparse(node.target)} has no docstring"
                assert "(" in following.value.value or ";" in following.value.value, ast.unparse(node.target)


AGENT_FILES = sorted({ROOT.parent / name.split(":")[0].replace(".", "/") for name in (AGENTS | PIPELINES).values()})


def statements(path):
    """The lines of a file that run, in one style: without imports, texts, comments and blank lines."""
    tree = ast.parse(path.with_suffix(".py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            texts = [n for n in node.body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
            node.body = [n for n in node.body if n not in texts and not isinstance(n, ast.Import | ast.ImportFrom)]
    return [line for line in ast.unparse(tree).splitlines() if line.strip()]


@pytest.mark.parametrize(("first", "second"), itertools.combinations(AGENT_FILES, 2), ids=lambda path: path.name)
def test_two_agents_do_not_share_a_run_of_six_lines(first, second):
    runs = [{tuple(lines[k : k + 6]) for k in range(len(lines) - 5)} for lines in map(statements, (first, second))]
    assert all(runs) and not runs[0] & runs[1]


@pytest.mark.parametrize("path", [p for p in FILES if p.with_suffix("") not in AGENT_FILES], ids=names)
def test_nothing_branches_on_an_agents_name(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    branches = [node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.Match)]
    constants = {value.value for node in branches for value in ast.walk(node) if isinstance(value, ast.Constant)}
    assert not constants & (AGENTS | PIPELINES).keys()


def test_types_are_published():
    assert (ROOT / "py.typed").is_file()
