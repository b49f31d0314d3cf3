"""`--resume`: which run is meant, and whether it is asked to be the same run.

Needs neither torch nor the checkpoint's tensors, so a mistake is found at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from simtune.errors import OptionError
from simtune.train import checkpoints
from simtune.train.checkpoints import Checkpoint
from simtune.train.options import PPOOptions, SFTOptions

NEVER = "never"
"""As `--resume`: begin anew, where the same command would go on."""

FOLDER = "checkpoints"
"""In the models' directory, where `--checkpoint-dir` names no other."""

CHANGEABLE = frozenset(
    {
        "resume",
        "iterations",
        "processes",
        "save_every",
        "keep_checkpoints",
        "checkpoint_dir",
        "keep",
        "devices",
        "description",
        "gradient_checkpointing",
        "follow_timeout",
        "keep_published",
        "serve",
    }
)
"""Options that a resumed run may change: they move no number of a round that is repeated. Processes
have to be as many as before, and are counted where they have joined."""


def checkpoint_root(models_dir: str, checkpoint_dir: str | None) -> Path:
    """Where runs keep their checkpoints."""
    return Path(checkpoint_dir) if checkpoint_dir else Path(models_dir) / FOLDER


def find_run(wanted: str, root: Path) -> Path:
    """The directory of a run: `latest`, its id or the beginning of it, or the directory itself.

    Raises:
        OptionError: there is none, or several begin so.
    """
    if checkpoints.rounds(Path(wanted)):
        return Path(wanted)
    runs = _runs(root)
    if wanted == "latest" and runs:
        return runs[-1]
    found = [run for run in runs if run.name.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    raise OptionError(
        f"no run {wanted!r} to resume" if not found else f"{wanted!r} begins {len(found)} runs",
        expected="latest, the id of a run, or a directory with its checkpoints",
        got=", ".join(sorted(run.name for run in found or runs)) or f"no checkpoints in {root}",
        fix="--checkpoint-dir or --models-dir says where they are; --save-every writes them",
    )


def _runs(root: Path) -> list[Path]:
    """The runs with checkpoints, the one saved last at the end."""
    runs = [path for path in root.glob("*") if path.is_dir() and checkpoints.rounds(path)]
    return sorted(runs, key=lambda run: checkpoints.rounds(run)[-1].stat().st_mtime_ns)


def resumed_values(values: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The options of the run that `resume` names, with what was given now on top.

    Args:
        values: options as they were given, by name; holds `resume`.
        kind: the method's options, for their defaults and types.

    Raises:
        OptionError: no such run, or an option differs that a resumed run cannot change.
        CorruptError: no checkpoint of the run is whole.
    """
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    root = checkpoint_root(
        str(values.get("models_dir", defaults["models_dir"])), values.get("checkpoint_dir")
    )
    run_dir = find_run(str(values["resume"]), root)
    saved = checkpoints.newest(run_dir).state.options
    merged = saved | dict(values) | {"resume": str(run_dir)}
    asked = msgspec.to_builtins(msgspec.convert(merged, kind, strict=False))
    refuse_changes(saved, asked, {*values})
    return merged


def refuse_changes(saved: Mapping[str, Any], asked: Mapping[str, Any], names: set[str]) -> None:
    """Make sure that a run is resumed with the options that it began with.

    Raises:
        OptionError: they differ; lists how.
    """
    changed = sorted(
        name for name in names - CHANGEABLE if name in saved and saved[name] != asked[name]
    )
    if changed:
        raise OptionError(
            "a resumed run keeps its options",
            expected="  ".join(f"{_flag(name)} {saved[name]}" for name in changed),
            got="  ".join(f"{_flag(name)} {asked[name]}" for name in changed),
            fix="leave them out; or start a new run with --adapter, which continues an adapter. "
            "May change: " + ", ".join(_flag(name) for name in sorted(CHANGEABLE - {"resume"})),
        )


def run_of_same_command(options: PPOOptions | SFTOptions, method: str) -> str | None:
    """The newest run that began with these options, but for those that may change; None without.

    So a command that a supervisor starts again after a crash goes on where it was.
    """
    asked = msgspec.to_builtins(options)
    for run in reversed(_runs(checkpoint_root(options.models_dir, options.checkpoint_dir))):
        begun = checkpoints.begun(run)
        if begun is None or begun.method != method:
            continue
        if all(begun.options.get(name) == asked[name] for name in asked.keys() - CHANGEABLE):
            return str(run)
    return None


def checkpoint_of(run_dir: str, options: msgspec.Struct, method: str) -> Checkpoint:
    """The checkpoint that a run goes on from.

    Raises:
        OptionError: an option differs that a resumed run cannot change, or it is another
            method's run.
        CorruptError: no checkpoint of the run is whole.
    """
    checkpoint = checkpoints.newest(Path(run_dir))
    if checkpoint.state.method != method:
        raise OptionError(
            f"run {Path(run_dir).name} is no run of {method}",
            got=checkpoint.state.method,
            fix=f"simtune train {checkpoint.state.method} --resume ...",
        )
    asked = msgspec.to_builtins(options)
    refuse_changes(checkpoint.state.options, asked, set(asked))
    return checkpoint


def warn_of_changes(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Say what has changed around the run: its last bits may differ from one never stopped."""
    changed = [
        f"{name} {before[name]} -> {now.get(name)}"
        for name in before
        if before[name] != now.get(name)
    ]
    if changed:
        warnings.warn(
            f"the run goes on with another {', '.join(changed)}; its result may differ in the last "
            "bits from that of a run that was never stopped",
            RuntimeWarning,
            stacklevel=2,
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
