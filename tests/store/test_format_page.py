"""docs/format.md says what the code does."""

import re
from pathlib import Path

import duckdb
import msgspec
import pytest

import simtune
from simtune.recording import open_episode
from simtune.records import Row
from simtune.store.schema import ROWS

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


def test_the_table_names_every_column_in_order():
    table = PAGE.split("## Rows")[1].split("\n\n*")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")][1:]
    named = [name for cell in cells for name in re.findall(r"\w+", cell)]
    assert sorted(named) == sorted(ROWS.names)


def test_the_order_of_a_payload_is_that_of_row():
    listed = PAGE.split("only ever added at its end:")[1].split("They are the columns")[0]
    fields = [name.strip() for name in listed.strip().rstrip(".").split(",")]
    assert fields == [field.name for field in msgspec.structs.fields(Row)]


def test_the_sql_folds_late_rewards(tmp_path, monkeypatch):
    log = open_episode(env="e", root=str(tmp_path))
    first = log.decision([{"role": "user", "content": "?"}], "a", reward=1.0)
    log.decision([{"role": "user", "content": "?"}], "b")
    log.reward(0.5, decision=first)
    log.finish(terminated=True)
    store = simtune.read(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE, re.S)
    rows = duckdb.sql(query).fetchall()
    assert sorted((step, reward) for _, step, reward in rows) == [(0, 1.5), (1, 0.0)]
    folded = store.decisions().sort_by("step")["reward"].to_pylist()
    assert folded == [pytest.approx(1.5), None]
