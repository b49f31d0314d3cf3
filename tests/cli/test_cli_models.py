"""`simtune models`: listing, showing and making base models, as a person and as a script."""

from __future__ import annotations

import json

import pytest

from simtune.cli.main import main
from simtune.policy import bases
from simtune.registry import DataSeen, Registry


@pytest.fixture
def models(tmp_path):
    """A registry of two adapters."""
    registry = Registry(tmp_path / "models")
    for method in ("sft", "ppo"):
        with registry.staging() as staged:
            (staged / "adapter_model.safetensors").write_bytes(b"123")
            registry.register(
                staged,
                method=method,
                base_model="/base/tiny",
                weights_sha256=method,
                metrics={"loss": 0.123456789},
                parameters={"reward": ["success=1"]},
                data=DataSeen(source="file", root="d.json", digest="abc", decisions=7),
            )
    return registry


def test_ls_is_a_table_with_one_model_a_line(models, capsys):
    assert main(["models", "ls", "--models-dir", str(models.models_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "id",
        "name",
        "version",
        "method",
        "status",
        "decisions",
        "created",
    ]
    assert [line.split()[:6] for line in lines[2:]] == [
        [r.id, r.name, "1", r.method, "candidate", "7"] for r in models.list()
    ]


def test_ls_as_json_is_the_records(models, capsys):
    assert main(["models", "ls", "--json", "--models-dir", str(models.models_dir)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [record["id"] for record in printed] == [record.id for record in models.list()]


def test_an_empty_registry_lists_nothing(tmp_path, capsys):
    assert main(["models", "ls", "--json", "--models-dir", str(tmp_path / "none")]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not (tmp_path / "none").exists()


def test_show_prints_the_record_and_where_its_files_are(models, capsys):
    record = models.get("latest")
    assert main(["models", "show", "ppo", "--models-dir", str(models.models_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"id: {record.id}" in lines
    assert f"path: {models.path(record)}" in lines
    assert "  loss: 0.1235" in lines
    assert "  digest: abc" in lines
    assert (
        main(["models", "show", record.id, "--json", "--models_dir", str(models.models_dir)]) == 0
    )
    assert json.loads(capsys.readouterr().out)["metrics"] == {"loss": 0.123456789}


def test_an_unknown_model_ends_with_code_2_and_the_nearest(models, capsys):
    assert main(["models", "show", "sftt", "--models-dir", str(models.models_dir)]) == 2
    error = capsys.readouterr().err
    assert "no model 'sftt'" in error
    assert models.list()[0].id in error
    assert "Traceback" not in error


def test_pull_base_passes_the_name_on_and_prints_the_directory(tmp_path, monkeypatch, capsys):
    asked = []

    def made(name, output, *, env, seed, on_step=None):
        on_step(1, 2, 0.5)
        asked.append((name, output, env, seed))
        return tmp_path / "base"

    monkeypatch.setattr(bases, "pull_base", made)
    argv = ["models", "pull-base", "tiny", "--output", "somewhere", "--env", "m:f", "--seed", "3"]
    assert main(argv) == 0
    assert asked == [("tiny", "somewhere", "m:f", 3)]
    assert capsys.readouterr().out == f"{tmp_path / 'base'}\n"


def test_only_the_tiny_base_is_made_for_an_environment(capsys):
    argv = ["models", "pull-base", "smollm2-135m", "--output", "somewhere", "--env", "m:f"]
    assert main(argv) == 2
    assert "--env is for tiny" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["models"], ["models", "pull-base", "tiny"], ["models", "rm"]])
def test_incomplete_commands_end_with_code_2(argv, capsys):
    assert main(argv) == 2
    assert "simtune: error:" in capsys.readouterr().err
