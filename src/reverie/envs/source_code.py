"""The source of classes and functions, as digests that comments, layout and line numbers do not change."""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import importlib.util
import inspect
import linecache
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any

LIBRARIES = ("reverie", "gymnasium")
CHANGING_METHODS = {"append", "appendleft", "extend", "insert", "add", "update", "setdefault", "sort", "reverse"}
CHANGING_METHODS |= {"pop", "popleft", "remove", "discard", "clear"}
Function = types.FunctionType
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda


def digest(kind: str, content: str | bytes) -> str:
    """A word that says of what, and 16 hexadecimal digits of the SHA-256 of the content."""
    data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    return f"{kind} {hashlib.sha256(data).hexdigest()[:16]}".strip()


@functools.cache
def _installed_places() -> tuple[str, ...]:
    """Folders of Python itself and of installed packages."""
    return tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_installed(value: Any) -> bool:
    """Whether a class, function or module comes with Python, from an installed package, or from this library."""
    name = value.__name__ if isinstance(value, types.ModuleType) else str(getattr(value, "__module__", ""))
    if name == "__main__":
        return False
    if name.partition(".")[0] in (*LIBRARIES, *sys.builtin_module_names):
        return True
    if isinstance(value, Function):
        file: str | None = value.__code__.co_filename
    else:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None:
            return name.partition(".")[0] in sys.stdlib_module_names
    return file is not None and file.startswith(("<frozen", *_installed_places()))


def is_installed_module(name: str) -> bool:
    """Whether a module, which need not be imported yet, is installed or part of this library."""
    top = name.partition(".")[0]
    if top == "__main__":
        return False
    if top in LIBRARIES:
        return True
    imported = sys.modules.get(top)
    file = (
        getattr(imported, "__file__", None)
        if imported is not None
        else getattr(importlib.util.find_spec(top), "origin", None)
    )
    return file is not None and file.startswith(_installed_places())


def source_digest(value: Any) -> str:
    """A digest of the source of a class or function, or of its bytecode where the source cannot be read."""
    node = definition(value)
    if node is not None:
        return digest("source", ast.unparse(_without_docstrings(node)))
    functions = list(_functions(value)) if isinstance(value, type) else [value]
    parts: list[Any] = []
    for code in (code for function in functions for code in nested_codes(function.__code__)):
        constants = [c for c in code.co_consts if not isinstance(c, types.CodeType)]
        texts = [repr(sorted(c, key=repr) if isinstance(c, frozenset) else c) for c in constants]
        parts.append((code.co_name, code.co_code.hex(), code.co_names, code.co_varnames, texts))
    return digest("source of bytecode", f"{sys.version_info[:2]} {parts}")


def nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested_codes(constant)


