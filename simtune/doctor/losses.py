"""What capture itself says it did not keep: dropped rows, decisions left out, changed values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from simtune.doctor.events import decoded
from simtune.doctor.finding import Finding, note, ok, warning
from simtune.doctor.subject import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """Add up what the rows' `extra` notes."""
    sample = subject.sample
    dropped = left_out = 0
    converted: Counter[str] = Counter()
    for event in sample.events:
        if event.extra:
            extra = decoded(event.extra)
            dropped += _count(extra.get("dropped"))
            left_out += _count(extra.get("left_out"))
            changed = extra.get("converted")
            converted.update(list(changed) if isinstance(changed, dict) else [])
    if dropped:
        yield warning(
            "dropped-rows",
            f"back-pressure dropped {dropped:,} rows{sample.scope}",
            "compact while simulations run: simtune episodes compact --watch "
            f"{subject.option}; or simtune.configure(backpressure='block')",
        )
    if left_out:
        yield note(
            "left-out",
            f"plugins or redactions kept {left_out:,} decisions out of the store{sample.scope}",
            "simtune plugins ls shows who listens to simtune_decision",
        )
    if converted:
        named = ", ".join(f"{name} ({count})" for name, count in converted.most_common(3))
        yield note(
            "converted-values",
            f"{converted.total():,} values were converted or left out to fit their columns"
            f"{sample.scope}: {named}",
            "capture text, numbers and what JSON can hold; `extra` of the rows says what was done",
        )
    if sample.events and not (dropped or left_out or converted):
        yield ok("losses", "no row says that anything was dropped, left out or converted")


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
