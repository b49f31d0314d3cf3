"""Stores behind a URL, on a real S3 API server: whole files or none, and nothing lost."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from s3_server import BUCKET, S3Server

import simtune
from simtune import config
from simtune.errors import CorruptError, OptionError, RemoteError
from simtune.recording import seal
from simtune.store import Score, compact, placing, tail, watch, watching, write_scores
from simtune.store.layout import store_root
from simtune.store.roots import open_root


@pytest.fixture(scope="module")
def server():
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(server, request, root, tmp_path, monkeypatch):
    """The server, and the URL of a store of this test's own in it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SIMTUNE_LOCAL": str(tmp_path / "local"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(config, "_current", config.Config(local=str(tmp_path / "local")))
    server.before = lambda environ: None
    server.prefix = f"{request.node.name.split('[')[0]}-{os.urandom(3).hex()}"
    yield server
    server.before = lambda environ: None


def url(server, **parameters):
    return server.url(server.prefix, **parameters)


def below(server, folder):
    """Name -> size of what is in a folder of the store."""
    prefix = f"{server.prefix}/{folder}/"
    return {key[len(prefix) :]: size for key, size in server.objects(prefix).items()}


def capture(root, decisions=2, text="!"):
    """One finished episode in the log."""
    with simtune.episode(env="remote", root=root) as episode:
        for _ in range(decisions):
            episode.decision("?", text, reward=1.0)
    seal(root)
    return episode.id


def logged(root):
    return sorted(path.name for path in (open_root(root).local / "wal").glob("*.wal"))


def test_what_is_captured_is_uploaded_and_read_back(s3):
    root = url(s3)
    episode_id = capture(root)
    assert len(logged(root)) == 1
    assert server_has(s3) == []
    report = compact(root)
    (name,) = server_has(s3)
    assert report.files == [f"s3://{BUCKET}/{s3.prefix}/data/v1/{name}"]
    assert report.parquet_bytes == below(s3, "data/v1")[name]
    assert logged(root) == [] and below(s3, "_staging") == {}

    store = simtune.read(root)
    assert store.count()["decisions"] == 2
    assert store.episode(episode_id).total_reward == 2.0
    assert [e.episode_id for e in store.episodes()] == [episode_id]
    assert store.sql("SELECT sum(reward) AS r FROM decisions").to_pylist() == [{"r": 2.0}]
    assert str(store.root) == f"s3://{BUCKET}/{s3.prefix}"


def server_has(s3):
    return sorted(below(s3, "data/v1"))


def test_another_host_reads_scores_and_follows(s3, tmp_path):
    root = url(s3)
    episode_id = capture(root)
    compact(root)
    config.replace(local=str(tmp_path / "another host"))
    score = Score(
        decision_id=None, episode_id=episode_id, scorer="judge", scorer_version="1", score=0.5
    )
    for _ in range(2):
        assert write_scores(simtune.read(root).root, [score]) == 1
    assert len(below(s3, "scores/v1/judge")) == 2
    scores = simtune.read(root).scores()
    assert scores.select(["score", "seq"]).to_pylist() == [{"score": 0.5, "seq": 1}]
    assert [e.episode_id for e in tail(root).episodes()] == [episode_id]


def test_a_cursor_is_the_number_of_the_last_file(s3):
    root = url(s3)
    following = tail(root)
    seen = []
    for number in range(3):
        capture(root)
        # What is still in the log of a host is not seen: a cursor holds on every host.
        assert list(following) == []
        following._look_at = 0.0
        compact(root)
        seen += [set(batch.rows["episode_id"].to_pylist()) for batch in following]
        following._look_at = 0.0
        assert list(following.cursor.parts.values()) == [number]
        assert following.cursor.writers == {}
    assert len(set.union(*seen)) == 3
    assert list(tail(root, following.cursor)) == []
    assert list(simtune.read(root).tail(following.cursor)) == []


def compacting(root):
    script = "import sys; from simtune.store import compact; compact(sys.argv[1])"
    return subprocess.Popen([sys.executable, "-c", script, root], stderr=subprocess.DEVNULL)


POINTS = {
    "begin": ("POST", "_staging", "uploads"),
    "first part": ("PUT", "_staging", "partNumber=1"),
    "second part": ("PUT", "_staging", "partNumber=2"),
    "completion": ("POST", "_staging", "uploadId"),
    "copy": ("PUT", "data/v1", ""),
    "after the copy": ("DELETE", "_staging", ""),
}


SLOW = ("begin", "first part")


