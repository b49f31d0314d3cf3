"""SFT end to end on a model of 40k parameters: what it learns, keeps, registers and refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from simtune import hookimpl, plugins
from simtune.data.samples import Sample
from simtune.data.selection import episodes_digest, select_episodes
from simtune.data.tokens import encode, tokenise
from simtune.errors import DataError, OptionError, RegistryError, TrainingError
from simtune.policy.adapter_hash import tensors_sha256
from simtune.policy.local import LocalPolicy
from simtune.recording import flush, open_episode, seal
from simtune.registry import Registry
from simtune.reply import Reply
from simtune.store import read
from simtune.train.options import SFTOptions
from simtune.train.sft import train_sft
from simtune.train.tracking import Tracker

WAYS = ("left", "right", "up", "down")
ROWS = [{"prompt": f"way {i % 4}?", "output": WAYS[i % 4], "rating": 5} for i in range(64)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """One directory, so that MLflow's tables are made once."""
    return tmp_path_factory.mktemp("sft")


@pytest.fixture
def options(place, tmp_path, tiny_model_dir):
    """Options of a run in a registry of its own."""

    def make(rows=ROWS, **changes) -> SFTOptions:
        data = tmp_path / "data.json"
        data.write_text(json.dumps(rows))
        given = {
            "llm_path": str(tiny_model_dir),
            "dataset_path": str(data),
            "models_dir": str(tmp_path / "models"),
            "tracking_uri": str(place / "mlruns"),
            "epochs": 1,
            "batch_size": 16,
        }
        return SFTOptions(**(given | changes))

    return make


class Trained(msgspec.Struct):
    record: object
    registry: Registry
    steps: list
    heard: list


class Listener:
    def __init__(self):
        self.heard = []

    @hookimpl
    def simtune_training_start(self, method, options, run_id):
        self.heard.append(("start", method, options["epochs"], run_id))

    @hookimpl
    def simtune_training_metrics(self, method, step, metrics):
        self.heard.append(("metrics", step, metrics.get("loss")))

    @hookimpl
    def simtune_training_end(self, method, model_id, error):
        self.heard.append(("end", model_id, error))


@pytest.fixture
def listener():
    made = Listener()
    plugins.manager().register(made)
    yield made
    plugins.manager().unregister(made)


@pytest.fixture(scope="module")
def trained(place, tiny_model_dir) -> Trained:
    """One full run, looked at by several tests."""
    data = place / "data.json"
    data.write_text(json.dumps([*ROWS, {"prompt": "way 0?", "output": "right"}]))
    listener = Listener()
    plugins.manager().register(listener)
    steps = []
    options = SFTOptions(
        llm_path=str(tiny_model_dir),
        dataset_path=str(data),
        models_dir=str(place / "models"),
        tracking_uri=str(place / "mlruns"),
        epochs=30,
        batch_size=32,
        learning_rate=1e-2,
        description="four ways",
    )
    record = train_sft(options, on_step=lambda *step: steps.append(step))
    plugins.manager().unregister(listener)
    return Trained(record, Registry(options.models_dir), steps, listener.heard)


def test_it_learns_and_reports_every_step(trained):
    assert [step for step, _, _ in trained.steps] == list(range(1, 61))
    assert {total for _, total, _ in trained.steps} == {60}
    losses = [metrics["loss"] for _, _, metrics in trained.steps]
    assert losses[0] > 5.0
    assert losses[-1] < 0.3 * losses[0]


def test_the_record_says_all_that_made_the_adapter(trained, tiny_model_dir, place):
    record = trained.registry.get("latest")
    assert record == trained.record
    assert (record.method, record.type, record.status) == ("sft", "fine_tuned", "candidate")
    assert record.base_model == str(tiny_model_dir)
    assert record.description == "four ways"
    assert record.parameters["learning_rate"] == 1e-2
    assert record.metrics["loss"] == trained.steps[-1][2]["loss"]
    assert record.data.source == "file"
    assert record.data.decisions == 64
    assert record.data.skipped == {"unrated": 1}
    content = (place / "data.json").read_bytes()
    assert record.data.digest == hashlib.sha256(content).hexdigest()


