"""Logs that wait, damaged files, open modes, full disks: each made, none imagined."""

import fcntl
import os
import time
from collections import namedtuple

import pytest

from simtune.store import compact
from tests.doctor.broken_things import episode_rows, write_episodes, write_rows

Statvfs = namedtuple("Statvfs", "f_bavail f_frsize f_blocks f_files f_favail")


def aged(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_store_that_was_compacted_has_nothing_waiting(found):
    codes = found("log", "damage", "files", "disk")
    assert {code: finding.level for code, finding in codes.items()} == {
        "log": "ok",
        "damage": "ok",
        "files": "ok",
        "disk": "ok",
    }
    assert codes["log"].seen.startswith("0 segments of log, 0 B of at most 4.29 GB; 0 finished")


def test_finished_segments_that_nobody_compacts_are_told_with_age_and_size(root, found):
    path = write_episodes(root, 3, prefix="new")
    assert "1 finished ones await compaction" in found("log")["log"].seen
    aged(path, 1200)
    waiting = found("log")["log-waiting"]
    assert waiting.level == "note"
    assert waiting.seen.startswith("1 finished segments of log, ")
    assert "the oldest is 20 min old" in waiting.seen
    assert waiting.fix == f"simtune episodes compact --store {root}"
    compact(root)
    assert found("log")["log"].level == "ok"


def test_while_a_compaction_runs_nothing_waits_in_vain(root, found):
    aged(write_episodes(root, 3, prefix="new"), 1200)
    with open(root / "_staging" / "compactor.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert found("log")["log"].seen.endswith("await compaction, which is running")
    assert "log-waiting" in found("log")


@pytest.mark.parametrize(
    ("share", "levels"),
    [
        (0.2, {"log-waiting": "warning"}),
        (0.6, {"log-waiting": "warning", "backlog-near-limit": "warning"}),
        (1.2, {"log-waiting": "warning", "backlog-near-limit": "error"}),
    ],
)
def test_a_log_near_its_limit_is_a_warning_and_at_it_an_error(
    root, found, monkeypatch, share, levels
):
    size = write_episodes(root, 20, prefix="new").stat().st_size
    monkeypatch.setenv("SIMTUNE_BACKLOG_BYTES", str(int(size / share)))
    assert {code: f.level for code, f in found("log").items()} == levels


def test_what_a_compactor_said_before_it_failed_is_shown(root, found):
    lock = root / "_staging" / "on-demand.lock"
    lock.write_text("simtune: error: cannot compact /full\n  got: No space left on device\n")
    wrong = found("log")["compactor-failed"]
    assert "'simtune: error: cannot compact /full'" in wrong.seen
    with open(lock, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "compactor-failed" not in found("log")
    lock.write_text("24 rows of 1 segments in data/v1/part.parquet\n")
    assert "compactor-failed" not in found("log")


def test_a_flipped_bit_in_the_log_is_damage_and_the_rows_before_it_count(tmp_path, found):
    path = write_rows(tmp_path / "other", episode_rows("ep", decisions=5))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    codes = found("capture", "damage", store=tmp_path / "other")
    assert codes["damaged-segment"].level == "error"
    assert path.name in codes["damaged-segment"].seen
    assert "no-episode-ends" in codes


def test_a_segment_that_was_set_aside_is_a_warning(tmp_path, found):
    path = write_rows(tmp_path / "other", episode_rows("ep", decisions=5))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    compact(tmp_path / "other")
    wrong = found("damage", store=tmp_path / "other")["set-aside-segment"]
    assert wrong.fix.startswith(f"rm {path}.damaged")


def test_a_flipped_bit_in_a_parquet_file_is_damage(root, found):
    (path,) = (root / "data" / "v1").iterdir()
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    codes = found("damage", "capture")
    assert codes["unreadable-part"].seen == f"{path} cannot be read"
    assert f"restore {path} from a copy" in codes["unreadable-part"].fix
    assert codes["no-decisions"].level == "error"


def test_a_compaction_that_was_cut_short_is_told_while_none_runs(root, found):
    (path,) = (root / "data" / "v1").iterdir()
    intent = root / "_staging" / f"{path.name}.intent"
    intent.write_text(f'{{"final":"{path.name}","inputs":[],"damaged":[]}}')
    (root / "_staging" / "fair-x.scores").write_bytes(b"")
    codes = found("damage")
    assert codes["unfinished-compaction"].fix == f"simtune episodes compact --store {root}"
    assert codes["orphan-staged"].level == "note"
    with open(root / "_staging" / "compactor.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "unfinished-compaction" not in found("damage")
    compact(root)
    assert "unfinished-compaction" not in found("damage")


def test_a_segment_whose_writer_died_while_making_it_is_a_note(root, found):
    path = root / "wal" / "00000000000000aa-00000000.new"
    path.write_bytes(b"")
    assert "unfinished-segment" not in found("damage")
    aged(path, 120)
    assert found("damage")["unfinished-segment"].fix == f"rm {path}"


def test_files_that_others_may_read_are_a_warning_with_the_command_that_mends_it(root, found):
    (path,) = (root / "data" / "v1").iterdir()
    path.chmod(0o644)
    wrong = found("files")["open-modes"]
    assert wrong.seen.startswith(
        f"1 files and directories can be read or changed by others, such as {path} (0644)"
    )
    os.system(wrong.fix)
    assert found("files")["files"].level == "ok"


def test_many_small_files_are_a_note(tmp_path, found, monkeypatch):
    from simtune.doctor import files

    monkeypatch.setattr(files, "_FILES", 4)
    for number in range(4):
        write_episodes(tmp_path / "other", 1, prefix=f"n{number}-")
        compact(tmp_path / "other")
    small = found("files", store=tmp_path / "other")["small-files"]
    assert small.level == "note"
    assert small.seen.startswith("4 Parquet files of 4 rows each")


GB = 10**9


@pytest.mark.parametrize(
    ("free", "total", "inodes", "level"),
    [
        (500 * GB, 1000 * GB, 10**6, "ok"),
        (40 * GB, 1000 * GB, 10**6, "ok"),
        (4 * GB, 1000 * GB, 10**6, "disk-nearly-full"),
        (GB // 2, 2 * GB, 10**6, "disk-nearly-full"),
        (500 * GB, 1000 * GB, 500, "disk-nearly-full"),
        (GB // 100, 1000 * GB, 10**6, "disk-full"),
        (500 * GB, 1000 * GB, 0, "disk-full"),
    ],
)
def test_what_is_free_is_judged_by_bytes_share_and_inodes(
    found, monkeypatch, free, total, inodes, level
):
    fake = Statvfs(free // 4096, 4096, total // 4096, 10**6, inodes)
    monkeypatch.setattr(os, "statvfs", lambda path: fake)
    (finding,) = found("disk").values()
    assert finding.code == ("disk" if level == "ok" else level)


def test_a_disk_that_is_full_tomorrow_is_nearly_full(root, found, monkeypatch):
    fake = Statvfs(30 * GB // 4096, 4096, 100 * GB // 4096, 10**6, 10**6)
    monkeypatch.setattr(os, "statvfs", lambda path: fake)
    path = root / "wal" / "00000000000000aa-00000000.wal"
    with open(path, "wb") as file:
        file.truncate(2 * GB)
    aged(path, 3600)
    wrong = found("disk")["disk-nearly-full"]
    assert "the store grows by 2 GB an hour, which fills it in 15 h" in wrong.seen
