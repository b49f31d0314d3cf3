"""`simtune models promote | rollback | history | watch`, as a person and as a script."""

import json

import pytest

import simtune
from simtune.cli.main import main
from simtune.registry import Registry
from tests.registry.registering import register


@pytest.fixture
def registry(tmp_path):
    registry = Registry(tmp_path / "models")
    register(registry, 1.0)
    register(registry, 2.0, method="ppo")
    return registry


def models(registry, *arguments):
    return main(["models", *arguments, "--models-dir", str(registry.models_dir)])


def test_promote_rollback_and_history(registry, capsys):
    first, second = (record.id for record in registry.list())
    assert models(registry, "promote", "sft", "--reason", "looks fine") == 0
    assert capsys.readouterr().out == f"champion: base -> {first}\nreason: looks fine\n"
    assert models(registry, "promote", "latest", "--json") == 0
    assert json.loads(capsys.readouterr().out)["before"] == first
    assert models(registry, "rollback", "--reason", "was not") == 0
    assert capsys.readouterr().out == f"champion: {second} -> {first}\nreason: was not\n"
    assert models(registry, "rollback", "--to", "base") == 0
    capsys.readouterr()
    assert models(registry, "history") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:5] for line in lines[2:]] == [
        ["promoted", "hand", first, first],
        ["promoted", "hand", second, second],
        ["rolled_back", "hand", second, first],
        ["rolled_back", "hand", first, "base"],
    ]
    assert models(registry, "history", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["reason"] == "looks fine"


def test_ls_and_show_tell_the_status_and_the_history(registry, capsys):
    models(registry, "promote", "sft", "--reason", "looks fine")
    capsys.readouterr()
    models(registry, "ls")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines[2:]] == ["champion", "candidate"]
    models(registry, "show", "champion")
    shown = capsys.readouterr().out
    assert "status: champion" in shown
    assert "promoted by hand" in shown and shown.rstrip().endswith("looks fine")


def test_what_cannot_be_done_is_said(registry, capsys):
    for arguments, said in [
        (["promote", "unknown"], "no model"),
        (["rollback"], "no champion to roll back"),
        (["rollback", "--to", "unknown"], "no model"),
        (["watch", "--store", "s", "--false-alarms", "2"], "between 0 and 1"),
        (["watch", "--store", "s", "--metric", "sucess"], "did you mean 'success'"),
        (["watch"], "--store"),
    ]:
        assert models(registry, *arguments) == 2
        assert said in capsys.readouterr().err


def test_mlflow_that_is_not_there_is_a_warning(tmp_path, capsys):
    registry = Registry(tmp_path / "models")
    register(registry, 1.0, mlflow_run_id="r", parameters={"tracking_uri": str(tmp_path / "no")})
    assert models(registry, "promote", "latest") == 0
    assert "simtune: warning: MLflow at" in capsys.readouterr().err
    assert registry.get("champion").status == "champion"


def test_watch_once_tells_how_it_stands_and_ends_with_1_after_a_rollback(
    registry, tmp_path, capsys
):
    first, second = registry.list()
    store = str(tmp_path / "store")
    models(registry, "promote", first.id)
    models(registry, "promote", second.id)

    def play(model, won, episodes):
        for _ in range(episodes):
            with simtune.episode(root=store) as log:
                log.decision("go", simtune.Reply("left", adapter=model.weights_sha256))
                log.finish(terminated=True, outcome={"success": won})
        simtune.flush()

    play(first, True, 50)
    play(second, True, 5)
    capsys.readouterr()
    assert models(registry, "watch", "--store", store, "--once", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["champion"], found["episodes"], found["baseline"]) == (second.id, 5, "previous")
    play(second, False, 40)
    assert models(registry, "watch", "--store", store, "--once") == 1
    assert capsys.readouterr().out.startswith(f"champion: {second.id} -> {first.id}\nreason: ")
    assert registry.get("champion").id == first.id
