"""URLs of other kinds through the same code, and where their logs lie."""

import pytest

import simtune
from simtune import config
from simtune.errors import OptionError
from simtune.recording import seal
from simtune.recording.spool import is_url, spool_directory
from simtune.store import Score, compact, tail, write_scores
from simtune.store.remote import open_url
from simtune.store.roots import open_root


@pytest.fixture
def local(root, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "_current", config.Config(local=str(tmp_path / "local")))
    return tmp_path / "local"


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_capture_compact_read_score_and_follow(local, tmp_path, kind):
    root = f"file://{tmp_path}/far" if kind == "file" else f"memory://box/{tmp_path.name}"
    ids = []
    following = tail(root)
    for number in range(2):
        with simtune.episode(env="far", root=root) as episode:
            episode.decision("?", "!", reward=float(number))
        ids.append(episode.id)
        seal(root)
        compact(root)
        following._look_at = 0.0
        assert [e.episode_id for e in following.episodes()] == [ids[-1]]
    store = simtune.read(root)
    assert {e.episode_id: e.total_reward for e in store.episodes()} == {ids[0]: 0.0, ids[1]: 1.0}
    assert store.sql("SELECT count(*) AS n FROM decisions").to_pylist() == [{"n": 2}]
    score = Score(
        decision_id=None, episode_id=ids[0], scorer="judge", scorer_version="1", score=0.5
    )
    write_scores(root, [score])
    assert store.scores()["score"].to_pylist() == [0.5]
    assert len(list(open_root(root).tables.glob("scores/v1/*/*.parquet"))) == 1


def test_the_log_of_a_url_lies_where_its_host_and_path_say(local):
    directory = spool_directory("s3://bucket/some/prefix")
    assert directory.parent == local
    assert directory.name.startswith("bucket-some-prefix-")
    same = ["s3://bucket/some/prefix/", "s3://me:key@bucket/some/prefix?region=eu-west-1"]
    assert {spool_directory(url) for url in same} == {directory}
    others = ["s3://bucket/some", "gs://bucket/some/prefix", "s3://bucket/some-prefix"]
    others.append("s3://bucket/some/prefix?endpoint_override=minio:9000")
    assert len({directory, *map(spool_directory, others)}) == 5
    assert "key" not in str(spool_directory(same[1]))


def test_without_a_setting_it_lies_in_the_users_state(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "_current", config.Config())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert spool_directory("s3://b/p").parent == tmp_path / "simtune"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert spool_directory("s3://b/p").parent == tmp_path / "home/.local/state/simtune"


def test_what_is_a_url():
    assert is_url("s3://b/p") and is_url("file:///x")
    assert not is_url("./x") and not is_url("/x://y")


def test_secrets_of_a_url_are_not_shown():
    path = open_url("s3://me:hunter2@bucket/p?region=eu-west-1") / "data/v1"
    assert str(path) == "s3://bucket/p/data/v1"
    assert "hunter2" not in repr(path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nowhere://x/y", "nothing can open a store at nowhere://"),
        ("s3://bucket/p?colour=red", "parameters colour"),
        ("s3:///p", "no bucket"),
        ("s3://bucket/p?request_timeout=soon", "request_timeout is no time"),
    ],
)
def test_a_url_that_cannot_be_used_is_said(url, said):
    with pytest.raises(OptionError, match=said):
        simtune.read(url)
