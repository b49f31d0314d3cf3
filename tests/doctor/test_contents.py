"""Captured rows that nobody could learn from, one fault at a time."""

import fcntl
import re
import time

import pytest

import simtune
from simtune import plugins
from simtune.store import compact
from tests.doctor.broken_things import episode_rows, now, write_episodes, write_rows
from tests.doctor.test_scored import score


def test_a_sound_store_is_all_right(found):
    codes = found("root", "capture", "rewards", "tokens", "losses", "clock", "damage", "files")
    assert {finding.level for finding in codes.values()} == {"ok"}
    assert codes["capture"].seen == "24 decisions in 12 episodes"
    assert codes["rewards"].seen == "12 ended episodes with rewards, from 6 to 8"


def test_what_is_still_in_the_log_counts_and_is_not_compacted(tmp_path, found):
    path = write_episodes(tmp_path / "young", 3)
    assert found("capture", store=tmp_path / "young")["capture"].seen == (
        "6 decisions in 3 episodes"
    )
    assert path.exists() and not (tmp_path / "young" / "data").exists()


def test_rows_that_are_in_the_log_and_in_a_file_count_once(tmp_path, found):
    path = write_episodes(tmp_path / "both", 3)
    content = path.read_bytes()
    compact(tmp_path / "both")
    path.write_bytes(content)
    assert found("capture", store=tmp_path / "both")["capture"].seen == (
        "6 decisions in 3 episodes"
    )


def test_a_store_that_is_not_there_is_told_once(tmp_path, found, monkeypatch):
    monkeypatch.setenv("SIMTUNE_ROOT", str(tmp_path / "elsewhere"))
    codes = found("root", "capture", "rewards", "tokens", store=tmp_path / "nowhere")
    assert {code: f.level for code, f in codes.items()} == {
        "no-store": "error",
        "other-root": "note",
    }
    assert f"SIMTUNE_ROOT is {tmp_path / 'elsewhere'}" in codes["no-store"].seen
    assert f"simtune doctor --store {tmp_path / 'elsewhere'}" in codes["other-root"].fix


def test_a_directory_above_the_store_leads_to_the_store(tmp_path, found, root):
    (tmp_path / "above").mkdir()
    root.rename(tmp_path / "above" / "store")
    (wrong,) = found("root", store=tmp_path / "above").values()
    assert (wrong.code, wrong.fix) == ("not-a-store", f"--store {tmp_path / 'above' / 'store'}")


def test_a_setting_that_cannot_be_used_is_named(found, monkeypatch):
    monkeypatch.setenv("SIMTUNE_BACKLOG_BYTES", "much")
    (wrong,) = found("root").values()
    assert (wrong.code, wrong.level) == ("bad-settings", "error")
    assert "backlog_bytes" in wrong.seen


def test_a_url_that_leads_nowhere_is_an_error(found):
    codes = found("root", "capture", "rewards", "scores", "damage", store="nosuch://bucket/prefix")
    assert list(codes) == ["unreachable-store"]
    assert codes["unreachable-store"].level == "error"


def test_a_store_behind_a_url_is_read_where_it_is(tmp_path, found, monkeypatch):
    monkeypatch.setenv("SIMTUNE_LOCAL", str(tmp_path / "spool"))
    url = f"file://{tmp_path}/remote"
    simtune.configure(root=url)
    with simtune.episode(env="lake") as episode:
        simtune.capture(lambda messages: "left")([{"role": "user", "content": "go"}])
        simtune.reward(1.0)
        episode.finish(terminated=True)
    assert simtune.read(url).count()["files"] == 1
    codes = found("root", "capture", "log", store=url)
    assert codes["capture"].seen == "1 decisions in 1 episodes"
    assert {finding.level for finding in codes.values()} == {"ok"}


def test_episodes_without_a_decision_are_an_empty_capture(tmp_path, found):
    write_rows(tmp_path / "empty", episode_rows("ep", decisions=0))
    wrong = found("capture", store=tmp_path / "empty")["no-decisions"]
    assert wrong.level == "error"
    assert "2 rows of other kinds" in wrong.seen


