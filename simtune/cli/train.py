"""`simtune train sft|ppo`: flags and YAML to options, progress, the registered record."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from simtune.cli import arguments, output
from simtune.cli.dashboard import progress_of
from simtune.errors import OptionError
from simtune.train.options import METHODS, TrainOptions, parse_options
from simtune.train.parallel import is_main_process
from simtune.train.tuning import tune

if TYPE_CHECKING:
    from simtune.registry import ModelRecord

HELP = "Train a LoRA adapter and register it."

_DEFAULT_METHOD = "sft"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every field of every method's options is a flag."""
    parser.usage = (
        f"simtune train [{'|'.join(METHODS)}] --llm-path DIR "
        "(--store ROOT | --dataset-path FILE | --env SPEC) [options]"
    )
    parser.add_argument("method", nargs="?", choices=sorted(METHODS), help="training method")
    parser.add_argument(
        "--tuning-mode", choices=sorted(METHODS), help="the same as METHOD (default: sft)"
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="options as `name: value`; flags win over it"
    )
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    arguments.add_flags(parser, METHODS)


def run(args: argparse.Namespace) -> int:
    """Train, and print what was registered."""
    config = arguments.read_config(args.config) if args.config else {}
    config = {name.replace("-", "_"): value for name, value in config.items()}
    method = _method(args.method, args.tuning_mode, config.pop("tuning_mode", None))
    every = dict.fromkeys(name for kind in METHODS.values() for name in kind.__struct_fields__)
    values = arguments.merged(config, arguments.given(args, every))
    _refuse_other_methods(method, values)
    options = parse_options(method, values)
    with progress_of(method, options) as progress:
        record = tune(method, options, on_step=progress.update, on_wait=progress.wait)
    if not is_main_process():
        return 0
    if args.json:
        output.json(record)
    else:
        _print(record, options)
    return 0


def _method(*named: object) -> str:
    """The method that was named, in one or several places that agree."""
    said = {str(name) for name in named if name is not None}
    if len(said) > 1:
        raise OptionError(
            "two training methods are named", expected="one of them", got=" and ".join(sorted(said))
        )
    return said.pop() if said else _DEFAULT_METHOD


def _refuse_other_methods(method: str, values: dict[str, Any]) -> None:
    own = METHODS.get(method)
    if own is None:
        return
    for name in values:
        others = [each for each, kind in METHODS.items() if name in kind.__struct_fields__]
        if others and name not in own.__struct_fields__:
            raise OptionError(
                f"{arguments.flag(name)} is an option of {' and '.join(others)}, not of {method}",
                fix=f"leave it out, or run: simtune train {others[0]}",
            )


def _print(record: ModelRecord, options: TrainOptions) -> None:
    from simtune.registry import Registry

    output.line(f"registered {record.id}")
    facts = {"path": Registry(options.models_dir).path(record)} | _learned_from(record)
    width = max(map(len, [*facts, *record.metrics]))
    for name, value in [*facts.items(), *record.metrics.items()]:
        output.line(f"  {name:<{width}}  {output.cell(value)}")
    where = f" --models-dir {options.models_dir}"
    env = getattr(options, "env", None) or "ENV"
    output.line("next:")
    output.line(f"  simtune models show {record.id}{where}")
    output.line(
        f"  simtune eval --env {env} --llm-path {record.base_model} --model base "
        f"--model {record.id}{where}"
    )


def _learned_from(record: ModelRecord) -> dict[str, object]:
    if record.data is None:
        return {}
    skipped = [f"{count} {reason}" for reason, count in record.data.skipped.items() if count]
    learned: dict[str, object] = {"decisions": record.data.decisions}
    return learned | ({"skipped": ", ".join(skipped)} if skipped else {})
