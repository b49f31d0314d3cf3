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
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pluggy

from simtune import hookspecs
from simtune.errors import PluginError

_lock = threading.RLock()
_manager: pluggy.PluginManager | None = None
_blocked: set[str] = set()
_failures: dict[tuple[str, str], int] = {}


class Failure(msgspec.Struct, frozen=True):
    """One plugin raised in one hook."""

    plugin: str
    hook: str
    error: str


def manager() -> pluggy.PluginManager:
    """The plugin manager of this process; entry points are loaded at the first call."""
    global _manager
    if _manager is None:
        with _lock:
            if _manager is None:
                _manager = _create()
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

    Raises:
        PluginError: it does not exist, does not import, or has a hook that is misspelled.
    """
    module = _import(spec)
    name = module.__name__
    with _lock:
        found = manager()
        if not found.is_registered(module):
            found.register(module, name=name)
        _check_pending(found)
    return name


def call_each(name: str, /, **arguments: Any) -> list[Failure]:
    """Call every implementation of a hook, each guarded; returns who failed.

    The first failure of a plugin in a hook is a warning; all are counted (`failures`).
    """
    failed = []
    for implementation in getattr(hooks, name).get_hookimpls():
        chosen = [arguments[key] for key in implementation.argnames]
        try:
            implementation.function(*chosen)
        # Plugin code is not ours: whatever it raises must cost that plugin alone.
        except Exception as error:
            failure = Failure(implementation.plugin_name, name, f"{type(error).__name__}: {error}")
            failed.append(failure)
            _count(failure)
    return failed


def implemented(name: str) -> bool:
    """Whether any plugin implements the hook; lets hot paths skip the call."""
    return bool(getattr(hooks, name).get_hookimpls())


def failures() -> dict[tuple[str, str], int]:
    """How often each (plugin, hook) raised in this process."""
    with _lock:
        return dict(_failures)


def reset() -> None:
    """Forget every plugin and failure; the next call loads entry points anew (for tests)."""
    global _manager
    with _lock:
        _manager = None
        _blocked.clear()
        _failures.clear()


def _create() -> pluggy.PluginManager:
    created = pluggy.PluginManager("simtune")
    created.add_hookspecs(hookspecs)
    for name in _blocked | _listed("SIMTUNE_BLOCK_PLUGINS"):
        created.set_blocked(name)
    created.load_setuptools_entrypoints("simtune")
    for spec in sorted(_listed("SIMTUNE_PLUGINS")):
        module = _import(spec)
        created.register(module, name=module.__name__)
    _check_pending(created)
    return created


def _listed(variable: str) -> set[str]:
    return {name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()}


def _check_pending(found: pluggy.PluginManager) -> None:
    try:
        found.check_pending()
    except pluggy.PluginValidationError as error:
        found.unregister(plugin=error.plugin)
        known = sorted(name for name in vars(hookspecs) if name.startswith("simtune_"))
        raise PluginError(
            f"a plugin implements a hook that does not exist: {error}",
            expected=", ".join(known),
            fix="correct the function's name, or mark it with @hookimpl(optionalhook=True)",
        ) from error


def _import(spec: str) -> ModuleType:
    path = Path(spec)
    if path.suffix != ".py":
        try:
            return importlib.import_module(spec)
        except ImportError as error:
            raise PluginError(
                f"plugin {spec!r} cannot be imported: {error}",
                expected="an importable module, or a path that ends in .py",
            ) from error
    if not path.is_file():
        raise PluginError(f"plugin file {spec!r} does not exist", got=str(path.resolve()))
    name = path.stem
    module_spec = importlib.util.spec_from_file_location(name, path.resolve())
    if module_spec is None or module_spec.loader is None:
        raise PluginError(f"plugin file {spec!r} cannot be loaded as Python")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError) as error:
        raise PluginError(f"plugin file {spec!r} fails on import: {error!r}") from error
    sys.modules.setdefault(name, module)
    return module


def _count(failure: Failure) -> None:
    key = (failure.plugin, failure.hook)
    with _lock:
        _failures[key] = _failures.get(key, 0) + 1
        first = _failures[key] == 1
    if first:
        warnings.warn(
            f"plugin {failure.plugin!r} raised in {failure.hook}: {failure.error} "
            "(further failures are counted only)",
            RuntimeWarning,
            stacklevel=3,
        )
