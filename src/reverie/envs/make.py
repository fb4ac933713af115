"""Making environments: from an id, an environment or a function, with the wrappers that were asked for."""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium

from reverie.envs.adapter import EnvironmentAdapter, close_environment, not_an_environment
from reverie.envs.calls import Abandoned, Calls
from reverie.envs.checks import checked_count, checked_flag, checked_image_size, checked_mapping, checked_names
from reverie.envs.code_identity import ADDRESS, describe_code
from reverie.envs.extras import import_module, missing_package, register_suite
from reverie.envs.ignored_parts import without_parts
from reverie.envs.images import PartKind
from reverie.envs.running_statistics import running_statistics
from reverie.envs.signatures import fitting, render_modes, takes_render_mode
from reverie.envs.source_code import is_installed_module
from reverie.envs.stored_spaces import AbsentEnvironment, SpacesOnly, space_from_json, spaces_of
from reverie.envs.wrappers import ActionRepeat, RenderedObservation, ResizeImages
from reverie.errors import ConfigError, EnvironmentProblem, ReverieError

Environment = gymnasium.Env[Any, Any]
DEFAULT_PIXEL_SIZE = (64, 64)


def make(
    environment: str | Environment | Callable[..., Environment],
    *,
    pixels: bool = False,
    image_size: int | tuple[int, int] | None = None,
    action_repeat: int = 1,
    time_limit: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
    parts: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
    render: bool = False,
) -> EnvironmentAdapter:
    """Make one environment and wrap it so that it speaks in parts.

    Args:
        environment: a Gymnasium id (also `module:Id`), an environment, or a function (or class) that makes one.
        pixels: observe the rendered frame instead of the environment's own observation.
        image_size: side, or height and width, to which images are resized; with `pixels` 64 x 64 by default.
        action_repeat: how many times each action is applied; rewards are summed.
        time_limit: truncate episodes after this many frames (steps before action repeat). For an id it replaces the
            registered limit; otherwise it comes on top of any limit that is already there.
        kwargs: keyword arguments for the constructor or function.
        parts: name of an observation part -> what it is: `image`, `image:AXES` with a letter for each axis of its space
            (t frames, h height, w width, c colors), `vector` or `discrete`; by default as its space says.
        ignore: names of observation parts to leave out. Those that no agent can read (Text, Graph, Sequence, OneOf) are
            left out anyway, with a warning, where others remain.
        render: prepare `adapter.render()`, for videos, where the environment can render frames.

    Returns:
        The adapter.

    Raises:
        EnvironmentProblem: if the environment is unknown, lacks a package or cannot be made.
        SpaceError: if one of its spaces is not supported.
        ConfigError: if the settings do not fit together.
    """
    source = EnvironmentSource(
        environment,
        pixels=pixels,
        image_size=image_size,
        action_repeat=action_repeat,
        time_limit=time_limit,
        kwargs=kwargs or {},
        parts=parts or {},
        ignore=ignore,
    )
    return source.make(render=render)


