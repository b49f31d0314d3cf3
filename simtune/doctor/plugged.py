"""Whether plugins load, know their hooks, and register what they have."""

from __future__ import annotations

from collections.abc import Iterator

from simtune import plugins
from simtune.doctor.finding import Finding, error, first_line, ok, warning
from simtune.doctor.subject import Subject
from simtune.errors import PluginError
from simtune.rewards.registration import collect

_BUILT_IN = "builtin-rewards"


def check(subject: Subject) -> Iterator[Finding]:
    """Load every plugin and collect every reward, as scoring does."""
    try:
        found = plugins.manager()
        rewards = collect()
    except PluginError as wrong:
        yield error(
            "broken-plugin",
            " ".join(str(wrong).split()),
            "mend or uninstall it; SIMTUNE_BLOCK_PLUGINS=NAME keeps an installed one out, and "
            "SIMTUNE_PLUGINS names those that are loaded from files",
        )
        return
    failures = plugins.first_failures()
    for failure in failures:
        yield warning(
            "failed-plugin",
            f"plugin {failure.plugin!r} raised in {failure.hook}: {first_line(failure.error)}",
            f"mend or reinstall it, or keep it out: SIMTUNE_BLOCK_PLUGINS={failure.plugin}",
        )
    names = {name for name, plugin in found.list_name_plugin() if plugin}
    if _BUILT_IN not in names and not found.is_blocked(_BUILT_IN):
        yield error(
            "no-builtin-rewards",
            "simtune's own rewards are not among the installed plugins",
            "its metadata is old: install simtune again (pip install --force-reinstall --no-deps)",
        )
    if not failures:
        yield ok("plugins", f"{len(names)} plugins, {len(rewards)} rewards")
