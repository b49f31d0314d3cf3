"""Scores: kept beside decisions that never change; the latest (scorer_version, seq) counts."""

import os
import subprocess
import sys

import pytest
from store_rows import decision, write_segment

from simtune.errors import CorruptError, OptionError
from simtune.store import Score, latest_scores, read, write_scores
from simtune.store.scores import all_scores, version_key


def score(value, *, decision_id="w-1", version="1", scorer="judge", **fields):
    return Score(
        decision_id=decision_id,
        episode_id=fields.pop("episode_id", "ep"),
        scorer=scorer,
        scorer_version=version,
        score=value,
        **fields,
    )


def test_what_is_written_is_read(tmp_path):
    failed = {"error": "ValueError: no number in the answer"}
    written = write_scores(
        tmp_path,
        [
            score(0.5, ts=1_700_000_000_000_000, detail={"why": ["ä", 1]}),
            score(None, decision_id=None, detail=failed),
            score(0.25, scorer="length.v2", decision_id="w-2"),
        ],
    )
    assert written == 3
    assert latest_scores(tmp_path, "judge") == {"w-1": 0.5, "ep": None}
    assert latest_scores(tmp_path, "length.v2") == {"w-2": 0.25}
    assert latest_scores(tmp_path, "nobody") == {}
    table = all_scores(tmp_path, "judge")
    assert table["detail"].to_pylist() == [
        '{"why":["ä",1]}',
        '{"error":"ValueError: no number in the answer"}',
    ]
    assert table["ts"][0].as_py().isoformat() == "2023-11-14T22:13:20+00:00"
    assert table["seq"].to_pylist() == [0, 1]


def test_the_latest_of_one_version_wins_within_and_across_files(tmp_path):
    write_scores(tmp_path, [score(0.1), score(0.2), score(0.9, decision_id="w-2")])
    write_scores(tmp_path, [score(0.3)])
    assert latest_scores(tmp_path, "judge") == {"w-1": 0.3, "w-2": 0.9}
    write_scores(tmp_path, [score(None)])
    # A failure is a score too: what was known before must not pass for current.
    assert latest_scores(tmp_path, "judge") == {"w-1": None, "w-2": 0.9}


@pytest.mark.parametrize(
    ("older", "newer"), [("1", "2"), ("9", "10"), ("1.9.0", "1.10.0"), ("1", "1.1"), ("a", "b")]
)
def test_a_newer_version_wins_whenever_it_was_written(tmp_path, older, newer):
    assert version_key(older) < version_key(newer)
    write_scores(tmp_path, [score(0.9, version=newer)])
    write_scores(tmp_path, [score(0.1, version=older)])
    assert latest_scores(tmp_path, "judge") == {"w-1": 0.9}


def test_scorers_do_not_touch_each_other(tmp_path):
    write_scores(tmp_path, [score(0.1), score(0.2, scorer="human")])
    assert latest_scores(tmp_path, "judge") == {"w-1": 0.1}
    assert latest_scores(tmp_path, "human") == {"w-1": 0.2}
    assert all_scores(tmp_path).num_rows == 2


def test_a_decision_and_an_episode_of_one_name_are_two_subjects(tmp_path):
    write_scores(tmp_path, [score(0.1, decision_id="ep"), score(0.2, decision_id=None)])
    assert sorted(all_scores(tmp_path)["score"].to_pylist()) == [0.1, 0.2]


def test_another_process_goes_on_counting(tmp_path):
    write_scores(tmp_path, [score(0.1)])
    script = (
        "import sys; from simtune.store import Score, write_scores; "
        "write_scores(sys.argv[1], [Score(decision_id='w-1', episode_id='ep', scorer='judge', "
        "scorer_version='1', score=0.7)])"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    write_scores(tmp_path, [score(0.4, decision_id="w-2")])
    assert latest_scores(tmp_path, "judge") == {"w-1": 0.7, "w-2": 0.4}
    assert sorted(all_scores(tmp_path)["seq"].to_pylist()) == [1, 2]
    names = sorted(path.name[-18:] for path in (tmp_path / "scores/v1/judge").iterdir())
    assert names == ["0000000000.parquet", "0000000000.parquet", "0000000001.parquet"]


def test_decisions_are_never_rewritten(tmp_path):
    write_segment(tmp_path, [decision()])
    (path,) = read(tmp_path).files
    before = path.read_bytes()
    write_scores(tmp_path, [score(1.0)])
    assert path.read_bytes() == before
    assert read(tmp_path).scores()["score"].to_pylist() == [1.0]
    assert read(tmp_path).count()["scores"] == 1


@pytest.mark.parametrize("name", ["", "..", "../other", "a/b", ".hidden", "x" * 101, "tab\t", "ü"])
def test_a_scorer_cannot_leave_its_directory(tmp_path, name):
    with pytest.raises(OptionError, match="scorer's name"):
        write_scores(tmp_path, [score(0.5, scorer="good"), score(0.5, scorer=name)])
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write_writes_nothing(tmp_path):
    assert write_scores(tmp_path, []) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing_half_done(tmp_path, monkeypatch):
    write_scores(tmp_path, [score(0.1)])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_scores(tmp_path, [score(0.9)])
    assert latest_scores(tmp_path, "judge") == {"w-1": 0.1}
    write_scores(tmp_path, [score(0.5)])
    assert latest_scores(tmp_path, "judge") == {"w-1": 0.5}
    assert [path.name for path in (tmp_path / "_staging").iterdir()] == ["scores.lock"]


def test_a_broken_sidecar_is_named(tmp_path):
    write_scores(tmp_path, [score(0.1)])
    (path,) = (tmp_path / "scores/v1/judge").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptError, match=path.name):
        latest_scores(tmp_path, "judge")
