"""Finding plugins and calling them, one at a time.

Plugins come from the entry-point group `simtune`, from `--plugin FILE_OR_MODULE`
(`load`), and from `SIMTUNE_PLUGINS` (comma separated, for simulations that have no command
line). `SIMTUNE_BLOCK_PLUGINS` and `block` keep entry points out by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import msgspec
import pluggy

from simtune import hookspecs
from simtune.errors import PluginError

GROUP = "simtune"
"""The entry-point group that plugins are found in, and pluggy's project name."""

Result = TypeVar("Result")

_lock = threading.RLock()
_manager: pluggy.PluginManager | None = None
_broken: PluginError | None = None
_blocked: set[str] = set()
_failures: dict[tuple[str, str], int] = {}
_first: dict[tuple[str, str], Failure] = {}


class Failure(msgspec.Struct, frozen=True):
    """One plugin raised in one hook."""

    plugin: str
    hook: str
    error: str


def manager() -> pluggy.PluginManager:
    """The plugin manager of this process; entry points are loaded at the first call.

    Raises:
        PluginError: an installed plugin has a hook that does not exist; the same at every call.
    """
    global _manager, _broken
    if _manager is None:
        with _lock:
            if _broken is not None:
                raise _broken
            if _manager is None:
                try:
                    _manager = _create()
                except PluginError as error:
                    _broken = error
                    raise
    return _manager


class Hooks:
    """`simtune.hooks`: the caller, `simtune.hooks.simtune_decision(row=...)`."""

    def __getattr__(self, name: str) -> pluggy.HookCaller:
        """The pluggy caller of one hook; plugins are loaded at the first use."""
        caller: pluggy.HookCaller = getattr(manager().hook, name)
        return caller


hooks = Hooks()


def block(names: Iterable[str]) -> None:
    """Keep the entry points of these names out; effective before and after loading."""
    with _lock:
        _blocked.update(names)
        if _manager is not None:
            for name in names:
                _manager.unregister(name=name)
                _manager.set_blocked(name)


def load(spec: str) -> str:
    """Load one plugin from a Python file or a module name; returns its name.

    Loading the same one again changes nothing.

    Raises:
        PluginError: it does not exist, does not import, has the name of another plugin, or has
            a hook that is misspelled.
    """
    with _lock:
        found = manager()
        name = _register(found, spec)
        _check_pending(found)
    return name


def call_each(name: str, /, **arguments: Any) -> list[Failure]:
    """Call every implementation of a hook, each guarded; returns who failed.

    The first failure of a plugin in a hook is a warning; all are counted (`failures`).
    """
    answers = [answer for _, answer in in_turn(name, **arguments)]
    return [answer for answer in answers if isinstance(answer, Failure)]


def in_turn(name: str, /, **arguments: Any) -> Iterator[tuple[str, Any]]:
    """Call the implementations of a hook one after the other, as far as they are asked for.

    Yields:
        The plugin and what it returned, or its `Failure`; in pluggy's order: those marked
        `tryfirst`, then the latest registered first, then those marked `trylast`.
    """
    for implementation in reversed(getattr(hooks, name).get_hookimpls()):
        chosen = [arguments[key] for key in implementation.argnames]
        plugin = implementation.plugin_name
        result, failure = call_guarded(plugin, name, implementation.function, *chosen)
        if failure is not None:
            _warn_first(failure)
        yield plugin, result if failure is None else failure


def call_guarded(
    plugin: str, hook: str, function: Callable[..., Result], *arguments: Any
) -> tuple[Result | None, Failure | None]:
    """Call one function of a plugin; whatever it raises comes back as a counted failure.

    Args:
        plugin: the plugin's name, for the count.
        hook: the hook, or what else of the plugin is called.
        function: the plugin's function.
        arguments: passed on by position.

    Returns:
        The function's result and None, or None and the failure.
    """
    try:
        return function(*arguments), None
    # Plugin code is not ours: whatever it raises must cost that plugin alone.
    except Exception as error:
        failure = Failure(plugin, hook, f"{type(error).__name__}: {error}")
    with _lock:
        key = (plugin, hook)
        _failures[key] = _failures.get(key, 0) + 1
        _first.setdefault(key, failure)
    return None, failure


def implementations(name: str) -> tuple[tuple[str, Callable[..., Any]], ...]:
    """The plugins that implement a hook, in calling order, each with its function."""
    return tuple(
        (implementation.plugin_name, implementation.function)
        for implementation in getattr(hooks, name).get_hookimpls()
    )


