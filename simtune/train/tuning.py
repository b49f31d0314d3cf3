"""One call to train: checks first, then the method's trainer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from simtune.errors import OptionError
from simtune.train.options import (
    OnStep,
    OnWait,
    PPOOptions,
    SFTOptions,
    TrainOptions,
    parse_options,
)

if TYPE_CHECKING:
    from simtune.registry import ModelRecord


_DEFAULTS: dict[str, Any] = {
    "llm_path": "",
    "dataset_path": None,
    "experiment_name": "llm_tuning",
    "tracking_uri": "./mlruns",
    "devices": "0",
}


def run_tuning(
    tuning_mode: str = "sft",
    llm_path: str = "",
    dataset_path: str | None = None,
    experiment_name: str = "llm_tuning",
    tracking_uri: str = "./mlruns",
    devices: str = "0",
    **options: Any,
) -> ModelRecord:
    """Train an adapter and register it.

    Args:
        tuning_mode: `sft` or `ppo`.
        llm_path: directory of the base model.
        dataset_path: file of decisions; or give `store=` or, for ppo, `env=`.
        experiment_name: MLflow experiment.
        tracking_uri: MLflow URI; a plain path means sqlite inside it.
        devices: GPU indices, such as `"0"`.
        options: any other option of the method, as on the command line.

    Returns:
        The record that was written to the registry.

    Raises:
        OptionError: an option is unknown, unusable or missing.
        DataError: the data holds nothing to learn from.
    """
    given = {
        "llm_path": llm_path,
        "dataset_path": dataset_path,
        "experiment_name": experiment_name,
        "tracking_uri": tracking_uri,
        "devices": devices,
    }
    if options.get("resume") is not None:
        # A resumed run has its own: only what was said counts.
        given = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
    return tune(tuning_mode, parse_options(tuning_mode, given | options))


def use_devices(devices: str) -> None:
    """Show CUDA only the GPUs that are asked for; nothing changes on a machine without one.

    A `CUDA_VISIBLE_DEVICES` that is set already wins: a cluster's scheduler chose it.

    Raises:
        OptionError: not a comma-separated list of GPU indices.
    """
    wanted = [part.strip() for part in devices.split(",")]
    if not all(part.isdecimal() for part in wanted):
        raise OptionError("--devices cannot be read", expected='"0" or "0,1"', got=repr(devices))
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", ",".join(wanted))


def tune(
    method: str,
    options: TrainOptions,
    *,
    on_step: OnStep | None = None,
    on_wait: OnWait | None = None,
) -> ModelRecord:
    """Check the inputs, then run the trainer of a method; torch is imported only after the checks.

    Args:
        method: sft or ppo.
        options: of the run.
        on_step: called after each step or round.
        on_wait: told what a run waits for that follows a store.

    Raises:
        OptionError: an input does not exist, or more or less than one source of data is given.
        DataError: the data holds nothing to learn from.
    """
    from simtune.train.checks import check_inputs

    check_inputs(options)
    use_devices(options.devices)
    if method == "sft":
        return _tune_sft(cast(SFTOptions, options), on_step, on_wait)
    return _tune_ppo(cast(PPOOptions, options), on_step, on_wait)


def _tune_sft(options: SFTOptions, on_step: OnStep | None, on_wait: OnWait | None) -> ModelRecord:
    if options.follow:
        from simtune.train.online_sft import follow_sft

        return follow_sft(options, on_step=on_step, on_wait=on_wait)
    from simtune.train.sft import train_sft

    return train_sft(options, on_step=on_step)


def _tune_ppo(options: PPOOptions, on_step: OnStep | None, on_wait: OnWait | None) -> ModelRecord:
    """Here, or in several processes that are started here; a process of a launcher joins it."""
    from simtune.train.launch import launch, processes_wanted
    from simtune.train.parallel import launched

    count = 1 if launched() else processes_wanted(options)
    if count > 1:
        return launch(options, count, on_step=on_step)
    from simtune.train.ppo import train_ppo

    return train_ppo(options, on_step=on_step, on_wait=on_wait)
