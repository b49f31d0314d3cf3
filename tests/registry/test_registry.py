"""The registry: what a record holds, how one is found, and that nothing is ever lost."""

from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path

import msgspec
import pytest

from simtune import hookimpl, plugins
from simtune.errors import RegistryError
from simtune.registry import DataSeen, Registry, RewardUsed

DATA = DataSeen(
    source="store",
    root="/data/run",
    digest="d" * 64,
    episodes=3,
    decisions=12,
    rewards=[RewardUsed(name="success", version="2", weight=0.5)],
)


def add(registry: Registry, method: str = "sft", weights: str = "w", **fields):
    with registry.staging() as staged:
        (staged / "adapter_model.safetensors").write_bytes(b"12345")
        return registry.register(
            staged, method=method, base_model="/base/tiny", weights_sha256=weights, **fields
        )


def test_a_record_says_where_a_model_came_from(tmp_path):
    registry = Registry(tmp_path / "models")
    made = add(
        registry,
        parameters={"epochs": 3.0, "reward": ["success=0.5"]},
        metrics={"train_loss": 0.5},
        mlflow_run_id="run",
        parent="sft-before",
        data=DATA,
        tags={"map": "4x4"},
    )
    assert registry.list() == [made]
    assert re.fullmatch(r"sft-\d{8}-\d{6}-[0-9a-f]{8}", made.id)
    assert (made.name, made.version, made.type, made.status) == (
        "tiny-sft",
        1,
        "fine_tuned",
        "candidate",
    )
    assert made.size_bytes == 5
    assert made.created_at.endswith("+00:00")
    assert registry.path(made) == tmp_path / "models" / made.id
    on_disk = json.loads((tmp_path / "models" / "registry.json").read_text())
    assert on_disk["models"][0]["data"]["rewards"] == [
        {"name": "success", "version": "2", "weight": 0.5}
    ]
    left = {p.name for p in (tmp_path / "models").iterdir()}
    assert left == {".registry.lock", made.id, "registry.json"}


def test_versions_count_within_a_name_and_ids_never_collide(tmp_path):
    registry = Registry(tmp_path)
    made = [add(registry), add(registry), add(registry, method="ppo"), add(registry, name="x")]
    assert [r.version for r in made] == [1, 2, 1, 1]
    assert len({r.id for r in made}) == 4


def test_models_are_found_by_latest_id_prefix_and_champion(tmp_path):
    registry = Registry(tmp_path)
    first, second = add(registry), add(registry, method="ppo")
    assert registry.get("latest") == second
    assert registry.get(first.id) == first
    assert registry.get("sft") == first
    with pytest.raises(RegistryError, match="is champion"):
        registry.get("champion")
    path = tmp_path / "registry.json"
    path.write_text(path.read_text().replace('"candidate"', '"champion"', 1))
    assert registry.get("champion").id == first.id


def test_a_wrong_name_shows_the_nearest_and_an_ambiguous_one_the_candidates(tmp_path):
    registry = Registry(tmp_path)
    with pytest.raises(RegistryError, match="is empty"):
        registry.get("latest")
    first, second = add(registry), add(registry)
    with pytest.raises(RegistryError, match=first.id):
        registry.get(first.id[:-1] + "x" if first.id[-1] != "x" else first.id + "y")
    with pytest.raises(RegistryError, match="begins the id of 2 models"):
        registry.get("sft-")
    assert second.id != first.id


def test_a_failure_leaves_nothing_half_written(tmp_path):
    registry = Registry(tmp_path)
    with pytest.raises(ValueError), registry.staging() as staged:
        (staged / "adapter_model.safetensors").write_bytes(b"1")
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    assert registry.list() == []


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1, "models": [{"id": "x"}]}', "\xff"])
def test_a_broken_registry_is_an_error_and_is_never_overwritten(tmp_path, content):
    path = tmp_path / "registry.json"
    path.write_bytes(content.encode("latin-1"))
    registry = Registry(tmp_path)
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.list()
    with pytest.raises(RegistryError, match="cannot be read"):
        add(registry)
    assert path.read_bytes() == content.encode("latin-1")
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_a_registry_of_another_format_is_refused(tmp_path):
    (tmp_path / "registry.json").write_text('{"format": 9, "models": []}')
    with pytest.raises(RegistryError, match="another format"):
        Registry(tmp_path).list()


def test_a_model_whose_files_are_gone_is_named(tmp_path):
    registry = Registry(tmp_path)
    made = add(registry)
    (registry.path(made) / "adapter_model.safetensors").unlink()
    registry.path(made).rmdir()
    with pytest.raises(RegistryError, match=made.id):
        registry.path(made)


def test_models_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "models").write_text("")
    with pytest.raises(RegistryError, match="cannot keep models"):
        add(Registry(tmp_path / "models"))


def _register_many(models_dir: Path, barrier, count: int) -> None:
    registry = Registry(models_dir)
    barrier.wait()
    for _ in range(count):
        add(registry)


def test_processes_that_register_at_the_same_time_all_land(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=_register_many, args=(tmp_path, barrier, 10)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    records = Registry(tmp_path).list()
    assert len({record.id for record in records}) == 20
    assert sorted(record.version for record in records) == list(range(1, 21))
    assert all(Registry(tmp_path).path(record).is_dir() for record in records)


def test_plugins_hear_of_a_registration(tmp_path):
    heard = []

    class Listener:
        @hookimpl
        def simtune_model_registered(self, record):
            heard.append(record)

    listener = Listener()
    plugins.manager().register(listener)
    try:
        made = add(Registry(tmp_path), data=DATA)
    finally:
        plugins.manager().unregister(listener)
    assert heard == [msgspec.to_builtins(made)]