def distributions() -> dict[str, str]:
    """Name of each installed plugin (loaded or not) -> its distribution and version."""
    return {
        point.name: f"{point.dist.name} {point.dist.version}"
        for point in entry_points(group=GROUP)
        if point.dist is not None
    }


def implemented(name: str) -> bool:
    """Whether any plugin implements the hook; lets hot paths skip the call."""
    return bool(getattr(manager().hook, name).get_hookimpls())


def failures() -> dict[tuple[str, str], int]:
    """How often each (plugin, hook) raised in this process."""
    with _lock:
        return dict(_failures)


def first_failures() -> list[Failure]:
    """The first failure of each (plugin, hook) in this process, with its error."""
    with _lock:
        return list(_first.values())


def reset() -> None:
    """Forget every plugin and failure; the next call loads entry points anew (for tests)."""
    global _manager, _broken
    with _lock:
        _manager = _broken = None
        _blocked.clear()
        _failures.clear()
        _first.clear()


def _create() -> pluggy.PluginManager:
    created = pluggy.PluginManager(GROUP)
    created.add_hookspecs(hookspecs)
    for name in _blocked | _listed("SIMTUNE_BLOCK_PLUGINS"):
        created.set_blocked(name)
    for point in entry_points(group=GROUP):
        if created.is_blocked(point.name) or created.has_plugin(point.name):
            continue
        plugin, failure = call_guarded(point.name, "import", point.load)
        if failure is not None:
            _warn_first(failure)
        else:
            _add(created, plugin, point.name)
    for spec in sorted(_listed("SIMTUNE_PLUGINS")):
        _register(created, spec)
    _check_pending(created)
    return created


def _listed(variable: str) -> set[str]:
    return {name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()}


def _register(found: pluggy.PluginManager, spec: str) -> str:
    path = Path(spec)
    name = path.stem if path.suffix == ".py" else spec
    if found.is_blocked(name):
        raise PluginError(f"plugin {name!r} is blocked and asked for")
    known = found.get_plugin(name)
    if known is not None:
        other = getattr(known, "__file__", None)
        if path.suffix == ".py" and other != str(path.resolve()):
            raise PluginError(
                f"two plugins are named {name!r}",
                got=f"{path.resolve()} and {other or known!r}",
                fix="rename one of the files",
            )
        return name
    _add(found, _import_file(path) if path.suffix == ".py" else _import_module(spec), name)
    return name


def _add(found: pluggy.PluginManager, plugin: object, name: str) -> None:
    try:
        found.register(plugin, name=name)
    except pluggy.PluginValidationError as error:
        found.unregister(name=name)
        raise PluginError(
            f"plugin {name!r} implements a hook with arguments it does not have: {error}",
            expected="some of the arguments that simtune/hookspecs.py gives",
            fix=_keep_out(name),
        ) from error


def _check_pending(found: pluggy.PluginManager) -> None:
    try:
        found.check_pending()
    except pluggy.PluginValidationError as error:
        name = found.get_name(error.plugin)
        found.unregister(plugin=error.plugin)
        known = sorted(name for name in vars(hookspecs) if name.startswith("simtune_"))
        raise PluginError(
            f"plugin {name!r} implements a hook that does not exist: {error}",
            expected=", ".join(known),
            fix="correct the name, or mark it with @hookimpl(optionalhook=True); "
            + _keep_out(str(name)),
        ) from error


def _keep_out(name: str) -> str:
    return f"SIMTUNE_BLOCK_PLUGINS={name} keeps an installed plugin out"


def _import_module(name: str) -> ModuleType:
    module, failure = call_guarded(name, "import", importlib.import_module, name)
    if module is None:
        raise PluginError(
            f"plugin {name!r} cannot be imported: {failure.error if failure else ''}",
            expected="an importable module, or a path that ends in .py",
        )
    return module


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"plugin file {str(path)!r} does not exist", got=str(path.resolve()))
    name = f"simtune_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin file {str(path)!r} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    # Before it runs: dataclasses and msgspec look their module up by name.
    sys.modules[name] = module
    _, failure = call_guarded(path.stem, "import", spec.loader.exec_module, module)
    if failure is not None:
        del sys.modules[name]
        raise PluginError(f"plugin file {str(path)!r} fails on import: {failure.error}")
    return module


def _warn_first(failure: Failure) -> None:
    if _failures[failure.plugin, failure.hook] == 1:
        warnings.warn(
            f"plugin {failure.plugin!r} raised in {failure.hook}: {failure.error} "
            "(further failures are counted only)",
            RuntimeWarning,
            stacklevel=4,
        )
