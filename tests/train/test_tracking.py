"""A run in MLflow: what is in it, how it ends, and that nothing is left behind."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from simtune.errors import OptionError
from simtune.registry.tracking_uri import resolve_tracking_uri
from simtune.train.tracking import Tracker


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """One database for all tests here: creating its tables takes a second."""
    return tmp_path_factory.mktemp("tracking") / "mlruns"


def test_a_plain_path_means_sqlite_inside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri, artifacts = resolve_tracking_uri("./mlruns")
    assert uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert artifacts == f"{tmp_path}/mlruns/artifacts"


@pytest.mark.parametrize(
    "uri", ["http://host:5000", "sqlite:///x/mlflow.db", "postgresql://u@h/db", "databricks:"]
)
def test_other_uris_go_through_as_they_are(uri):
    assert resolve_tracking_uri(uri) == (uri, None)


def test_a_file_in_the_way_is_an_option_error(tmp_path):
    (tmp_path / "mlruns").write_text("not a directory")
    with pytest.raises(OptionError, match="cannot keep MLflow runs"):
        resolve_tracking_uri(str(tmp_path / "mlruns"))


def test_parameters_curves_and_artifacts_are_in_the_run(runs, tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with Tracker("exp", str(runs), run_name="first", tags={"method": "sft"}) as tracker:
        tracker.params({f"p{i}": i for i in range(150)} | {"reward": ["a=1"], "long": "x" * 9000})
        for step in range(3):
            tracker.metrics({"loss": 1.0 / (step + 1)}, step)
        tracker.artifact(tmp_path / "note.txt")
        tracker.artifact(tmp_path, "folder")
    run = tracker.client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.tags["method"] == "sft"
    assert run.data.params["p149"] == "149"
    assert run.data.params["reward"] == '["a=1"]'
    history = tracker.client.get_metric_history(tracker.run_id, "loss")
    assert [(m.step, round(m.value, 3)) for m in history] == [(0, 1.0), (1, 0.5), (2, 0.333)]
    names = {a.path for a in tracker.client.list_artifacts(tracker.run_id)}
    assert names == {"note.txt", "folder"}
    assert list((runs / "artifacts").rglob("note.txt"))


def test_an_exception_marks_the_run_failed_and_keeps_its_curve(runs):
    with pytest.raises(ValueError, match="boom"), Tracker("exp", str(runs)) as tracker:
        tracker.metrics({"loss": math.nan}, 7)
        raise ValueError("boom")
    run = tracker.client.get_run(tracker.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == "boom"
    assert tracker.client.get_metric_history(tracker.run_id, "loss")[0].step == 7


def test_versions_of_a_model_count_up_and_the_alias_follows(runs):
    versions = []
    for model_id in ("sft-1", "sft-2"):
        with Tracker("exp", str(runs)) as tracker:
            versions.append(tracker.model_version("a/b c", model_id))
    assert versions == ["1", "2"]
    latest = tracker.client.get_model_version_by_alias("a-b-c", "candidate")
    assert latest.tags["simtune_model_id"] == "sft-2"
    assert latest.run_id == tracker.run_id


def test_nothing_is_printed_and_no_global_is_left(tmp_path):
    code = (
        "from simtune.train.tracking import Tracker\n"
        f"with Tracker('e', {str(tmp_path / 'runs')!r}) as t: t.metrics({{'a': 1}}, 0)\n"
        "import mlflow, os, logging\n"
        "assert mlflow.active_run() is None\n"
        "assert 'MLFLOW_TRACKING_URI' not in os.environ\n"
        f"assert {str(tmp_path / 'runs')!r} not in mlflow.get_tracking_uri()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]
