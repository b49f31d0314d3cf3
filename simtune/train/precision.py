"""What the device can do: number format, attention and compilation, each with its reason."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING

import msgspec
import torch

from simtune.errors import OptionError, TrainingError
from simtune.policy.local import load_base
from simtune.train.options import PPOOptions
from simtune.train.update import TOKENS_PER_BATCH

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from simtune.train.actor_critic import ActorCritic

BF16_CAPABILITY = (8, 0)
"""Compute capability from which a GPU multiplies bfloat16 in hardware (Ampere)."""


class Loaded(msgspec.Struct):
    """A base model as this device runs it.

    Attributes:
        model: on its device, in eval mode.
        tokenizer: of the model.
        choices: what was chosen, with the reason; for the run's parameters.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    choices: dict[str, str]


def load(options: PPOOptions, *, placed: bool = True) -> Loaded:
    """Load the base model in the precision and with the attention that the device allows.

    Args:
        options: of the run.
        placed: whether it is put onto this process's device.

    Raises:
        OptionError: what was asked for by name cannot be had here.
    """
    name, why = precision(options.precision)
    attention, attention_why = attention_for(options.attention, name)
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    model, tokenizer = load_base(options.llm_path, dtype=dtype, attention=attention, placed=placed)
    used = attention or model.config._attn_implementation
    choices = {
        "chosen_precision": f"{name} ({why})",
        "chosen_attention": f"{used} ({attention_why})",
    }
    if options.gradient_checkpointing:
        checkpoint_activations(model)
    return Loaded(model=model, tokenizer=tokenizer, choices=choices)


def precision(asked: str) -> tuple[str, str]:
    """The number format of the base model's weights, and why; the adapter is always float32.

    float16 is not offered: its gradients need loss scaling, and a GPU without bfloat16 runs
    float32.

    Raises:
        OptionError: bfloat16 on a GPU that cannot multiply it.
    """
    on_gpu = torch.cuda.is_available()
    capable = on_gpu and torch.cuda.get_device_capability() >= BF16_CAPABILITY
    if asked == "bf16" and on_gpu and not capable:
        raise OptionError(
            "this GPU has no bfloat16",
            expected="compute capability 8.0 or newer",
            got=".".join(map(str, torch.cuda.get_device_capability())),
            fix="--precision auto takes fp32 here",
        )
    if asked != "auto":
        return asked, "asked for"
    if capable:
        return "bf16", "the GPU has bfloat16"
    return "fp32", "the GPU has no bfloat16" if on_gpu else "no GPU"


def attention_for(asked: str, precision_name: str) -> tuple[str | None, str]:
    """The attention implementation, and why; None leaves it to transformers.

    Raises:
        OptionError: flash attention was asked for and cannot be had.
    """
    missing = None
    if not torch.cuda.is_available():
        missing = "no GPU"
    elif precision_name != "bf16":
        missing = "it needs bf16"
    elif importlib.util.find_spec("flash_attn") is None:
        missing = "flash-attn is not installed"
    if asked == "flash_attention_2" and missing:
        raise OptionError(
            "flash attention cannot be used", got=missing, fix="--attention auto falls back"
        )
    if asked != "auto":
        return asked, "asked for"
    if missing:
        return None, f"not flash_attention_2: {missing}"
    return "flash_attention_2", "the GPU and flash-attn allow it"


def compiled(model: ActorCritic, options: PPOOptions) -> dict[str, str]:
    """Compile the decoder for updates, where asked; says what came of it.

    A decoder that cannot be compiled here (no C++ compiler, an operator without a rule) stays as
    it is: the run is slower, not different.
    """
    if not options.compile:
        return {}
    plain = model.decoder
    model.decoder = torch.compile(plain, dynamic=True)
    ids = torch.zeros((1, 4), dtype=torch.long, device=model.value_head.weight.device)
    try:
        model.decoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except (RuntimeError, OSError) as error:
        model.decoder = plain
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"torch.compile is left out: {reason}", RuntimeWarning, stacklevel=2)
        return {"chosen_compile": f"off ({reason})"}
    return {"chosen_compile": "on (asked for)"}


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Compute activations anew in the backward pass, and only where a gradient is wanted.

    transformers checkpoints a layer that is in training mode. The layers alone are put into it,
    for a pass with gradients; what is inside them stays in eval mode, so dropout stays off.

    Raises:
        OptionError: the model cannot, or its layers apply dropout themselves.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers or any(getattr(layer, "dropout", 0.0) not in (0, 0.0) for layer in layers):
        raise OptionError(
            f"{type(model).__name__} cannot checkpoint activations with dropout off",
            fix="leave --gradient-checkpointing out; lower --tokens-per-batch to save memory",
        )
    with warnings.catch_warnings():
        # The new name came with transformers 5.23; 5.20 to 5.22 have this one.
        warnings.filterwarnings("ignore", "`gradient_checkpointing_enable`", FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def only_with_gradients(*_: object) -> None:
        for layer in layers:
            layer.training = torch.is_grad_enabled()

    decoder = getattr(model, model.base_model_prefix)
    decoder.register_forward_pre_hook(only_with_gradients)


def out_of_memory(error: torch.OutOfMemoryError, options: PPOOptions) -> TrainingError:
    """What a user can do about a GPU whose memory does not suffice."""
    tokens = (options.tokens_per_batch or TOKENS_PER_BATCH["cuda"]) // 2
    ways = [f"--tokens-per-batch {max(1, tokens)}", f"--num-envs {max(1, options.num_envs // 2)}"]
    ways.append(
        f"--lora-r {max(1, options.lora_r // 2)}"
        if options.gradient_checkpointing
        else "--gradient-checkpointing true"
    )
    return TrainingError(
        "the GPU's memory does not suffice; nothing was registered",
        got=str(error).splitlines()[0],
        fix=f"any of {', '.join(ways)}",
    )