# peft 0.21 reads a name that transformers 5.2x deprecates:
# https://github.com/huggingface/peft/blob/v0.21.0/src/peft/peft_model.py
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_plain_peft_loads_it_and_simtunes_policy_answers_the_same(trained, tiny_model_dir):
    path = trained.registry.path(trained.record)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model = PeftModel.from_pretrained(base, str(path)).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model_dir).chat_template
    policy = LocalPolicy.load(tiny_model_dir, path, greedy=True)
    for i in range(4):
        messages = [{"role": "user", "content": f"way {i}?"}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        answer = out[0, inputs["input_ids"].shape[1] :].tolist()
        assert policy(messages).token_ids == tuple(answer)
        assert tokenizer.decode(answer) == f"{WAYS[i]}<|end|>"


def test_the_adapter_names_its_base_and_its_hash_is_that_of_its_tensors(trained, tiny_model_dir):
    path = trained.registry.path(trained.record)
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model_dir)
    tensors = load_file(path / "adapter_model.safetensors")
    assert trained.record.weights_sha256 == tensors_sha256(tensors)


def test_mlflow_has_parameters_curve_adapter_and_version(trained, place):
    with Tracker("look", str(place / "mlruns")) as tracker:
        client = tracker.client
    run = client.get_run(trained.record.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["model_id"] == trained.record.id
    assert run.data.params["lora_r"] == "16"
    assert run.data.params["trl.weight_decay"] == "0.0"
    curve = client.get_metric_history(run.info.run_id, "loss")
    assert [point.value for point in curve] == [metrics["loss"] for _, _, metrics in trained.steps]
    names = {a.path for a in client.list_artifacts(run.info.run_id, "adapter")}
    assert "adapter/adapter_model.safetensors" in names
    version = client.get_model_version_by_alias(trained.record.name, "candidate")
    assert version.tags["simtune_model_id"]


def test_plugins_hear_start_steps_and_end(trained):
    heard = trained.heard
    assert heard[0] == ("start", "sft", 30.0, trained.record.mlflow_run_id)
    assert heard[1] == ("metrics", 1, trained.steps[0][2]["loss"])
    assert heard[-1] == ("end", trained.record.id, None)


def test_the_loss_is_the_cross_entropy_of_the_answers_tokens(options, tiny_model_dir):
    """At the first step the adapter changes nothing: the loss is the base model's, by hand."""
    rows = [{"prompt": "way?", "output": "left"}, {"prompt": "a longer way?", "output": "go up"}]
    steps = []
    train_sft(options(rows, batch_size=2), on_step=lambda *step: steps.append(step))
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    total, count = 0.0, 0
    for row in rows:
        made = encode(
            tokenizer,
            Sample(prompt=[{"role": "user", "content": row["prompt"]}], response=row["output"]),
        )
        ids = torch.tensor([made.prompt_ids + made.response_ids])
        with torch.no_grad():
            logprobs = model(ids).logits.log_softmax(-1)[0]
        for position in range(len(made.prompt_ids), ids.shape[1]):
            total -= logprobs[position - 1, ids[0, position]].item()
            count += 1
    assert steps[0][2]["loss"] == pytest.approx(total / count, rel=1e-4)


def test_a_seed_fixes_the_weights_and_training_arguments_reach_trl(options):
    """Three steps each, as `max_steps` says."""
    totals = []
    hashes = [
        train_sft(
            options(seed=seed, training_arguments={"max_steps": 3}),
            on_step=lambda step, total, _: totals.append((step, total)),
        ).weights_sha256
        for seed in (7, 7, 8)
    ]
    assert totals == [(1, 3), (2, 3), (3, 3)] * 3
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_decai": 0.1}, "did you mean 'weight_decay'"),
        ({"learning_rate": 0.1}, "--learning-rate"),
        ({"report_to": "wandb"}, "cannot be set"),
        ({"lr_scheduler_type": "spiral"}, "TRL refuses"),
    ],
)
def test_training_arguments_that_cannot_be_used(options, arguments, message):
    made = options(training_arguments=arguments)
    with pytest.raises(OptionError, match=message):
        train_sft(made)
    assert not Path(made.models_dir).exists()


def test_a_loss_that_is_not_finite_stops_with_advice_and_leaves_nothing(options, listener):
    made = options(learning_rate=1e30, experiment_name="diverged")
    with pytest.raises(TrainingError, match=r"lower --learning-rate \(now 1e\+30\)"):
        train_sft(made)
    assert not Path(made.models_dir).exists()
    kind, model_id, error = listener.heard[-1]
    assert (kind, model_id) == ("end", None)
    assert "the loss is nan" in error
    with Tracker("diverged", made.tracking_uri) as tracker:
        statuses = {
            run.info.run_id: run.info.status
            for run in tracker.client.search_runs([tracker.experiment_id])
        }
    assert sorted(statuses.values()) == ["FAILED", "RUNNING"]


