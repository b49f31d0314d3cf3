"""MLflow follows the registry, and a promotion does not depend on MLflow."""

from __future__ import annotations

import socket

import pytest
from mlflow import MlflowClient

from simtune.registry import Registry
from simtune.registry.mlflow_mirror import CHANGE_TAG, STATUS_TAG, mirror
from simtune.registry.promotion import promote, roll_back
from simtune.train.tracking import Tracker
from tests.registry.registering import register


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "models")


def trained(registry, tmp_path, value, method="sft"):
    """A record with the run and the model version that training leaves."""
    uri = str(tmp_path / "mlruns")
    with Tracker("e", uri) as tracker:
        record = register(
            registry,
            value,
            method=method,
            mlflow_run_id=tracker.run_id,
            parameters={"tracking_uri": uri},
        )
        tracker.model_version(record.name, record.id)
    return record


def champions(client):
    return {
        model.name: model.aliases["champion"]
        for model in client.search_registered_models()
        if "champion" in model.aliases
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_aliases_and_tags_follow_promotion_and_rollback(registry, tmp_path):
    first = trained(registry, tmp_path, 1.0)
    second = trained(registry, tmp_path, 2.0)
    other = trained(registry, tmp_path, 3.0, method="ppo")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    promote(registry, first.id, reason="first")
    assert mirror(registry) == []
    assert champions(client) == {"tiny-sft": 1}
    promote(registry, second.id)
    # The promotion of `second` was not told; the next one puts everything right.
    promote(registry, other.id)
    assert mirror(registry) == []
    assert champions(client) == {"tiny-ppo": 1}
    roll_back(registry, reason="scores fell")
    assert mirror(registry) == []
    assert champions(client) == {"tiny-sft": 2}
    tags = client.get_run(other.mlflow_run_id).data.tags
    assert tags[STATUS_TAG] == "retired"
    assert '"reason":"scores fell"' in tags[CHANGE_TAG]
    assert client.get_model_version("tiny-sft", "2").tags[STATUS_TAG] == "champion"
    roll_back(registry, "base")
    assert mirror(registry) == []
    assert champions(client) == {}


def test_a_server_that_is_not_there_is_named_and_nothing_is_made(registry, tmp_path):
    record = register(
        registry, 1.0, mlflow_run_id="r", parameters={"tracking_uri": str(tmp_path / "gone")}
    )
    promote(registry, record.id)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
        (told,) = mirror(registry, closed)
    assert told.startswith(f"MLflow at {closed} was not told: ")
    (told,) = mirror(registry)
    assert "no directory" in told
    assert not (tmp_path / "gone").exists()
    (told,) = mirror(registry, f"sqlite:///{tmp_path}/none.db")
    assert "no such database" in told
    assert not (tmp_path / "none.db").exists()


def test_models_without_a_run_leave_mlflow_alone(registry):
    promote(registry, register(registry, 1.0).id)
    assert mirror(registry, "http://127.0.0.1:1") == []
