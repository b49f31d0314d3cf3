"""Real processes: writers, a compactor and consumers run at once, and all but some are killed."""

import json
import os
import sqlite3
import subprocess
import sys

import simtune
from simtune.store import compact
from simtune.store.tailing import tail

WRITER = """
import sys, time, simtune
simtune.configure(root=sys.argv[1])
for number in range(int(sys.argv[2])):
    with simtune.episode(env="killed") as episode:
        for step in range(4):
            episode.decision("?" * 200, f"{number}.{step}", reward=1.0)
            time.sleep(0.004)
"""

# One process imports everything once; what is killed are its children.
NURSERY = """
import json, os, pathlib, random, signal, sqlite3, sys, time
from simtune.store import compact
from simtune.store.cursor import Cursor
from simtune.store.tailing import tail
root, work, kills = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])

def rows():
    '''Output and cursor are one transaction.'''
    output = sqlite3.connect(work / "rows.db", isolation_level=None)
    (text,) = output.execute("SELECT json FROM cursor").fetchone()
    for batch in tail(root, Cursor.from_json(text), follow=True):
        keys = batch.rows.select(["writer_id", "seq"]).to_pydict()
        output.execute("BEGIN")
        output.executemany("INSERT INTO rows VALUES (?, ?)", zip(*keys.values()))
        output.execute("UPDATE cursor SET json = ?", (batch.cursor.to_json(),))
        output.execute("COMMIT")

def episodes():
    '''Output and cursor are one file, replaced by one rename.'''
    path = work / "episodes.json"
    state = json.loads(path.read_text())
    following = tail(root, Cursor.from_json(json.dumps(state["cursor"])), follow=True)
    for episode in following.episodes():
        state["done"].append([episode.episode_id, len(episode), episode.total_reward])
        state["cursor"] = json.loads(following.cursor.to_json())
        (work / "staged").write_text(json.dumps(state))
        os.replace(work / "staged", path)

def compactor():
    while True:
        compact(root)
        time.sleep(0.02)

def start(job):
    child = os.fork()
    if not child:
        try:
            job()
        except BaseException as error:
            print(job.__name__, repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    return child

def kill(child):
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

def marks():
    return [(work / name).stat().st_mtime_ns for name in ("rows.db", "episodes.json")]

def wait_for_output(before):
    while any(now == then for now, then in zip(marks(), before)):
        time.sleep(0.005)

compacting = start(compactor)
for number in range(kills):
    before = marks()
    consumers = [start(rows), start(episodes)]
    if number % 2:
        wait_for_output(before)
    time.sleep(random.uniform(0, 0.2))
    for consumer in consumers:
        kill(consumer)
    if number % 3 == 0:
        kill(compacting)
        compacting = start(compactor)
kill(compacting)
"""
KILLS = 20


def test_every_row_and_every_episode_once_over_kills(tmp_path):
    root, work = tmp_path / "store", tmp_path / "work"
    work.mkdir()
    output = sqlite3.connect(work / "rows.db", isolation_level=None)
    output.executescript(
        "CREATE TABLE rows (writer TEXT, seq INTEGER); CREATE TABLE cursor (json TEXT);"
        "INSERT INTO cursor VALUES ('{}')"
    )
    (work / "episodes.json").write_text(json.dumps({"done": [], "cursor": {}}))

    small = {**os.environ, "SIMTUNE_SEGMENT_BYTES": "20000", "SIMTUNE_COMPACTOR": "none"}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, root, episodes], env=small)
        for episodes in ("100000", "250", "250")
    ]
    nursery = [sys.executable, "-c", NURSERY, root, work, str(KILLS)]
    killing = subprocess.run(nursery, capture_output=True, text=True, check=False)
    writers[0].kill()
    codes = [writer.wait() for writer in writers]
    assert (killing.returncode, killing.stderr) == (0, "")
    assert codes == [-9, 0, 0]

    taken = output.execute("SELECT * FROM rows").fetchall()
    assert len(taken) > KILLS
    for batch in tail(root, json_cursor(output)):
        taken += zip(*batch.rows.select(["writer_id", "seq"]).to_pydict().values(), strict=True)
    state = json.loads((work / "episodes.json").read_text())
    done = [tuple(item) for item in state["done"]]
    assert len(done) >= KILLS // 2
    done += [
        (e.episode_id, len(e), e.total_reward)
        for e in tail(root, simtune.store.Cursor.from_json(json.dumps(state["cursor"]))).episodes()
    ]

    compact(root)
    store = simtune.read(root)
    stored = store.sql("SELECT writer_id, seq FROM rows ORDER BY ALL").to_pydict()
    assert sorted(taken) == list(zip(*stored.values(), strict=True))
    ended = [(e.episode_id, len(e), e.total_reward) for e in store.episodes(ended=True)]
    assert sorted(done) == sorted(ended)
    assert {decisions for _, decisions, _ in done} == {4}


def json_cursor(output):
    return simtune.store.Cursor.from_json(output.execute("SELECT json FROM cursor").fetchone()[0])