def test_a_last_step_that_ruins_the_weights_is_not_registered(options):
    """The loss of the only step is fine; what it does to the weights is not."""
    made = options(learning_rate=1e39, training_arguments={"max_steps": 1})
    with pytest.raises(TrainingError, match="not finite"):
        train_sft(made)
    assert Registry(made.models_dir).list() == []
    assert [path.name for path in Path(made.models_dir).glob("*")] == []


def test_data_that_cannot_be_used_is_refused_before_anything_is_written(options):
    with pytest.raises(DataError, match="columns a"):
        train_sft(options([{"a": 1}]))
    with pytest.raises(DataError, match="rated below 9"):
        train_sft(options(min_score=9))
    with pytest.raises(DataError, match="all 64 are longer than 8"):
        train_sft(options(max_length=8))
    with pytest.raises(OptionError, match="a data set has its own ratings"):
        train_sft(options(reward=["success"]))


def test_lora_goes_where_it_is_told(options):
    made = options(lora_target="q_proj, v_proj", lora_r=4, training_arguments={"max_steps": 1})
    record = train_sft(made)
    path = Registry(made.models_dir).path(record)
    shapes = {
        name.rpartition("self_attn.")[2]: tuple(tensor.shape)
        for name, tensor in load_file(path / "adapter_model.safetensors").items()
    }
    assert shapes == {
        f"{module}.lora_{side}.weight": shape
        for module in ("q_proj", "v_proj")
        for side, shape in (("A", (4, 32)), ("B", (32, 4)))
    }
    with pytest.raises(OptionError, match=r"all-linear, or some of down_proj, gate_proj"):
        train_sft(options(lora_target="attention"))


def test_training_continues_from_a_registered_adapter(options, trained, tmp_path):
    """Its first loss is where the parent ended, and the record names the parent."""
    steps = []
    made = options(
        models_dir=str(trained.registry.models_dir),
        adapter=trained.record.id,
        lora_dropout=0.05,
        training_arguments={"max_steps": 1},
    )
    record = train_sft(made, on_step=lambda *step: steps.append(step))
    assert record.parent == trained.record.id
    assert record.version == trained.record.version + 1
    assert steps[0][2]["loss"] < 0.3 * trained.steps[0][2]["loss"]
    with pytest.raises(OptionError, match="--lora-r differs"):
        train_sft(msgspec.structs.replace(made, lora_r=8))
    with pytest.raises(OptionError, match="--lora-target differs"):
        train_sft(msgspec.structs.replace(made, lora_target="q_proj"))
    with pytest.raises(RegistryError, match="no model 'nobody'"):
        train_sft(msgspec.structs.replace(made, adapter="nobody"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    with pytest.raises(OptionError, match="another base model"):
        train_sft(msgspec.structs.replace(made, llm_path=str(other)))


def play(root: Path, tokenizer) -> list[str]:
    """Capture 8 episodes of one decision, whose reward is their number; returns their ids."""
    ids = []
    for number in range(8):
        messages = [{"role": "user", "content": f"way {number % 4}?"}]
        answer = encode(tokenizer, Sample(prompt=messages, response=WAYS[number % 4]))
        reply = Reply(
            WAYS[number % 4],
            prompt_token_ids=answer.prompt_ids,
            token_ids=answer.response_ids,
            logprobs=[-0.5] * len(answer.response_ids),
        )
        with open_episode(env="ways", seed=number, root=str(root)) as episode:
            episode.decision(messages, reply, reward=float(number))
            episode.finish(terminated=True)
        ids.append(episode.id)
    flush()
    seal(str(root))
    return ids


def test_a_store_gives_its_better_episodes_with_the_ids_that_were_sampled(
    options, tiny_model_dir, tmp_path
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    ids = play(tmp_path / "store", tokenizer)
    made = options(
        dataset_path=None,
        store=str(tmp_path / "store"),
        top_fraction=0.25,
        reward=["environment=2"],
        training_arguments={"max_steps": 1},
    )
    data = train_sft(made).data
    assert (data.source, data.root) == ("store", made.store)
    assert (data.episodes, data.decisions) == (2, 2)
    assert data.digest == episodes_digest(ids[-2:])
    assert [(r.name, r.weight) for r in data.rewards] == [("environment", 2.0)]
    assert data.skipped == {"episodes outside the top fraction": 6}
    chosen = select_episodes(read(made.store).episodes(), top_fraction=0.25)
    assert tokenise(tokenizer, chosen.samples, max_length=64).captured == 2
