"""LoRA adapters through peft: a new one, or one to continue from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simtune.errors import OptionError
from simtune.policy.local import quiet
from simtune.registry import ModelRecord, Registry
from simtune.train.options import TrainOptions

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

_TUNED = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}


def lora_config(options: TrainOptions) -> LoraConfig:
    """Peft's configuration of a new adapter."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=_targets(options.lora_target),
    )


def parent_record(options: TrainOptions) -> ModelRecord | None:
    """The adapter that `--adapter` names, or None.

    Raises:
        RegistryError: there is no such model.
        OptionError: it sits on another base model.
    """
    if options.adapter is None:
        return None
    record = Registry(options.models_dir).get(options.adapter)
    if Path(record.base_model).resolve() != Path(options.llm_path).resolve():
        raise OptionError(
            f"adapter {record.id!r} sits on another base model",
            expected=record.base_model,
            got=options.llm_path,
            fix=f"--llm-path {record.base_model}",
        )
    return record


def attach(model: PreTrainedModel, options: TrainOptions) -> PeftModel:
    """Put a trainable adapter on a base model, whose own weights are frozen.

    With `--adapter` it is that adapter with its own configuration; otherwise a new one, of random
    A and zero B: at first the model answers as before. Seed torch first.

    Raises:
        OptionError: a target module does not exist, or an option contradicts the adapter.
        RegistryError: the adapter to continue from does not exist.
    """
    from peft import PeftModel, get_peft_model

    parent = parent_record(options)
    if parent is not None:
        path = Registry(options.models_dir).path(parent)
        with quiet():
            continued = PeftModel.from_pretrained(model, str(path), is_trainable=True)
        _check_continued(options, continued)
        return continued
    try:
        with quiet():
            return get_peft_model(model, lora_config(options))
    except ValueError as error:
        names = {name.rpartition(".")[2] for name, part in model.named_modules() if _linear(part)}
        raise OptionError(
            f"LoRA cannot be put on {options.lora_target!r}",
            expected=f"all-linear, or some of {', '.join(sorted(names - {'lm_head'}))}",
            got=error,
            fix="--lora-target all-linear",
        ) from error


def _targets(text: str) -> str | list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise OptionError("no module is named for LoRA", fix="--lora-target all-linear")
    return names[0] if names == ["all-linear"] else names


def _linear(part: Any) -> bool:
    import torch

    return isinstance(part, torch.nn.Linear)


def _check_continued(options: TrainOptions, model: PeftModel) -> None:
    """Refuse LoRA options that would be ignored because the adapter has its own."""
    config = model.peft_config["default"]
    defaults = {field.name: field.default for field in msgspec.structs.fields(TrainOptions)}
    for name, theirs in _TUNED.items():
        asked = getattr(options, name)
        if asked not in (defaults[name], getattr(config, theirs)):
            raise OptionError(
                f"--{name.replace('_', '-')} differs from that of the adapter to continue from",
                expected=getattr(config, theirs),
                got=asked,
                fix="leave it out, or start a new adapter without --adapter",
            )
    targets = _targets(options.lora_target)
    if targets != "all-linear" and set(targets) != set(config.target_modules):
        raise OptionError(
            "--lora-target differs from that of the adapter to continue from",
            expected=", ".join(sorted(config.target_modules)),
            got=options.lora_target,
            fix="leave it out, or start a new adapter without --adapter",
        )
