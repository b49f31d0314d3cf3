"""Some captured decisions with everything in them, to be done again with a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from simtune.doctor.subject import Subject
from simtune.errors import CorruptError
from simtune.recording.segments import iter_segment, wal_directory
from simtune.records import Decision, Row
from simtune.store.assembly import mapping, messages
from simtune.store.files import part_files
from simtune.store.layout import DATA
from simtune.store.reader import Store
from simtune.store.roots import open_root

DECISIONS: Final = 64
"""Decisions that are done again, at most."""

_EPISODES: Final = 16


def chosen(subject: Subject) -> list[Decision]:
    """The decisions of some of the newest episodes that have prompt token ids."""
    usable = [event for event in subject.sample.decisions if event.prompt_tokens]
    newest = sorted(usable, key=lambda event: -event.ts)
    episodes = list(dict.fromkeys(event.episode_id for event in newest))[:_EPISODES]
    wanted = {event.decision_id for event in usable if event.episode_id in episodes}
    found = {each.decision_id: each for each in (*_filed(subject, episodes), *_logged(subject))}
    return [each for each in found.values() if each.decision_id in wanted and each.prompt][
        :DECISIONS
    ]


def _filed(subject: Subject, episodes: list[str]) -> Iterator[Decision]:
    tables = open_root(subject.store).tables
    store = Store(tables, part_files(tables / DATA))
    for episode in store.episodes(ids=episodes):
        yield from episode.decisions


def _logged(subject: Subject) -> Iterator[Decision]:
    directory = wal_directory(subject.local)
    for path in sorted(directory.glob("*.wal")):
        writer = path.name.partition("-")[0]
        try:
            for seq, row in iter_segment(path):
                if row.kind == "decision" and row.prompt_token_ids:
                    yield _decision(f"{writer}-{seq}", row)
        except (CorruptError, FileNotFoundError):
            continue


def _decision(decision_id: str, row: Row) -> Decision:
    return Decision(
        decision_id=decision_id,
        prompt=messages(row.prompt, mapping(row.extra)),
        prompt_token_ids=list(row.prompt_token_ids),
        token_ids=list(row.token_ids),
        logprobs=list(row.logprobs),
        choice_logprobs=list(row.choice_logprobs),
        sampling=mapping(row.sampling),
        model=row.model,
        adapter=row.adapter,
        ts=row.ts,
    )