def test_without_ends_training_would_find_nothing(tmp_path, found):
    path = write_episodes(tmp_path / "open", 3, end=False)
    assert found("capture", store=tmp_path / "open")["no-episode-ends"].level == "error"
    # Cut before the seal and locked, it is a segment that is still being written.
    path.write_bytes(path.read_bytes()[:-16])
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        living = found("capture", store=tmp_path / "open")["no-episode-ends"]
    assert living.level == "warning"
    assert "1 processes are still writing" in living.seen


def test_episodes_that_fell_silent_are_unfinished(tmp_path, found, root):
    hours_ago = now() - 3 * 3600 * 10**6
    silent = {"end": False, "start": {"ts": hours_ago}, "ts": hours_ago}
    write_rows(root, episode_rows("silent", **silent))
    write_rows(root, episode_rows("running", end=False))
    wrong = found("capture")["unfinished-episodes"]
    assert wrong.level == "note"
    assert wrong.seen.startswith("1 of 14 (7.14 %) episodes never ended")


@pytest.mark.parametrize(("count", "level"), [(2, "note"), (6, "warning")])
def test_aborted_episodes_are_counted_with_the_first_reason(root, found, count, level):
    write_episodes(root, count, prefix="bad", end={"error": "KeyError: 'map'"})
    wrong = found("capture")["aborted-episodes"]
    assert wrong.level == level
    assert wrong.seen.startswith(f"{count} of {12 + count} ")
    assert f"{count} times \"KeyError: 'map'\"" in wrong.seen


@pytest.mark.parametrize(("count", "level"), [(1, "note"), (12, "warning")])
def test_answers_that_could_not_be_parsed_are_counted_by_environment(root, found, count, level):
    write_episodes(root, count, prefix="bad", valid=False)
    write_episodes(root, 3, prefix="other", env="market")
    wrong = found("capture")["invalid-answers"]
    assert wrong.level == level
    assert wrong.seen.startswith(f"env lake: {2 * count} of {24 + 2 * count} ")


def test_no_reward_at_all_is_a_warning_and_few_missing_are_a_note(tmp_path, root, found):
    write_episodes(tmp_path / "none", 4, reward=None)
    wrong = found("rewards", store=tmp_path / "none")["no-rewards"]
    assert wrong.seen == "none of 4 ended episodes has a reward"
    assert f"simtune score --store {tmp_path / 'none'}" in wrong.fix
    write_episodes(root, 1, prefix="bare", reward=None)
    assert found("rewards")["unrewarded-episodes"].seen.startswith("1 of 13 ")


def test_where_there_are_scores_missing_rewards_are_a_note(tmp_path, found):
    score(write_episodes(tmp_path / "none", 4, reward=None).parent.parent, range(4))
    told = found("rewards", store=tmp_path / "none")["no-rewards"]
    assert (told.level, told.fix) == ("note", "train with --reward fair")
    assert told.seen.endswith("; there are scores of fair")


def test_a_late_reward_is_a_reward(tmp_path, found):
    from simtune.records import Row

    rows = episode_rows("ep", reward=None)
    path = write_rows(tmp_path / "late", rows)
    target = f"{path.name[:16]}-1"
    write_rows(
        tmp_path / "late", [Row(kind="reward", episode_id="judge", target=target, reward=2.5)]
    )
    assert found("rewards", store=tmp_path / "late")["rewards"].seen.endswith("from 2.5 to 2.5")


