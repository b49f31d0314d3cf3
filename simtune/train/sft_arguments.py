"""TRL's SFTConfig from simtune's options and the user's `training_arguments`."""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any

from simtune.errors import OptionError
from simtune.train.options import SFTOptions

if TYPE_CHECKING:
    from trl import SFTConfig

OPTION_OF = {
    "per_device_train_batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "num_train_epochs": "epochs",
    "seed": "seed",
    "max_length": "max_length",
}
"""Fields that are options of simtune: given twice, one of the two would be ignored."""

_OUR_TOKENS = "simtune turns samples into tokens itself, so TRL would ignore it"
_NO_EVAL = "there is no held-out split to evaluate on"

RESERVED = {
    "report_to": "simtune's tracker reports to MLflow (--tracking-uri)",
    "disable_tqdm": "progress is simtune's",
    "logging_nan_inf_filter": "it would hide a loss that is not finite",
    "assistant_only_loss": _OUR_TOKENS,
    "chat_template_path": _OUR_TOKENS,
    "completion_only_loss": _OUR_TOKENS,
    "dataset_kwargs": _OUR_TOKENS,
    "dataset_num_proc": _OUR_TOKENS,
    "dataset_text_field": _OUR_TOKENS,
    "eos_token": _OUR_TOKENS,
    "truncation_mode": "--excess-length says what happens to long samples",
    "model_init_kwargs": "simtune loads the model itself",
    "trust_remote_code": "simtune loads the model itself",
    "eval_strategy": _NO_EVAL,
    "do_eval": _NO_EVAL,
    "load_best_model_at_end": _NO_EVAL,
    "push_to_hub": "the adapter goes to simtune's registry",
    "resume_from_checkpoint": "--adapter continues from a registered adapter",
}
"""Fields that cannot be set, and why."""


def sft_config(options: SFTOptions, output_dir: str) -> SFTConfig:
    """Make the trainer's configuration.

    Defaults differ from TRL's where its own suit neither a CPU nor tokens made beforehand:
    float32 and no activation checkpointing without a GPU, every step logged, no checkpoints.

    Args:
        options: of the run; `training_arguments` win over simtune's defaults.
        output_dir: for checkpoints, where the user asks for them without saying where.

    Raises:
        OptionError: a field does not exist (with the nearest), is reserved, or has a wrong value.
    """
    import torch
    from trl import SFTConfig

    given = options.training_arguments
    _check_names(given, {field.name for field in dataclasses.fields(SFTConfig)})
    on_gpu = torch.cuda.is_available()
    packing = bool(given.get("packing", False))
    values: dict[str, Any] = {
        "output_dir": output_dir,
        "per_device_train_batch_size": options.batch_size,
        "num_train_epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "activation_checkpointing": given.get("gradient_checkpointing", on_gpu),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": on_gpu,
        # Samples are within the limit already; packing alone still needs a block's length.
        "max_length": options.max_length if packing else None,
        "dataset_kwargs": {"skip_prepare_dataset": not packing},
    }
    try:
        return SFTConfig(**(values | given))
    except (TypeError, ValueError) as error:
        raise OptionError(
            "TRL refuses the training arguments",
            got=error,
            fix="correct `training_arguments`: " + ", ".join(sorted(given)),
        ) from error


def _check_names(given: dict[str, Any], known: set[str]) -> None:
    for name in given:
        if name in OPTION_OF:
            raise OptionError(
                f"training argument {name!r} is an option of its own",
                fix=f"--{OPTION_OF[name].replace('_', '-')}",
            )
        if name in RESERVED:
            raise OptionError(f"training argument {name!r} cannot be set: {RESERVED[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise OptionError(
                f"unknown training argument {name!r}",
                expected=f"did you mean {near[0]!r}?" if near else "a field of TRL's SFTConfig",
            )
