"""Scores that failed, are old, or are missing."""

from simtune import plugins
from simtune.store import Score, write_scores

FAIR = """
import simtune

@simtune.hookimpl
def simtune_register_rewards(register):
    register("fair", lambda episode: 1.0, version="2")
"""


def score(root, numbers, *, version="2", failing=(), scorer="fair"):
    write_scores(
        root,
        [
            Score(
                decision_id=None,
                episode_id=f"ep{number}",
                scorer=scorer,
                scorer_version=version,
                score=None if number in failing else 1.0,
                detail={"error": "KeyError: 'level'"} if number in failing else None,
            )
            for number in numbers
        ],
    )


def load_fair(tmp_path):
    (tmp_path / "fair.py").write_text(FAIR)
    plugins.load(str(tmp_path / "fair.py"))


def test_whole_scores_of_an_installed_scorer_are_all_right(tmp_path, root, found):
    load_fair(tmp_path)
    score(root, range(12))
    codes = found("scores")
    assert {code: finding.seen for code, finding in codes.items()} == {"scores": "scores of fair"}


def test_failed_scores_are_counted_with_their_first_reason(tmp_path, root, found):
    load_fair(tmp_path)
    score(root, range(12), failing=(3, 4, 5))
    wrong = found("scores")["failed-scores"]
    assert wrong.level == "warning"
    assert wrong.seen == "fair 2: 3 of 12 (25 %) scores failed; 3 times \"KeyError: 'level'\""
    assert wrong.fix.endswith(f"simtune score --store {root} --reward fair")
    score(root, (3, 4, 5))
    assert "failed-scores" not in found("scores")


def test_scores_of_old_versions_and_missing_ones_are_notes(tmp_path, root, found):
    load_fair(tmp_path)
    score(root, range(5), version="1")
    score(root, range(2), version="2")
    codes = found("scores")
    assert codes["old-scores"].seen == (
        "fair: 3 of 5 (60 %) scores that count are of a version before 2"
    )
    assert codes["unscored-episodes"].seen.startswith("fair: 7 of 12 ")


def test_a_scorer_that_is_not_installed_is_a_note(root, found):
    score(root, range(12))
    assert "no installed plugin registers it" in found("scores")["unknown-scorer"].seen


def test_a_damaged_file_of_scores_is_an_error(root, found):
    score(root, range(12))
    (path,) = (root / "scores" / "v1" / "fair").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    wrong = found("scores")["unreadable-scores"]
    assert (wrong.level, wrong.fix.split(",")[0]) == ("error", f"rm {path}")
