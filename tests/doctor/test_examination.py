"""The examination as a whole."""

from simtune.doctor import CHECKS, CODES, Subject, diagnose, examination
from simtune.doctor.finding import lasting, of, size


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(root, monkeypatch):
    monkeypatch.setattr(examination, "CHECKS", {"broken": "no_such_module", "root": "where"})
    report = diagnose(Subject(str(root)), ("broken", "root"))
    assert [finding.code for finding in report.findings] == ["check-failed", "root"]
    assert report.findings[0].seen.startswith(
        "the check 'broken' could not be done: ModuleNotFoundError: "
    )
    assert report.worst == "error"


def test_every_finding_of_a_sound_setup_is_ok_or_a_note(root):
    report = diagnose(Subject(str(root)))
    worse = [finding for finding in report.findings if finding.level not in ("ok", "note")]
    assert [finding.code for finding in worse if finding.code != "disk-nearly-full"] == []
    for finding in report.findings:
        levels = CODES.get(finding.code, ("ok",))
        assert finding.level in levels
        assert finding.code in CODES or finding.code in CHECKS
    assert report.seconds < 20


def test_a_store_that_is_a_file_ends_no_examination(tmp_path):
    (tmp_path / "file").write_text("")
    report = diagnose(Subject(str(tmp_path / "file")))
    codes = {finding.code for finding in report.findings}
    assert "not-a-store" in codes
    assert "check-failed" not in codes


def test_numbers_are_readable():
    assert of(12, 30) == "12 of 30 (40 %)"
    assert of(1, 3000) == "1 of 3,000 (0.0333 %)"
    assert [size(n) for n in (12, 1500, 2_000_000, 3e9, 4e12)] == [
        "12 B",
        "1.5 kB",
        "2 MB",
        "3 GB",
        "4 TB",
    ]
    assert [lasting(s) for s in (5, 119, 120, 7200, 200_000)] == [
        "5 s",
        "119 s",
        "2 min",
        "2 h",
        "2 days",
    ]
