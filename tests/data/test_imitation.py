"""What is imitated: rewrites always, outputs that were rated well, never a one-star answer."""

from __future__ import annotations

import pytest

from simtune.data.decisions import DecisionFile, DecisionRow
from simtune.data.imitation import imitation_samples
from simtune.errors import DataError


def file(*rows: dict) -> DecisionFile:
    made = [
        DecisionRow(row=n, prompt=[{"role": "user", "content": "p"}], **row)
        for n, row in enumerate(rows, start=1)
    ]
    return DecisionFile(path="d.json", rows=made, skipped=[(9, "empty prompt")], digest="abc")


def responses(selection) -> list[str]:
    return [sample.response for sample in selection.samples]


def test_a_rewrite_replaces_the_output_and_is_kept_whatever_the_rating():
    chosen = imitation_samples(
        file(
            {"output": "bad", "rating": 1.0, "feedback": "better"},
            {"output": "fine", "rating": 5.0},
            {"output": "unrated", "feedback": "rewritten"},
        )
    )
    assert responses(chosen) == ["better", "fine", "rewritten"]
    assert [sample.score for sample in chosen.samples] == [1.0, 5.0, None]
    assert (chosen.digest, chosen.episodes) == ("abc", 0)


def test_low_ratings_are_not_imitated_and_unrated_rows_are_counted():
    chosen = imitation_samples(
        file(
            {"output": "one", "rating": 1.0},
            {"output": "one too", "rating": 1.0},
            {"output": "three", "rating": 3.0},
            {"output": "five", "rating": 5.0},
            {"output": "unrated"},
        )
    )
    assert responses(chosen) == ["three", "five"]
    assert chosen.skipped == {"empty prompt": 1, "unrated": 1, "rated below 3": 2}


def test_min_score_and_top_fraction():
    rows = [{"output": str(n), "rating": float(n)} for n in range(1, 6)]
    assert responses(imitation_samples(file(*rows), min_score=5)) == ["5"]
    kept = imitation_samples(file(*rows), min_score=0, top_fraction=0.5)
    assert responses(kept) == ["3", "4", "5"]
    assert kept.skipped["outside the top fraction"] == 2


def test_a_file_without_any_rating_is_a_set_of_examples():
    assert responses(imitation_samples(file({"output": "a"}, {"output": "b"}))) == ["a", "b"]


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(DataError, match=r"1 rated below 9"):
        imitation_samples(file({"output": "a", "rating": 5.0}), min_score=9)
