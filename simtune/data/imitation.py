"""Which rows of a file of decisions are worth imitating."""

from __future__ import annotations

import math

from simtune.data.decisions import DecisionFile, DecisionRow
from simtune.data.samples import Sample, Selection, reasons
from simtune.errors import DataError


def imitation_samples(
    file: DecisionFile, *, min_score: float | None = None, top_fraction: float = 1.0
) -> Selection:
    """Make samples for supervised training.

    A reviewer's rewrite always replaces the output and is always kept. An output is kept where
    its rating reaches `min_score`; without one, where it reaches the middle of the ratings'
    range, so that one-star answers are not imitated. Unrated outputs are skipped, unless no row
    of the file is rated: then it is a set of examples.

    Args:
        file: the rows.
        min_score: lowest rating that is imitated; None for the middle of the range.
        top_fraction: share of the rated outputs kept, best first.

    Raises:
        DataError: nothing is left.
    """
    skipped = file.skip_counts()
    rewritten = [row for row in file.rows if row.feedback]
    plain = [row for row in file.rows if not row.feedback]
    ratings = [row.rating for row in file.rows if row.rating is not None]
    if ratings or min_score is not None:
        rated = [row for row in plain if row.rating is not None]
        limit = _limit(ratings, min_score)
        good = [row for row in rated if row.rating is not None and row.rating >= limit]
        kept = _best(good, top_fraction)
        skipped["unrated"] += len(plain) - len(rated)
        skipped[f"rated below {limit:g}"] += len(rated) - len(good)
        skipped["outside the top fraction"] += len(good) - len(kept)
    else:
        kept = plain
    chosen = sorted(rewritten + kept, key=lambda row: row.row)
    skipped = +skipped  # drops the zeros
    if not chosen:
        raise DataError(
            f"nothing in {file.path!r} is left to imitate",
            got=f"skipped: {reasons(skipped)}",
            fix="lower --min-score, or rate the rows",
        )
    samples = [
        Sample(
            prompt=row.prompt,
            response=row.feedback or row.output,
            score=row.rating,
            origin=f"row {row.row}",
        )
        for row in chosen
    ]
    return Selection(samples=samples, episodes=0, digest=file.digest, skipped=skipped)


def _limit(ratings: list[float], min_score: float | None) -> float:
    if min_score is not None:
        return min_score
    return (min(ratings) + max(ratings)) / 2


def _best(rows: list[DecisionRow], fraction: float) -> list[DecisionRow]:
    count = math.ceil(len(rows) * fraction)
    return sorted(rows, key=lambda row: (-(row.rating or 0.0), row.row))[:count]
