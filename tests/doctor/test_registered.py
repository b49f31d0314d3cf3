"""A registry whose files went missing or changed, and MLflow addresses that lead nowhere."""

import fcntl
import json
import os
import socket
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from simtune.policy.adapter_hash import tensors_sha256
from simtune.registry import Registry


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    return tmp_path / "base"


@pytest.fixture
def record(tmp_path, base):
    """A registry with one adapter of real weights, the champion."""
    registry = Registry(tmp_path / "models")
    tensors = {"lora_A": torch.ones(2, 3), "lora_B": torch.zeros(3, 2)}
    with registry.staging() as staged:
        save_file(tensors, staged / "adapter_model.safetensors")
        made = registry.register(
            staged, method="sft", base_model=str(base), weights_sha256=tensors_sha256(tensors)
        )
    index = tmp_path / "models" / "registry.json"
    index.write_text(index.read_text().replace('"candidate"', '"champion"'))
    return made


def test_a_sound_registry_is_all_right(found, record):
    codes = found("registry", models_dir="models")
    assert {code: finding.seen for code, finding in codes.items()} == {
        "registry": f"1 models, champion: {record.id}"
    }


def test_an_empty_registry_is_a_note(found):
    assert found("registry")["no-models"].level == "note"


def test_a_registry_that_is_no_json_is_an_error(found, record):
    index = Path("models/registry.json")
    index.write_text(index.read_text()[:-20])
    assert found("registry")["broken-registry"].level == "error"


def test_a_model_whose_directory_is_gone_is_an_error(found, record):
    Path("models", record.id).rename("elsewhere")
    wrong = found("registry")["missing-model"]
    assert wrong.seen == f"{record.id}: {Path('models', record.id)} is gone"


def test_weights_that_were_changed_or_cut_are_errors(found, record):
    path = Path("models", record.id, "adapter_model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert f"sha256 {record.weights_sha256[:12]}" in found("registry")["changed-weights"].seen
    path.write_bytes(content[:-3])
    assert "cannot be read" in found("registry")["changed-weights"].seen


def test_without_a_champion_there_is_a_note(found, record):
    index = Path("models/registry.json")
    index.write_text(index.read_text().replace('"champion"', '"candidate"'))
    codes = found("registry")
    assert codes["no-champion"].level == "note"
    assert codes["registry"].level == "ok"


def test_a_base_model_that_is_gone_is_a_warning(found, record, base):
    base.rename(base.with_name("moved"))
    assert found("registry")["base-model-gone"].seen == (
        f"1 of 1 (100 %) models sit on {base}, where no base model is any more"
    )


def test_what_an_unfinished_registration_left_is_a_note(found, record):
    left = Path("models/.staging-abc")
    left.mkdir()
    assert "unregistered-files" not in found("registry")
    os.utime(left, (time.time() - 7200,) * 2)
    assert "such as .staging-abc" in found("registry")["unregistered-files"].seen


def test_a_lock_that_is_held_names_its_holder(found, record):
    with open("models/.registry.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wrong = found("registry")["registry-locked"]
    assert f" by process {os.getpid()}: " in wrong.seen
    assert "registry-locked" not in found("registry")


def test_the_lock_file_itself_is_no_lock(found, record):
    assert Path("models/.registry.lock").exists()
    assert "registry-locked" not in found("registry")


def runs(path):
    path.parent.mkdir(exist_ok=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE runs (id TEXT)")
        database.execute("INSERT INTO runs VALUES ('a')")
    database.close()


@pytest.mark.parametrize("uri", ["mlruns", "sqlite:///{cwd}/mlruns/mlflow.db"])
def test_runs_in_a_directory_are_counted(found, tmp_path, uri):
    runs(tmp_path / "mlruns" / "mlflow.db")
    codes = found("tracking", tracking_uri=uri.format(cwd=tmp_path))
    assert codes["tracking"].seen.startswith("1 runs in ")


def test_before_the_first_training_there_are_no_runs_and_none_are_made(found, tmp_path):
    assert found("tracking")["no-runs"].level == "note"
    assert not (tmp_path / "mlruns").exists()


def test_a_file_in_the_way_and_a_broken_database_are_errors(found, tmp_path):
    (tmp_path / "mlruns").write_text("")
    assert "cannot be written" in found("tracking")["tracking-unreachable"].seen
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mlflow.db").write_text("no database at all, but text")
    wrong = found("tracking", tracking_uri="other")["tracking-unreachable"]
    assert "file is not a database" in wrong.seen


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_not_there_is_an_error_without_its_password(found, scheme):
    uri = f"{scheme}://me:secret@127.0.0.1:{free_port()}/runs"
    wrong = found("tracking", tracking_uri=uri)["tracking-unreachable"]
    assert "Connection refused" in wrong.seen
    assert "secret" not in wrong.seen


@pytest.mark.parametrize(("status", "code"), [(200, "tracking"), (503, "tracking-unreachable")])
def test_a_server_is_asked_how_it_is(found, status, code):
    asked = []

    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *given):
            pass

    server = HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        codes = found("tracking", tracking_uri=f"http://127.0.0.1:{server.server_port}/")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert list(codes) == [code]
    assert str(status) in codes[code].seen
    assert asked == ["/health"]


def test_the_registry_is_not_changed_by_looking(found, record):
    before = json.loads(Path("models/registry.json").read_text())
    found("registry")
    assert json.loads(Path("models/registry.json").read_text()) == before
