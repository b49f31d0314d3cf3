"""Every error that simtune raises on purpose.

SimtuneError
├── OptionError          an option or argument cannot be used
│   └── MissingExtraError    a feature needs `pip install simtune[extra]`
├── DataError            a data set or a store holds nothing usable, or the wrong thing
│   ├── CorruptError         bytes on disk fail their checksum or their format
│   └── RemoteError          a remote store cannot be reached, or refuses
├── CaptureError         capture could not keep a decision
│   ├── BackpressureError    more captured bytes wait than the limit allows
│   ├── RedactionError       a redaction failed, and what it was to look at is not kept
│   ├── RecordSizeError      a row is larger than the limit allows
│   └── CompactorError       the log grows, and no compactor can be started
├── PluginError          a plugin cannot be loaded, or breaks its contract
├── EnvironmentSpecError an environment cannot be made, or cannot be turned into text
├── WorkerError          a process that steps environments died, or an environment raised in it
├── PolicyError          an endpoint refuses to answer, or cannot be reached
├── RegistryError        a model record is missing, ambiguous or broken
└── TrainingError        a training run cannot go on

The command line prints the message and exits with code 2; `--debug` adds the traceback.
"""

from __future__ import annotations


class SimtuneError(Exception):
    """Base of every error that simtune raises on purpose.

    Args:
        what: what went wrong, in one line.
        expected: what simtune needed.
        got: what came instead.
        fix: what the reader can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: object | None = None,
        got: object | None = None,
        fix: str | None = None,
    ) -> None:
        parts = [what]
        for label, part in (("expected", expected), ("got", got), ("fix", fix)):
            if part is not None:
                parts.append(f"  {label}: {part}")
        super().__init__("\n".join(parts))


class OptionError(SimtuneError):
    """An option or argument cannot be used."""


class MissingExtraError(OptionError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, *, package: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs {package}, which is not installed",
            fix=f"pip install 'simtune[{extra}]'",
        )


class DataError(SimtuneError):
    """A data set or a store holds nothing usable, or the wrong thing."""


class CorruptError(DataError):
    """Bytes on disk fail their checksum or their format."""


class RemoteError(DataError):
    """A remote store cannot be reached, or refuses."""


class CaptureError(SimtuneError):
    """Capture could not keep a decision."""


class BackpressureError(CaptureError):
    """More captured bytes wait than the limit allows."""


class RedactionError(CaptureError):
    """A redaction failed, and what it was to look at is not kept."""


class RecordSizeError(CaptureError):
    """A row is larger than the limit allows."""


class CompactorError(CaptureError):
    """The log grows, and no compactor can be started."""


class PluginError(SimtuneError):
    """A plugin cannot be loaded, or breaks its contract."""


class EnvironmentSpecError(SimtuneError):
    """An environment cannot be made, or cannot be turned into text."""


class WorkerError(SimtuneError):
    """A process that steps environments died, or an environment raised in it."""


class PolicyError(SimtuneError):
    """An endpoint refuses to answer, or cannot be reached."""


class RegistryError(SimtuneError):
    """A model record is missing, ambiguous or broken."""


class TrainingError(SimtuneError):
    """A training run cannot go on."""
