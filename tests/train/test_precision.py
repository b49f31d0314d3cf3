"""What the device makes of the options, here on a CPU, and on GPUs that are made up."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from simtune.errors import OptionError
from simtune.policy.local import quiet
from simtune.train import precision
from simtune.train.options import PPOOptions


@pytest.fixture
def gpu(monkeypatch):
    """Pretends to be a GPU of a compute capability, with or without flash-attn."""

    def pretend(capability, flash=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(
            precision.importlib.util, "find_spec", lambda name: object() if flash else None
        )

    return pretend


def test_a_cpu_computes_in_float32_unless_asked():
    assert precision.precision("auto") == ("fp32", "no GPU")
    assert precision.precision("bf16") == ("bf16", "asked for")


@pytest.mark.parametrize(
    ("capability", "name"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp32")]
)
def test_a_gpu_computes_in_bfloat16_where_it_can(gpu, capability, name):
    gpu(capability)
    assert precision.precision("auto")[0] == name


def test_bfloat16_on_a_gpu_without_it_is_refused(gpu):
    gpu((7, 5))
    with pytest.raises(OptionError, match=r"(?s)no bfloat16.*got: 7\.5"):
        precision.precision("bf16")


def test_attention_falls_back_and_says_why(gpu):
    assert precision.attention_for("auto", "fp32") == (None, "not flash_attention_2: no GPU")
    assert precision.attention_for("eager", "fp32") == ("eager", "asked for")
    gpu((9, 0))
    reason = "not flash_attention_2: flash-attn is not installed"
    assert precision.attention_for("auto", "bf16") == (None, reason)
    gpu((9, 0), flash=True)
    assert precision.attention_for("auto", "bf16")[0] == "flash_attention_2"
    assert precision.attention_for("auto", "fp32") == (None, "not flash_attention_2: it needs bf16")


def test_flash_attention_that_was_asked_for_is_not_left_out_silently():
    with pytest.raises(OptionError, match=r"(?s)flash attention cannot be used.*no GPU"):
        precision.attention_for("flash_attention_2", "fp32")


def test_the_run_is_told_what_was_chosen(tiny_model_dir):
    loaded = precision.load(PPOOptions(llm_path=str(tiny_model_dir), attention="eager"))
    assert loaded.model.dtype == torch.float32
    assert loaded.choices == {
        "chosen_precision": "fp32 (no GPU)",
        "chosen_attention": "eager (asked for)",
    }
    half = precision.load(PPOOptions(llm_path=str(tiny_model_dir), precision="bf16"))
    assert half.model.dtype == torch.bfloat16


def small():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        attention_dropout=0.5,
    )
    return LlamaForCausalLM(config).eval()


class Gradients:
    """Of the adapter of a model whose first layer's calls are counted."""

    def __init__(self, anew):
        self.calls = 0
        model = small()
        if anew:
            precision.checkpoint_activations(model)
        model.model.layers[0].mlp.register_forward_pre_hook(self.count)
        with quiet():
            lora = LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj"])
            policy = get_peft_model(model, lora).eval()
        ids = torch.arange(12).reshape(2, 6)
        policy.get_base_model().model(input_ids=ids, use_cache=False)[0].sum().backward()
        self.found = [p.grad for p in policy.parameters() if p.requires_grad]

    def count(self, *_):
        self.calls += 1


def test_activations_computed_anew_give_the_same_gradient_bit_for_bit():
    """Dropout of the model and of the adapter stays off, although layers are in training mode."""
    plain, again = Gradients(anew=False), Gradients(anew=True)
    assert (plain.calls, again.calls) == (1, 2)
    for one, other in zip(plain.found, again.found, strict=True):
        assert torch.equal(one, other)


def test_without_gradients_nothing_is_computed_twice():
    model = small()
    precision.checkpoint_activations(model)
    with torch.no_grad():
        model.model(input_ids=torch.arange(6)[None], use_cache=False)
    assert not any(layer.training for layer in model.model.layers)


def test_a_model_whose_layers_drop_out_themselves_is_refused():
    model = small()
    model.model.layers[0].dropout = 0.1
    with pytest.raises(OptionError, match="with dropout off"):
        precision.checkpoint_activations(model)


class Broken(torch.nn.Module):
    """A model whose decoder no compiler takes."""

    def __init__(self):
        super().__init__()
        self.value_head = torch.nn.Linear(1, 1)
        self.decoder = torch.nn.Identity()


def test_a_decoder_that_cannot_be_compiled_stays_as_it_is(monkeypatch):
    model = Broken()
    plain = model.decoder
    monkeypatch.setattr(torch, "compile", lambda *_, **__: torch.nn.Identity())
    monkeypatch.setattr(
        torch.nn.Identity, "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no g++"))
    )
    options = PPOOptions(llm_path="b", compile=True)
    with pytest.warns(RuntimeWarning, match=r"torch.compile is left out: no g\+\+"):
        assert precision.compiled(model, options) == {"chosen_compile": "off (no g++)"}
    assert model.decoder is plain
    assert precision.compiled(model, PPOOptions(llm_path="b")) == {}


def test_memory_that_does_not_suffice_ends_with_three_ways_out():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    said = str(precision.out_of_memory(error, PPOOptions(llm_path="b", tokens_per_batch=4096)))
    assert "got: CUDA out of memory. Tried to allocate 2 GiB\n" in said
    assert "any of --tokens-per-batch 2048, --num-envs 16, --gradient-checkpointing true" in said
