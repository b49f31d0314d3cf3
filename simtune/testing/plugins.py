"""Check a plugin: call everything it offers with samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pluggy

from simtune import hookspecs, plugins
from simtune.errors import PluginError
from simtune.records import Episode, Row
from simtune.testing import samples

_NAME = "plugin under test"


def check_plugin(plugin: object, *, episodes: Sequence[Episode] = ()) -> list[str]:
    """Check a plugin: its hooks exist, do not raise, and its rewards return what they must.

    Args:
        plugin: the module (or object) with the hook implementations.
        episodes: episodes that its rewards are made for. On these a reward must not fail; on the
            built-in samples, which may be foreign to it, it may raise but not return nonsense.

    Returns:
        The names of its rewards, sorted.

    Raises:
        PluginError: everything that is wrong.
    """
    manager = pluggy.PluginManager(plugins.GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name=_NAME)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"the plugin's hooks are wrong: {error}") from error
    problems = list(_hook_problems(manager, plugin))
    names, found = _reward_problems(manager, episodes)
    problems += found
    if problems:
        raise PluginError("the plugin breaks its contract:\n- " + "\n- ".join(problems))
    return names


def _hook_problems(manager: pluggy.PluginManager, plugin: object) -> Iterator[str]:
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        yield "it implements no hook; mark the functions with @simtune.hookimpl"
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if implementation.wrapper or implementation.hookwrapper:
                yield f"{caller.name}: wrappers are not supported, each plugin is called alone"
            elif caller.name in samples.HOOK_ARGUMENTS:
                arguments = samples.HOOK_ARGUMENTS[caller.name]()
                chosen = [arguments[name] for name in implementation.argnames]
                _, failure = plugins.call_guarded(
                    _NAME, caller.name, implementation.function, *chosen
                )
                if failure is not None:
                    yield f"{caller.name} raised {failure.error}"
                yield from _row_problems(caller.name, arguments)


def _row_problems(hook: str, arguments: dict[str, Any]) -> Iterator[str]:
    """A hook may change the row in place, but it must stay one that can be written and read."""
    if "row" not in arguments:
        return
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(arguments["row"]), type=Row)
    except (TypeError, msgspec.MsgspecError) as error:
        yield f"{hook} leaves a row that cannot be kept: {error}"


def _reward_problems(
    manager: pluggy.PluginManager, episodes: Sequence[Episode]
) -> tuple[list[str], list[str]]:
    from simtune.rewards import builtin
    from simtune.rewards.registration import HOOK, gather

    implementations = tuple(
        (_NAME, implementation.function)
        for implementation in manager.hook.simtune_register_rewards.get_hookimpls()
    )
    # simtune's own come first, so that a name of theirs is a clash.
    own = ("builtin-rewards", builtin.simtune_register_rewards)
    known, failures = gather((own, *implementations))
    problems = [f"{HOOK} raised {failure.error}" for failure in failures]
    names = sorted(name for name, registered in known.items() if registered.plugin == _NAME)
    for name in names:
        for episode in samples.episodes():
            problems += _score_problems(known[name], episode, may_raise=True)
        for episode in episodes:
            problems += _score_problems(known[name], episode, may_raise=False)
    return names, problems


def _score_problems(registered: Any, episode: Episode, *, may_raise: bool) -> list[str]:
    from simtune.rewards.call import score_episode

    where = f"reward {registered.name!r} on episode {episode.episode_id!r}"
    before = msgspec.msgpack.encode(episode)
    _, failure = plugins.call_guarded(_NAME, "reward", registered.reward, episode)
    if msgspec.msgpack.encode(episode) != before:
        return [f"{where}: it changes the episode"]
    if failure is not None:
        return [] if may_raise else [f"{where}: raised {failure.error}"]
    first, second = score_episode(registered, episode), score_episode(registered, episode)
    if first.error is not None:
        return [f"{where}: {first.error}"]
    return [] if first == second else [f"{where}: two calls give two scores"]
