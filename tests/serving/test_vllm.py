"""`--engine vllm` runs the installed vLLM; here one is pretended."""

import json
import stat
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from simtune.cli.main import main
from simtune.errors import OptionError
from simtune.registry import Registry
from simtune.serving import vllm
from simtune.serving.options import ServeOptions


def test_its_absence_is_an_error_with_the_pip_line(base_dir, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["serve", "--llm-path", str(base_dir), "--engine", "vllm"]) == 2
    assert "pip install vllm" in capsys.readouterr().err


def test_it_does_not_capture(base_dir, monkeypatch):
    monkeypatch.setattr(vllm.shutil, "which", lambda name: "/usr/bin/vllm")
    with pytest.raises(OptionError, match="does not capture by itself"):
        vllm.serve_vllm(ServeOptions(llm_path=str(base_dir), capture="store"))


def test_it_is_started_with_the_adapters_under_the_registrys_names(
    base_dir, tmp_path, register, monkeypatch
):
    record = register(tmp_path / "models", 1)
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump([sys.argv[1:], os.environ['VLLM_ALLOW_RUNTIME_LORA_UPDATING']], "
        f"open({str(tmp_path / 'said')!r}, 'w'))\nsys.exit(7)\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    models = str(tmp_path / "models")
    code = main(["serve", "--llm-path", str(base_dir), "--engine", "vllm", "--models-dir", models])
    assert code == 7
    arguments, updating = json.loads((tmp_path / "said").read_text())
    path = tmp_path / "models" / record.path
    assert updating == "True"
    assert arguments[:2] == ["serve", str(base_dir)]
    assert arguments[arguments.index("--served-model-name") + 1] == "base-tiny"
    assert arguments[arguments.index("--max-lora-rank") + 1] == "8"
    at = arguments.index("--lora-modules")
    assert set(arguments[at + 1 :]) == {f"{record.id}={path}", f"latest={path}"}


def test_a_new_adapter_is_loaded_into_the_running_one(base_dir, tmp_path, register):
    first = register(tmp_path, 1)
    heard = []

    class Pretended(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((self.path, json.loads(body), self.headers["authorization"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Pretended) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ServeOptions(
            llm_path=str(base_dir),
            models_dir=str(tmp_path),
            port=server.server_port,
            api_key=["k"],
        )
        present = vllm._adapters(options)
        assert set(present) == {first.id, "latest"}
        second = register(tmp_path, 2)
        present = vllm._swap(options, present)
        server.shutdown()
    path = str((tmp_path / second.path).resolve())
    assert heard == [
        ("/v1/load_lora_adapter", {"lora_name": second.id, "lora_path": path}, "Bearer k"),
        ("/v1/unload_lora_adapter", {"lora_name": "latest"}, "Bearer k"),
        ("/v1/load_lora_adapter", {"lora_name": "latest", "lora_path": path}, "Bearer k"),
    ]
    assert set(present) == {first.id, second.id, "latest"}
    assert Registry(tmp_path).list()[-1].id == second.id
