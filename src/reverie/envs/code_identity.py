"""What an environment made by Python code is identified by: its source, and the values that it holds.

A run that resumes must have the code that it began with, and a name is not enough: two scripts, or one that was edited,
may use the same class names. So the code is taken apart into pieces: every class and function of the user's own that it
consists of or refers to, and the plain values that these hold in closures, defaults, class attributes and globals. A
piece is described by a digest of its source without comments, docstrings and layout, or by its bytecode where no
source can be read, so that descriptions are the same in every process. What is installed as a package is known by its
name only, since it has versions.
"""

from __future__ import annotations

import dis
import enum
import functools
import inspect
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from reverie.envs.source_code import (
    Definition,
    Function,
    assignments,
    closure_values,
    definition,
    digest,
    is_changed,
    is_installed,
    is_installed_module,
    is_set_by_functions,
    module_namespace,
    names_of_class_body,
    nested_codes,
    source_digest,
)

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), enum.Enum, np.generic, np.dtype, Path)
CONSTANT = (*PLAIN, tuple, frozenset, gymnasium.Space)
CODE = (Function, type, functools.partial, types.MethodType)
SHOWN_CHARACTERS = 60
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}")
MAXIMUM_DEPTH = 40


def describe_code(environment: Any, kwargs: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The pieces of code that an environment, or a function or class that makes one, consists of.

    Args:
        environment: a function, class, partial or environment, or the registration of an id.
        kwargs: arguments that it is made with, as far as the configuration of a run cannot hold them.

    Returns:
        Name of a piece -> digest of its source, or the value it has; empty if all is installed.
    """
    pieces = _Pieces()
    if isinstance(environment, gymnasium.envs.registration.EnvSpec):
        pieces.add_registration(environment)
    else:
        pieces.add(environment, "the environment")
    for name, value in (kwargs or {}).items():
        pieces.add(value, f"{name} of the environment")
    return dict(sorted(pieces.found.items()))


def code_difference(there: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """What differs between two descriptions in a few words, or None.

    Values come first, then sources; of what only one side has, the first is named.
    """
    there, here = ({str(name): str(text) for name, text in code.items()} for code in (there, here))
    both = sorted(there.keys() & here.keys(), key=lambda name: (there[name].startswith("source "), name))
    for name in both:
        if there[name] != here[name]:
            is_source = there[name].startswith("source ") or here[name].startswith("source ")
            return f"{name} has other source code" if is_source else f"{name} is {there[name]} there, {here[name]} here"
    for names, place in ((here.keys() - there.keys(), "here"), (there.keys() - here.keys(), "there")):
        if names:
            return f"{min(names)} belongs to it only {place}"
    return None


class _Pieces:
    """Collects the pieces of code that can be reached from one object."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._visited: dict[int, Any] = {}
        self._seen_of_modules: set[tuple[str, str]] = set()
        self._depth = 0

    def add_registration(self, spec: gymnasium.envs.registration.EnvSpec) -> None:
        """The class behind an id, if it is the user's own, and the arguments it is registered with."""
        creator: Any = spec.entry_point
        if isinstance(creator, str):
            # An installed module is not imported for this: simulators read how to render when they are first imported.
            if is_installed_module(creator.partition(":")[0]):
                return
            creator = gymnasium.envs.registration.load_env_creator(creator)
        self.add(creator, "the entry point")
        if self.found:
            for name, value in spec.kwargs.items():
                self.add(value, f"{name} of the registration")
            self.add(spec.max_episode_steps, "max_episode_steps of the registration")

    def add(self, value: Any, name: str) -> None:
        """The pieces of a value called `name`."""
        if self._depth > MAXIMUM_DEPTH:
            return
        self._depth += 1
        try:
            self._add(value, name)
        finally:
            self._depth -= 1

    def _add(self, value: Any, name: str) -> None:
        if isinstance(value, functools.partial):
            self.add(value.func, name)
            for index, argument in enumerate(value.args):
                self.add(argument, f"argument {index} of {name}")
            for key, argument in value.keywords.items():
                self.add(argument, f"{key} of {name}")
        elif isinstance(value, types.MethodType):
            self.add(value.__func__, name)
            self.add(value.__self__, f"the object of {name}")
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__, name)
        elif isinstance(value, type | Function):
            self._add_definition(value, name)
        elif isinstance(value, types.ModuleType | types.BuiltinFunctionType):
            self._put(name, value.__name__)
        elif (shown := plain(value)) is not None:
            if name != "the environment":
                self._put(name, shown)
        else:
            self._add_object(value, name)

    def _put(self, name: str, text: str) -> None:
        """Notes a piece; another one of the same name gets a number."""
        number, free = 1, name
        while free in self.found and self.found[free] != text:
            number += 1
            free = f"{name} ({number})"
        self.found[free] = text

    def _add_definition(self, value: Any, name: str) -> None:
        """A class or function: its source, and what it refers to; only its name if it is installed."""
        if id(value) in self._visited:
            return
        self._visited[id(value)] = value
        if is_installed(value):
            if name not in ("the environment", "the entry point"):
                self._put(name, f"{value.__module__.partition('.')[0]}.{value.__qualname__}")
            return
        kind = "class" if isinstance(value, type) else "function"
        short = value.__qualname__.rpartition("<locals>.")[2]
        title = "the lambda" if short == "<lambda>" else f"{kind} {short}"
        if isinstance(value, type):
            self._add_class(value, title)
        else:
            self._put(title, source_digest(value))
            self._add_references(value, title, definition(value))

    def _add_class(self, cls: type, title: str) -> None:
        """The source of a class, of its bases, and what its methods and attributes hold."""
        self._put(title, source_digest(cls))
        node = definition(cls)
        for base in cls.__bases__:
            self.add(base, f"a base of {title}")
        for key, attribute in sorted(vars(cls).items()):
            if isinstance(attribute, property):
                held: list[Any] = [attribute.fget, attribute.fset, attribute.fdel]
            else:
                held = [getattr(attribute, "__func__", attribute)]
            for value in held:
                if isinstance(value, Function) and value.__qualname__.startswith(f"{cls.__qualname__}."):
                    self._add_references(value, title, node)
                elif isinstance(value, Function) or not (key.startswith("__") or key == "_abc_impl"):
                    self.add(value, f"{key} of {title}")
        namespace = module_namespace(cls)
        for name in sorted(names_of_class_body(cls) & namespace.keys()):
            self._add_global(namespace, name, title, attributes=set())

    def _add_references(self, function: Function, title: str, node: Definition | None) -> None:
        """What a function holds: defaults, values of its closure, and globals that it reads; `node` is its source."""
        for parameter in inspect.signature(function, follow_wrapped=False).parameters.values():
            if parameter.default is not parameter.empty:
                self.add(parameter.default, f"default {parameter.name} of {title}")
        for name, value in closure_values(function):
            if name != "__class__" and not is_changed(node, name):
                self.add(value, f"{name} of {title}")
        names: set[str] = set()
        attributes: set[str] = set()
        for code in nested_codes(function.__code__):
            names |= {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
            attributes |= set(code.co_names)
        for name in sorted(names & function.__globals__.keys()):
            self._add_global(function.__globals__, name, title, attributes=attributes)

    def _add_global(self, namespace: Mapping[str, Any], name: str, title: str, attributes: set[str]) -> None:
        """A global: code by its source, a constant by its value, anything else by the statements that set it.

        Lists, dictionaries and objects may have changed since they were made, so their present content does not count.
        """
        value = namespace[name]
        if isinstance(value, types.ModuleType):
            keys = set() if is_installed(value) else attributes & vars(value).keys()
            for key in sorted(keys):
                if (value.__name__, key) not in self._seen_of_modules:
                    self._seen_of_modules.add((value.__name__, key))
                    self._add_global(vars(value), key, f"module {value.__name__}", attributes=attributes)
            return
        statements = assignments(namespace, name)
        constant = isinstance(value, CONSTANT) and len(statements) <= 1 and not is_set_by_functions(namespace, name)
        if constant or isinstance(value, CODE):
            self.add(value, f"{name} of {title}")
        elif statements:
            self._put(f"{name} of {title}", digest("source", "\n".join(statements)))

    def _add_object(self, value: Any, name: str) -> None:
        """An object: its class, and the attributes named like arguments of its constructor."""
        if id(value) in self._visited:
            return
        self._visited[id(value)] = value
        if isinstance(value, list | tuple | dict):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in items:
                self.add(item, f"{key} of {name}")
            return
        if isinstance(value, gymnasium.Env) and value.spec is not None and not isinstance(value, gymnasium.Wrapper):
            for key, argument in value.spec.kwargs.items():
                self.add(argument, f"{key} of {name}")
        self.add(type(value), f"the class of {name}")
        for key in _constructor_arguments(type(value)):
            held = getattr(value, "__dict__", {})
            attribute = held.get(key, held.get(f"_{key}", inspect.Parameter.empty))
            if attribute is not inspect.Parameter.empty:
                self.add(attribute, f"{key} of {name}")


def plain(value: Any) -> str | None:
    """A text that identifies a value of plain data, the same in every process, or None for any other object."""
    if isinstance(value, gymnasium.Env):
        return None
    if isinstance(value, np.ndarray) and value.dtype != object:
        return digest(f"array {value.shape}", value.dtype.str.encode() + np.ascontiguousarray(value).tobytes())
    if isinstance(value, gymnasium.Space):
        return _shortened(repr(value))
    if isinstance(value, PLAIN):
        return _shortened(repr(value))
    if isinstance(value, list | tuple | set | frozenset):
        texts = [plain(item) for item in value]
        if any(text is None for text in texts):
            return None
        inside = [str(text) for text in texts]
        inside = sorted(inside) if isinstance(value, set | frozenset) else inside
        return _shortened(f"{type(value).__name__}({', '.join(inside)})")
    if isinstance(value, dict):
        pairs = [(plain(key), plain(item)) for key, item in value.items()]
        if any(None in pair for pair in pairs):
            return None
        return _shortened("{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}")
    if is_installed(type(value)) and type(value).__repr__ is not object.__repr__ and not callable(value):
        text = repr(value)
        return None if ADDRESS.search(text) else _shortened(text)
    return None


def _constructor_arguments(cls: type) -> list[str]:
    try:
        return [name for name in inspect.signature(cls).parameters if name not in ("args", "kwargs")]
    except (TypeError, ValueError):
        return []


def _shortened(text: str) -> str:
    """The text, or its beginning with a digest if it is long."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:20]}… {digest('', text)}"
