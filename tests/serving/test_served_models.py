"""Names follow the registry; weights are those that were registered."""

import msgspec
import pytest
import torch

from simtune.errors import OptionError, RegistryError
from simtune.policy.local import load_base
from simtune.registry import Registry
from simtune.registry.files import Index, read_index, write_index
from simtune.registry.promotion import refuse
from simtune.serving.beside import beside
from simtune.serving.models import Models, UnknownModelError


class Lane:
    """What a lane is to `Models`."""

    def __init__(self, model, adapter):
        self.model = model
        self.adapter = adapter
        self.cache_bytes = 5


@pytest.fixture
def models_of(base_dir):
    model, _ = load_base(base_dir)

    def make(models_dir, keep=8):
        return Models(
            base_name="base-tiny",
            base_path=str(base_dir),
            base=model,
            lane_of=Lane,
            models_dir=str(models_dir),
            keep=keep,
        )

    return make


def promote(models_dir, model_id):
    index = read_index(models_dir)
    for one in index.models:
        if one.id == model_id:
            one.status = "champion"
        elif one.status == "champion":
            one.status = "retired"
    write_index(models_dir, index)


def test_every_name_is_listed_with_its_hash(models_of, models_dir):
    models = models_of(models_dir)
    models.follow()
    first, second = Registry(models_dir).list()
    assert models.names() == {
        "base-tiny": None,
        "champion": None,
        "latest": second.weights_sha256,
        first.id: first.weights_sha256,
        second.id: second.weights_sha256,
    }
    assert models.ready("base-tiny").adapter is None
    assert models.ready("latest").id == second.id
    assert models.ready(first.id) is None  # known, and loaded when it is asked for
    assert models.load(first.id).adapter == first.weights_sha256


def test_aliases_follow_the_registry(models_of, tmp_path, register):
    models = models_of(tmp_path)
    models.follow()
    assert models.names() == {"base-tiny": None, "champion": None, "latest": None}
    assert models.ready("champion") is models.ready("latest") is models.base
    first = register(tmp_path, 1)
    assert models.changed()
    models.follow()
    assert not models.changed()
    assert models.ready("latest").adapter == first.weights_sha256
    second = register(tmp_path, 2)
    promote(tmp_path, first.id)
    models.follow()
    assert models.ready("latest").id == second.id
    assert models.ready("champion").id == first.id
    promote(tmp_path, second.id)
    models.follow()
    assert models.ready("champion").id == second.id
    assert models.swaps == 4  # latest, latest, champion, champion


def test_retired_adapters_are_not_the_latest(models_of, tmp_path, register):
    models = models_of(tmp_path)
    first, second = register(tmp_path, 1), register(tmp_path, 2)
    promote(tmp_path, second.id)
    models.follow()
    assert models.ready("latest").id == models.ready("champion").id == second.id
    promote(tmp_path, "nobody")
    models.follow()
    assert models.ready("latest").id == first.id
    assert models.ready("champion") is models.base


def test_what_the_gate_found_worse_is_not_the_latest(models_of, tmp_path, register):
    models = models_of(tmp_path)
    first, second, third = (register(tmp_path, seed) for seed in (1, 2, 3))
    not_better = {"difference": {"estimate": -0.1, "low": -0.4, "high": 0.2}}
    worse = {"difference": {"estimate": -0.6, "low": -0.9, "high": -0.3}}
    registry = Registry(tmp_path)
    refuse(registry, second.id, reason="not better", evidence=not_better)
    refuse(registry, third.id, reason="worse", evidence=worse)
    models.follow()
    assert models.ready("latest").id == second.id
    refuse(registry, second.id, reason="worse after all", evidence=worse)
    models.follow()
    assert models.ready("latest").id == first.id


def test_a_name_that_nothing_answers_to(models_of, tmp_path):
    with pytest.raises(
        UnknownModelError, match="no model 'nobody'; there are: base-tiny, champion, latest"
    ):
        models_of(tmp_path).ready("nobody")


def test_a_registry_that_cannot_be_read_changes_nothing(models_of, tmp_path, register, capsys):
    models = models_of(tmp_path)
    record = register(tmp_path, 1)
    models.follow()
    (tmp_path / "registry.json").write_text("{")
    models.follow()
    assert models.ready("latest").id == record.id
    assert "cannot be followed" in capsys.readouterr().err


def test_weights_that_were_changed_are_not_served(models_of, tmp_path, register, capsys):
    good, bad = register(tmp_path, 1), register(tmp_path, 2)
    weights = "adapter_model.safetensors"
    (tmp_path / bad.path / weights).write_bytes((tmp_path / good.path / weights).read_bytes())
    models = models_of(tmp_path)
    models.follow()
    assert "latest stays as it was" in capsys.readouterr().err
    assert models.names()["latest"] is None
    with pytest.raises(RegistryError, match="not those that were registered"):
        models.load(bad.id)
    assert models.load(good.id).adapter == good.weights_sha256


def test_equal_weights_share_a_cache(models_of, tmp_path, register):
    first, second = register(tmp_path, 1), register(tmp_path, 1)
    models = models_of(tmp_path)
    models.follow()
    assert models.load(first.id).lane is models.load(second.id).lane


def test_adapters_least_lately_asked_are_dropped(models_of, tmp_path, register):
    records = [register(tmp_path, seed) for seed in range(4)]
    models = models_of(tmp_path, keep=2)
    models.follow()  # loads the latest, which an alias means
    for record in records[:3]:
        models.load(record.id)
    assert models.loaded == [records[3].id, records[2].id]
    assert models.load(records[0].id).adapter == records[0].weights_sha256


def test_adapters_of_other_bases_are_not_served(models_of, tmp_path, register):
    record = register(tmp_path, 1)
    other = msgspec.structs.replace(record, base_model="/elsewhere/other-base")
    write_index(tmp_path, Index(models=[other]))
    models = models_of(tmp_path)
    models.follow()
    assert models.names() == {"base-tiny": None, "champion": None, "latest": None}
    assert models.ready("champion") is models.ready("latest") is models.base


def test_a_directory_is_served_by_its_name(models_of, tmp_path, models_dir):
    record = Registry(models_dir).list()[0]
    models = models_of(tmp_path)
    models.hold(str(models_dir / record.path))
    assert models.names()[record.id] == record.weights_sha256


def test_adapters_stand_beside_each_other_and_leave_the_base_as_it_is(base_dir, models_dir):
    base, _ = load_base(base_dir)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = base(ids).logits
        records = Registry(models_dir).list()
        both = [beside(base, models_dir / record.path) for record in records]
        answers = [model(ids).logits for model in both]
        assert torch.equal(base(ids).logits, before)
    assert not torch.allclose(answers[0], answers[1])
    mine = {id(one) for one in base.parameters()}
    for model in both:
        frozen = [one for name, one in model.named_parameters() if "lora_" not in name]
        assert {id(one) for one in frozen} == mine


def test_a_directory_without_an_adapter_is_refused(base_dir, tmp_path):
    base, _ = load_base(base_dir)
    with pytest.raises(OptionError, match="no adapter in"):
        beside(base, tmp_path)
