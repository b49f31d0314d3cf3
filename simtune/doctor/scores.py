"""What the scorers said: failures, scores of old versions, episodes without a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from simtune.doctor.events import decoded
from simtune.doctor.finding import Finding, error, first_line, graded, note, of, ok
from simtune.doctor.sample import newest_first
from simtune.doctor.subject import Subject
from simtune.errors import CorruptError
from simtune.rewards.registration import collect
from simtune.store.files import part_files, read_part
from simtune.store.layout import SCORES
from simtune.store.roots import open_root
from simtune.store.schema import SCORES as SCHEMA
from simtune.store.scores import version_key

_FAILED: Final = 0.05
_ROWS: Final = 50_000
_COLUMNS: Final = ("decision_id", "episode_id", "scorer_version", "score", "detail", "seq")


class _Said(NamedTuple):
    """The score of one subject that counts."""

    episode_id: str
    version: str
    score: float | None
    error: str


def check(subject: Subject) -> Iterator[Finding]:
    """Look at each scorer's files, the newest first."""
    names = scorers(subject)
    installed = {name: reward.version for name, reward in collect().items()}
    ended = {event.episode_id for event in subject.sample.events if event.kind == "episode_end"}
    sound = True
    for name in names:
        said: dict[Any, _Said] = {}
        for finding in _read(open_root(subject.store).tables / SCORES / name, said):
            sound = False
            yield finding
        for finding in _judged(name, list(said.values()), installed.get(name), ended, subject):
            sound &= finding.level != "warning"
            yield finding
    if names and sound:
        yield ok("scores", f"scores of {', '.join(names)}")


def scorers(subject: Subject) -> list[str]:
    """Who has scored the store."""
    if not subject.is_there:
        return []
    place = open_root(subject.store).tables / SCORES
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


def _read(directory: Any, said: dict[Any, _Said]) -> Iterator[Finding]:
    """Keep the latest (version, seq) of each subject; what cannot be read is a finding."""
    order: dict[Any, tuple[Any, int]] = {}
    rows = 0
    for _, path in newest_first(part_files(directory)):
        if rows >= _ROWS:
            return
        try:
            table = read_part(path, SCHEMA)
        except CorruptError as wrong:
            fix = f"rm {path}, and score again: simtune score --reward {directory.name}"
            yield error("unreadable-scores", first_line(wrong), fix)
            continue
        rows += table.num_rows
        columns = (table[name].to_pylist() for name in _COLUMNS)
        for decision, episode, version, score, detail, seq in zip(*columns, strict=True):
            key = (decision, episode)
            rank = (version_key(version), seq)
            if key not in order or rank > order[key]:
                order[key] = rank
                reason = str(decoded(detail).get("error", "")) if score is None else ""
                said[key] = _Said(episode, version, score, reason)


def _judged(
    name: str, said: list[_Said], installed: str | None, ended: set[str], subject: Subject
) -> Iterator[Finding]:
    again = f"simtune score {subject.option} --reward {name}"
    versions = Counter(each.version for each in said)
    for version in versions:
        reasons = Counter(
            each.error or "no reason was kept"
            for each in said
            if each.version == version and each.score is None
        )
        if reasons:
            reason, count = reasons.most_common(1)[0]
            yield graded(
                "failed-scores",
                reasons.total() / versions[version],
                _FAILED,
                f"{name} {version}: {of(reasons.total(), versions[version])} scores failed; "
                f"{count} times {first_line(reason)!r}",
                f"mend the reward, raise its version, then {again}",
            )
    if not said:
        return
    newest = max([*versions, *([installed] if installed else ())], key=version_key)
    old = sum(count for version, count in versions.items() if version != newest)
    if old:
        yield note(
            "old-scores",
            f"{name}: {of(old, len(said))} scores that count are of a version before {newest}",
            again,
        )
    if installed is None:
        yield note(
            "unknown-scorer",
            f"{name}: no installed plugin registers it, so it cannot score again",
            f"install its plugin, or {again} --plugin FILE_OR_MODULE",
        )
    missing = len(ended - {each.episode_id for each in said})
    if missing:
        yield note(
            "unscored-episodes",
            f"{name}: {of(missing, len(ended))} ended episodes{subject.sample.scope} have no score",
            again,
        )