@dataclass(frozen=True)
class EnvironmentSource:
    """A recipe for environments: what `make` takes, to be used several times, in other processes, and in config.json.

    Attributes:
        environment: a Gymnasium id, an environment, or a function that makes one.
        pixels: observe the rendered frame.
        image_size: height and width of images (a single number is turned into both), or None to leave them.
        action_repeat: how many times each action is applied.
        time_limit: truncate episodes after this many frames, or None.
        kwargs: keyword arguments for the constructor or function.
        parts: name of an observation part -> what it is, where its space does not tell: `image`, `image:AXES`, `vector`
            or `discrete`.
        ignore: names of observation parts to leave out.
        trusted: whether a module that an id names may be imported: yes if the user named it, not if a file did.

    Raises:
        EnvironmentProblem: if `environment` is none of the three.
        ConfigError: if a setting is of the wrong type, out of range or does not fit the others.
    """

    environment: str | Environment | Callable[..., Environment]
    pixels: bool = False
    image_size: int | tuple[int, int] | None = None
    action_repeat: int = 1
    time_limit: int | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    ignore: Collection[str] = ()
    trusted: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        checked = {
            "pixels": checked_flag("pixels", self.pixels),
            "image_size": checked_image_size(self.image_size),
            "action_repeat": checked_count("action_repeat", self.action_repeat),
            "time_limit": None if self.time_limit is None else checked_count("time_limit", self.time_limit),
            "kwargs": checked_mapping("kwargs", self.kwargs),
            "parts": checked_mapping("parts", self.parts),
            "ignore": checked_names("ignore", self.ignore),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name, text in self.parts.items():
            PartKind.parse(name, text)
        if self.kind == "object" and self.kwargs:
            raise ConfigError(
                f"kwargs {sorted(self.kwargs)} were given with an environment that is already made: pass an id or a "
                f"function instead of the object, or drop kwargs"
            )

    @property
    def kind(self) -> Literal["id", "function", "object"]:
        """What `environment` is."""
        environment = self.environment
        if isinstance(environment, str):
            return "id"
        if isinstance(environment, gymnasium.Env):
            return "object"
        is_class = inspect.isclass(environment)
        if not callable(environment) or (not is_class and hasattr(environment, "step")):
            raise not_an_environment(environment)
        return "function"

    @property
    def name(self) -> str:
        """The id, the id or class of the object, or `module.name` of the function."""
        environment = self.environment
        if isinstance(environment, str):
            return environment
        if isinstance(environment, gymnasium.Env):
            return environment.spec.id if environment.spec is not None else type(environment.unwrapped).__name__
        function: Any = getattr(environment, "func", environment)
        qualified = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', type(function).__module__)}.{qualified}"

    @functools.cached_property
    def code(self) -> dict[str, str]:
        """What identifies the user's own code, see `describe_code`; empty for an id of an installed package.

        It describes the code and its values as they are when it is first asked for.

        Raises:
            EnvironmentProblem: if the module of an id cannot be imported.
        """
        kwargs = {} if self._plain_kwargs() is not None else self.kwargs
        if not isinstance(self.environment, str):
            return describe_code(self.environment, kwargs)
        module, _, bare = self.environment.rpartition(":")
        if module and is_installed_module(module):
            return {}
        if module:
            self._require_trust()
            import_module(self.environment, module)
        specification = gymnasium.registry.get(bare)
        try:
            return describe_code(specification, kwargs) if specification is not None else {}
        except ImportError as error:
            raise missing_package(self.environment, error) from error

    def _require_trust(self) -> None:
        """Refuses to import a module that only a file names, since importing runs its code.

        Raises:
            EnvironmentProblem: says how to allow it.
        """
        module, _, bare = str(self.environment).rpartition(":")
        if module and not self.trusted and bare not in gymnasium.registry:
            raise EnvironmentProblem(
                f"the files of the agent name the environment {self.environment!r}, whose module {module!r} would be "
                f"imported and run: if you trust them, name it yourself with --env {self.environment} (in Python "
                f"environment={self.environment!r}), or give --trust-environment (trust_environment=True)"
            )

    def with_code(self, code: Mapping[str, str]) -> EnvironmentSource:
        """The same recipe, to be taken for the code of that description."""
        source = copy.copy(self)
        source.__dict__["code"] = dict(code)
        return source

    def make(self, *, render: bool = False) -> EnvironmentAdapter:
        """Make one environment; from an object, each call wraps the same one, and closing leaves it open.

        Args:
            render: prepare `adapter.render()` where the environment can render frames.

        Raises:
            EnvironmentProblem: if the environment is unknown, lacks a package or cannot be made.
            SpaceError: if one of its spaces is not supported.
            ConfigError: if `image_size` is given and there is no image.
        """
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        frames = self.pixels or render
        if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # SDL looks for a display otherwise, and complains
            if frames:
                # Without a display MuJoCo renders only through EGL, and it reads this when first imported.
                os.environ.setdefault("MUJOCO_GL", "egl")
        calls = Calls(self.name)
        base = calls.run("construction", self._make_base, frames)
        try:
            adapter = calls.run("construction", self._adapted, base, calls)
        except ReverieError:
            if self.kind != "object":
                close_environment(base, calls)
            raise
        self.__dict__["spaces"] = spaces_of(base)
        return adapter

    @functools.cached_property
    def spaces(self) -> dict[str, Any]:
        """Observation and action space as JSON, before our wrappers; known once an environment was made.

        Raises:
            EnvironmentProblem: no environment was made yet, and none can be made now.
        """
        self.make().close()
        return self.__dict__["spaces"]

    def translator(self, stored: Mapping[str, Any] | None = None) -> EnvironmentAdapter:
        """An adapter without an environment, which only translates observations and actions.

        Args:
            stored: `spaces` from a file; without it they are those of this recipe.

        Raises:
            EnvironmentProblem: the stored spaces are damaged.
        """
        described = self.spaces if stored is None else stored
        try:
            observation, action = (space_from_json(described[name]) for name in ("observation", "action"))
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError, OverflowError, MemoryError) as error:
            raise EnvironmentProblem(
                f"the stored spaces of {self.name!r} are damaged ({type(error).__name__}: {error}); name the "
                f"environment again with environment=... or --env"
            ) from error
        self.__dict__["spaces"] = dict(described)
        return self._adapted(SpacesOnly(observation, action), Calls(self.name))

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON types.

        A function or an object is stored by its name and the description of its code, and keyword arguments that JSON
        cannot hold by their representation; `rebuildable` tells whether `from_json` needs help.
        """
        kwargs = self._plain_kwargs()
        plain = kwargs is not None
        if kwargs is None:
            kwargs = {key: ADDRESS.sub("0x", repr(value)) for key, value in self.kwargs.items()}
        size = self.image_size
        return {
            "kind": self.kind,
            "environment": self.name,
            "rebuildable": self.kind == "id" and plain,
            "pixels": self.pixels,
            "image_size": list(size) if isinstance(size, tuple) else None,
            "action_repeat": self.action_repeat,
            "time_limit": self.time_limit,
            "kwargs": kwargs,
            "plain_kwargs": plain,
            "parts": dict(self.parts),
            "ignore": list(self.ignore),
            "code": self.code,
        }

    def identity(self) -> dict[str, Any]:
        """What in `to_json` must be the same for a run to be the same.

        What the parts are and which are ignored follows from the interface, and the code is compared piece by piece.
        """
        return {key: value for key, value in self.to_json().items() if key not in ("parts", "ignore", "code")}

    def _plain_kwargs(self) -> dict[str, Any] | None:
        """The keyword arguments as JSON holds them, or None if it cannot."""
        try:
            plain: dict[str, Any] = json.loads(json.dumps(dict(self.kwargs), allow_nan=False))
        except (TypeError, ValueError):
            return None
        return plain

    @staticmethod
    def from_json(
        data: Mapping[str, Any],
        environment: EnvironmentSource | str | Environment | Callable[..., Environment] | None = None,
        *,
        trusted: bool = False,
        **settings: Any,
    ) -> EnvironmentSource:
        """Inverse of `to_json`.

        Args:
            data: what `to_json` gave.
            environment: takes the place of the stored environment. Where that was a function, an object, or had keyword
                arguments that JSON cannot hold, `make` says that it is needed. A recipe is used as it is, and nothing
                of `data`.
            trusted: whether a module that only `data` names may be imported.
            settings: fields of the recipe that take the place of the stored ones; None leaves the stored one. Stored
                keyword arguments that a given function does not take, or has values for, are dropped.

        Raises:
            ConfigError: if a recipe was given with settings beside it.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        if isinstance(environment, EnvironmentSource):
            if given:
                raise ConfigError(
                    f"got an EnvironmentSource and {', '.join(given)} beside it; give them to the EnvironmentSource"
                )
            return environment
        if environment is None and not data["rebuildable"] and not (data["kind"] == "id" and "kwargs" in given):
            reason = "keyword arguments that JSON cannot hold" if data["kind"] == "id" else f"a Python {data['kind']}"
            environment = AbsentEnvironment(
                str(data["environment"]),
                f"the environment {data['environment']!r} was made from {reason} and cannot be rebuilt from the saved "
                f"configuration: pass it again in Python, reverie.load(folder, environment=...)",
            )
        stored = {name: data[name] for name in ("pixels", "image_size", "action_repeat", "time_limit")}
        if stored["image_size"] is not None:
            stored["image_size"] = tuple(stored["image_size"])
        if data["plain_kwargs"]:
            stored["kwargs"] = fitting(data["kwargs"], environment)
        stored |= {"parts": data.get("parts", {}), "ignore": data.get("ignore", ())}
        if environment is None:
            return EnvironmentSource(data["environment"], **{**stored, "trusted": trusted, **given})
        return EnvironmentSource(environment, **{**stored, **given})

    def for_worker(self) -> bytes:
        """The recipe as bytes for a worker process of this program, together with the registration of its id.

        The bytes are code: they go through memory to our own processes and are never written to a file.

        Raises:
            ConfigError: if the environment is an object or cannot be sent.
        """
        import cloudpickle

        if self.kind == "object":
            raise ConfigError(
                f"the environment {self.name!r} is an object, which cannot be copied to worker processes: pass an id "
                f"or a function that makes it, or use vectorization='in-process' with one environment"
            )
        try:
            payload: bytes = cloudpickle.dumps((self, self._registration()))
        except Exception as error:
            raise ConfigError(
                f"the environment {self.name!r} cannot be sent to worker processes ({type(error).__name__}: {error}): "
                f"use vectorization='in-process', or a function that refers to nothing but modules and plain values"
            ) from error
        return payload

    @staticmethod
    def from_worker(payload: bytes) -> EnvironmentSource:
        """Inverse of `for_worker`, for use in a process that this program started; registers the id if need be."""
        import cloudpickle

        source, registration = cloudpickle.loads(payload)
        if registration is not None and registration.id not in gymnasium.registry:
            gymnasium.registry[registration.id] = registration
        return source

    def _registration(self) -> gymnasium.envs.registration.EnvSpec | None:
        """The registry entry of the id: a script may have registered it where a worker cannot see it."""
        specification = gymnasium.registry.get(self.environment) if isinstance(self.environment, str) else None
        entry_point = specification.entry_point if specification is not None else None
        if specification is not None and isinstance(entry_point, str) and entry_point.startswith("__main__:"):
            specification = copy.copy(specification)
            creator: Any = gymnasium.envs.registration.load_env_creator(entry_point)
            specification.entry_point = creator
        return specification

    def _adapted(self, base: Environment, calls: Calls) -> EnvironmentAdapter:
        """The adapter of an environment with its wrappers."""
        self._warn_once(running_statistics(base))
        owns = self.kind != "object"
        return EnvironmentAdapter(
            self._wrapped(base), name=self.name, owns_environment=owns, parts=self.parts, calls=calls
        )

    def _wrapped(self, base: Environment) -> Environment:
        """The environment with its wrappers; repeated frames are skipped before anything is rendered or resized."""
        wrapped = base
        if self.time_limit is not None and self.kind != "id":
            wrapped = gymnasium.wrappers.TimeLimit(wrapped, self.time_limit)
        if self.action_repeat > 1:
            wrapped = ActionRepeat(wrapped, self.action_repeat)
        size = self.image_size
        assert size is None or isinstance(size, tuple)
        if self.pixels:
            wrapped = RenderedObservation(wrapped, size or DEFAULT_PIXEL_SIZE)
        wrapped, notice = without_parts(wrapped, self.ignore, self.parts)
        self._warn_once(notice)
        return wrapped if self.pixels or size is None else ResizeImages(wrapped, size, self.parts)

    def _warn_once(self, text: str | None) -> None:
        """Warns about something unless this recipe has done so, also in the process that sent it to a worker."""
        given: set[str] = self.__dict__.setdefault("_given", set())
        if text is not None and text not in given:
            given.add(text)
            warnings.warn(text, stacklevel=2)

    def _make_base(self, frames: bool) -> Environment:
        """The environment without our wrappers; `frames` asks for `rgb_array` rendering where it exists."""
        environment = self.environment
        if isinstance(environment, gymnasium.Env):
            return environment
        try:
            if isinstance(environment, str):
                return self._make_from_id(environment, frames)
            kwargs = dict(self.kwargs)
            if frames and "render_mode" not in kwargs and takes_render_mode(environment):
                kwargs["render_mode"] = "rgb_array"
            made = environment(**kwargs)
        except (ReverieError, KeyboardInterrupt, Abandoned):
            raise
        except BaseException as error:
            raise EnvironmentProblem(
                f"the environment {self.name!r} could not be made with kwargs {dict(self.kwargs)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(made, gymnasium.Env):
            raise not_an_environment(made)
        return made

    def _make_from_id(self, environment_id: str, frames: bool) -> Environment:
        """An environment from Gymnasium's registry."""
        self._require_trust()
        register_suite(environment_id)
        module = environment_id.rpartition(":")[0]
        if module:
            import_module(environment_id, module)
        kwargs = dict(self.kwargs)
        try:
            if frames and "render_mode" not in kwargs:
                modes = render_modes(environment_id)
                if modes is None or "rgb_array" in modes:
                    kwargs["render_mode"] = "rgb_array"
                elif self.pixels:
                    raise EnvironmentProblem(
                        f"pixels=True needs frames, but {environment_id!r} renders only {list(modes)}: use pixels=False"
                    )
            return gymnasium.make(environment_id, max_episode_steps=self.time_limit, disable_env_checker=True, **kwargs)
        except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
            raise _unknown(environment_id) from error
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise missing_package(environment_id, error) from error


def as_source(environment: EnvironmentSource | str | Environment | Callable[..., Environment]) -> EnvironmentSource:
    """The argument itself if it is a recipe, otherwise a recipe for it without further settings."""
    return environment if isinstance(environment, EnvironmentSource) else EnvironmentSource(environment)


def _unknown(environment_id: str) -> EnvironmentProblem:
    """The error for an id that no one has registered."""
    bare = environment_id.rpartition(":")[2]
    by_lower = {known.lower(): known for known in gymnasium.registry}
    close = [by_lower[match] for match in difflib.get_close_matches(bare.lower(), by_lower, n=4, cutoff=0.55)]
    hint = f"did you mean {', '.join(close)}?" if close else "`reverie envs` lists the known ones"
    return EnvironmentProblem(
        f"there is no environment {environment_id!r}; {hint} (an id of your own must be registered before, or written "
        f"as module:Id)"
    )