@pytest.mark.parametrize(
    "point",
    [pytest.param(p, marks=[pytest.mark.slow] if p in SLOW else []) for p in POINTS],
)
def test_killed_at_any_request_there_is_a_whole_file_or_none(s3, point):
    root = url(s3, request_timeout=30)
    # Parts are of 10 MB: more than that, which zstd cannot make smaller, where there are to be two.
    size = 900_000 if point == "second part" else 9
    texts = [base64.b85encode(os.urandom(size)).decode() for _ in range(16)]
    with simtune.episode(env="remote", root=root) as episode:
        for text in texts:
            episode.decision("?", text)
    seal(root)
    before = logged(root)
    method, folder, query = POINTS[point]
    reached, killed = threading.Event(), threading.Event()

    def hold(environ):
        if (
            environ["REQUEST_METHOD"] == method
            and f"{s3.prefix}/{folder}" in environ["PATH_INFO"]
            and query in environ.get("QUERY_STRING", "")
        ):
            reached.set()
            killed.wait(20)
            return "503 Killed"
        return None

    s3.before = hold
    process = compacting(root)
    assert reached.wait(20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed.set()
    s3.before = lambda environ: None

    committed = point == "after the copy"
    assert len(server_has(s3)) == committed
    assert logged(root) == before
    compact(root)
    assert logged(root) == []
    assert below(s3, "_staging") == {}
    store = simtune.read(root)
    assert [d.response for d in store.episode(episode.id).decisions] == texts
    assert store.count()["files"] == 1


class Failing:
    """A local file whose disk fails after 11 MB."""

    def __init__(self, path, mode):
        self._file, self._left = open(path, mode), 11  # noqa: SIM115

    def read(self, size):
        self._left -= 1
        if self._left < 0:
            raise OSError(5, "Input/output error")
        return self._file.read(1 << 20)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


def test_an_exception_in_mid_upload_publishes_nothing(s3, monkeypatch):
    root = url(s3)
    staged = open_root(root).local / "staged"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(os.urandom(15 << 20))
    final = open_root(root).tables / "data/v1/whole"
    with monkeypatch.context() as patched:
        patched.setattr(placing, "open", Failing, raising=False)
        with pytest.raises(RemoteError, match="Input/output error"):
            placing.place(staged, final)
    # This is why: the stream completes what it has when it is closed, however it ends.
    assert below(s3, "_staging") == {"data-v1-whole": 11 << 20}
    assert server_has(s3) == []
    placing.discard(final)
    assert below(s3, "_staging") == {}
    placing.place(staged, final)
    assert below(s3, "data/v1") == {"whole": 15 << 20}


def test_a_refusal_is_said_and_loses_nothing(s3):
    root = url(s3)
    capture(root)
    s3.before = lambda environ: "403 Forbidden" if environ["REQUEST_METHOD"] != "GET" else None
    with pytest.raises(RemoteError, match=r"(?s)cannot be reached, or refuses.*ACCESS_DENIED"):
        compact(root)
    assert len(logged(root)) == 1 and server_has(s3) == []
    s3.before = lambda environ: None
    compact(root)
    assert simtune.read(root).count()["decisions"] == 2


def test_a_network_that_is_down_is_said_and_the_next_compaction_goes_on(s3):
    root = url(s3)
    capture(root)
    down = threading.Event()

    def fall(environ):
        if environ["REQUEST_METHOD"] == "PUT" and not down.is_set():
            down.set()
            threading.Thread(target=s3.stop).start()
            time.sleep(0.3)
            return "503 Down"
        return None

    s3.before = fall
    try:
        with pytest.raises(RemoteError, match="safe in the local log"):
            compact(root)
        assert len(logged(root)) == 1
        capture(root)
        assert len(logged(root)) == 2
    finally:
        s3.before = lambda environ: None
        s3.start()
    compact(root)
    assert simtune.read(root).count()["decisions"] == 4


def test_a_missing_bucket_and_a_wrong_endpoint_are_named(s3):
    capture(nowhere := url(s3).replace(BUCKET, "no-such-bucket"))
    for use in (compact, simtune.read, lambda root: list(tail(root))):
        with pytest.raises(RemoteError, match="no-such-bucket"):
            use(nowhere)
    with pytest.raises(RemoteError, match=r"(?s)NETWORK_CONNECTION.*check the URL"):
        simtune.read(url(s3, endpoint_override="127.0.0.1:9"))


def test_a_file_of_another_size_is_no_commit(s3):
    root = url(s3)
    capture(root)
    compact(root)
    (name,) = server_has(s3)
    final = open_root(root).tables / "data/v1" / name
    size = below(s3, "data/v1")[name]
    assert placing.is_placed(final, size)
    with pytest.raises(CorruptError, match=name):
        placing.is_placed(final, size + 1)


def test_the_local_directory_alone_leads_to_the_store(s3):
    root = url(s3)
    capture(root)
    local = open_root(root).local
    assert (local / "remote").read_text() == root
    assert (local / "remote").stat().st_mode & 0o777 == 0o600
    compact(local)
    assert len(server_has(s3)) == 1
    assert simtune.read(local).count()["decisions"] == 2
    with pytest.raises(OptionError, match="local directory"):
        store_root(local)


def test_a_watching_compactor_outlives_a_network_that_is_down(tmp_path, monkeypatch):
    stop = threading.Event()
    passes = []

    def compact_once(root, *, stop):
        passes.append(root)
        if len(passes) == 1:
            raise RemoteError("the network is down")
        stop.set()
        return watching.CompactionReport()

    monkeypatch.setattr(watching, "compact", compact_once)
    with pytest.warns(UserWarning, match="the network is down"):
        watch(tmp_path, interval=0.01, stop=stop)
    assert len(passes) == 2