def closure_values(function: Function) -> Iterator[tuple[str, Any]]:
    """Names and values of the variables that a function takes from around it, those that have a value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if cell != types.CellType():
            yield name, cell.cell_contents


def module_namespace(value: Any) -> Mapping[str, Any]:
    """The globals of the module that defines a class, or of a function."""
    for function in [value] if isinstance(value, Function) else _functions(value):
        if function.__module__ == value.__module__:
            return function.__globals__
    module = sys.modules.get(value.__module__)
    return {} if module is None else vars(module)


def names_of_class_body(cls: type) -> set[str]:
    """The names that the body of a class reads when it is run, outside its methods; empty if it cannot be read."""
    found: set[str] = set()
    node = definition(cls)
    waiting: list[ast.AST] = [] if node is None else list(ast.iter_child_nodes(node))
    while waiting:
        child = waiting.pop()
        if isinstance(child, ast.Name):
            found.add(child.id)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*child.decorator_list, child.args]
        else:
            waiting += ast.iter_child_nodes(child)
    return found


def is_changed(node: Definition | None, name: str) -> bool:
    """Whether a definition changes a variable from outside it or the container in it, which then is not a constant."""
    for inner in ast.walk(node) if node is not None else ():
        if isinstance(inner, ast.Nonlocal) and name in inner.names:
            return True
        is_call = isinstance(inner, ast.Attribute) and inner.attr in CHANGING_METHODS
        is_entry = isinstance(inner, ast.Subscript) and not isinstance(inner.ctx, ast.Load)
        if (is_call or is_entry) and isinstance(inner.value, ast.Name) and inner.value.id == name:  # type: ignore[attr-defined]
            return True
    return False


def assignments(namespace: Mapping[str, Any], name: str) -> list[str]:
    """The statements of a module, outside its functions and classes, that assign to a name."""
    found: list[str] = []
    tree = _tree(namespace, namespace.get("__file__"))
    waiting: list[ast.AST] = [] if tree is None else [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop(0)):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(n, ast.Name) and n.id == name for target in targets for n in ast.walk(target)):
                    found.append(ast.unparse(node))
            elif isinstance(node, ast.stmt | ast.excepthandler) and not isinstance(node, Definition):
                waiting.append(node)
    return found


def is_set_by_functions(namespace: Mapping[str, Any], name: str) -> bool:
    """Whether some function of the module sets a global, which then is not a constant."""
    tree = _tree(namespace, namespace.get("__file__"))
    return tree is not None and any(isinstance(node, ast.Global) and name in node.names for node in ast.walk(tree))


def _without_docstrings(node: ast.AST) -> ast.AST:
    """A copy of a definition; what `ast.unparse` makes of it has neither comments nor layout."""
    bare = copy.deepcopy(node)
    for inner in ast.walk(bare):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            inner.body = inner.body[1:] or [ast.Pass()]
    return bare


def _functions(cls: type) -> Iterator[Function]:
    """The functions that the body of a class defines, without their decorators."""
    for attribute in vars(cls).values():
        function = attribute.fget if isinstance(attribute, property) else getattr(attribute, "__func__", attribute)
        function = inspect.unwrap(function) if callable(function) else function
        if isinstance(function, Function) and function.__qualname__.startswith(f"{cls.__qualname__}."):
            yield function


@functools.lru_cache(maxsize=32)
def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def _tree(namespace: Mapping[str, Any], file: str | None) -> ast.Module | None:
    """The syntax tree of a file, or None if it cannot be read."""
    if not file:
        return None
    linecache.checkcache(file)
    text = "".join(linecache.getlines(file, dict(namespace)))
    return _parsed(text) if text else None


def _file_of(function: Function) -> str:
    """The file of a function, by its full path if its code has a relative one."""
    own, file = function.__globals__.get("__file__"), function.__code__.co_filename
    return own if own and os.path.basename(own) == os.path.basename(file) else file


def definition(value: Any) -> Definition | None:
    """Where a class or function is defined in the syntax tree of its file, or None if that cannot be determined."""
    own = [value] if isinstance(value, Function) else list(_functions(value))
    namespace = module_namespace(value)
    files = dict.fromkeys([*(_file_of(function) for function in own), namespace.get("__file__")])
    for file in files:
        tree = _tree(namespace, file)
        if tree is not None:
            lines = [function.__code__.co_firstlineno for function in own if _file_of(function) == file]
            nodes = [n for n in ast.walk(tree) if isinstance(n, Definition) and _fits(n, value, lines)]
            if len(nodes) > 1 and isinstance(value, Function):
                nodes = [node for node in nodes if _holds_columns(node, value.__code__)]
            return nodes[0] if len(nodes) == 1 else None
    return None


def _fits(node: Definition, value: Any, lines: list[int]) -> bool:
    """Whether a definition is that of a class or function, by its name and the first lines of the functions in it."""
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    if name != value.__name__ or isinstance(node, ast.ClassDef) != isinstance(value, type):
        return False
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    first = min(part.lineno for part in (node, *decorators))
    if isinstance(value, Function):
        return lines == [first]
    return all(first <= line <= (node.end_lineno or first) for line in lines)


def _holds_columns(node: Definition, code: types.CodeType) -> bool:
    """Whether code was made from a definition, where several begin in one line."""
    begin, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
    places = [(line, column) for line, _, column, last in code.co_positions() if column is not None and last != 0]
    return all(begin <= place <= end for place in places)