def test_returns_that_teach_nothing_are_told(tmp_path, root, found):
    write_episodes(tmp_path / "flat", 12, reward=1.0)
    assert "all 12 episodes have the return 2" in (
        found("rewards", store=tmp_path / "flat")["equal-returns"].seen
    )
    write_episodes(root, 1, prefix="bad", reward=float("nan"))
    assert found("rewards")["broken-rewards"].seen.startswith("1 of 13 ")


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("no-token-ids", {"token_ids": []}),
        ("no-token-ids", {"prompt_token_ids": []}),
        ("no-logprobs", {"logprobs": []}),
        ("no-logprobs", {"logprobs": [-0.5, float("nan")]}),
        ("greedy-sampling", {"sampling": '{"temperature":0.0}'}),
        ("cut-sampling", {"sampling": '{"temperature":1.0,"top_p":0.9}'}),
        (
            "no-chosen-option",
            {"sampling": '{"decision":"choose","choice_token_ids":[[1],[2]]}', "logprobs": []},
        ),
    ],
)
def test_decisions_that_ppo_cannot_use_are_counted_by_environment_and_model(
    root, found, code, fields
):
    write_episodes(root, 2, prefix="bad", env="market", model="api", **fields)
    codes = found("tokens")
    assert set(codes) == {code}
    assert codes[code].level == "warning"
    assert codes[code].seen.startswith("env market, model api: 4 of 4 (100 %) decisions")


def test_a_few_greedy_decisions_among_many_are_a_note(root, found):
    write_episodes(root, 30, prefix="more")
    write_episodes(root, 1, prefix="greedy", sampling='{"temperature":0}')
    assert found("tokens")["greedy-sampling"].level == "note"


def test_what_capture_did_not_keep_is_added_up(root, found):
    write_episodes(root, 1, prefix="a", extra='{"dropped":7}', decisions=1)
    write_episodes(root, 1, prefix="b", end={"extra": '{"left_out":3}'})
    write_episodes(root, 1, prefix="c", extra='{"converted":{"reward":"was str"}}')
    codes = found("losses")
    assert codes["dropped-rows"].seen == "back-pressure dropped 7 rows"
    assert "3 decisions" in codes["left-out"].seen
    assert codes["converted-values"].seen.endswith(": reward (2)")
    assert "losses" not in codes


def test_what_a_plugin_keeps_out_and_back_pressure_drops_is_told(tmp_path, found):
    """Both captured for real."""
    (tmp_path / "picky.py").write_text(
        "import simtune\n\n@simtune.hookimpl\n"
        "def simtune_decision(row):\n    return row.response != 'secret'\n"
    )
    plugins.load(str(tmp_path / "picky.py"))
    root = tmp_path / "mine"
    simtune.configure(root=str(root), backpressure="drop", backlog_bytes=4000, compactor="none")
    ask = simtune.capture(lambda messages: messages[-1]["content"])

    def play(*answers):
        with simtune.episode(env="lake"):
            for text in answers:
                ask([{"role": "user", "content": text}])

    play("secret", "left", "secret")
    play("x" * 5000)
    simtune.flush()
    play("dropped", "dropped")
    simtune.read(root)
    time.sleep(0.3)
    play("right")
    simtune.flush()
    codes = found("losses", store=root)
    assert "kept 2 decisions out" in codes["left-out"].seen
    assert re.fullmatch(r"back-pressure dropped [1-9][0-9]* rows", codes["dropped-rows"].seen)


def test_clocks_that_jump_are_noted(root, found):
    hour = 3600 * 10**6
    start = now()
    late = [*episode_rows("skew", decisions=0, end=False, start={"ts": start, "mono_ns": 0})]
    late += [row for row in episode_rows("skew", ts=start - hour, mono_ns=10**9)[1:2]]
    write_rows(root, late)
    assert "set back by 60 min" in found("clock")["clock-set-back"].seen
    write_episodes(root, 1, prefix="future", ts=now() + 5 * hour)
    assert "5 h in this machine's future" in found("clock")["clock-ahead"].seen


def test_a_large_store_is_looked_at_in_part_and_says_so(tmp_path, found, monkeypatch):
    from simtune.doctor import sample

    monkeypatch.setattr(sample, "ROWS", 40)
    for number in range(3):
        write_episodes(tmp_path / "large", 10, prefix=f"n{number}-")
        compact(tmp_path / "large")
    seen = found("capture", store=tmp_path / "large")["capture"].seen
    assert seen == "20 decisions in 10 episodes among the newest 40 rows"
