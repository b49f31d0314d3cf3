"""What can be known to be wrong before torch is imported and a model is loaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from simtune import plugins
from simtune.data.decisions import read_decisions
from simtune.errors import DataError, OptionError
from simtune.train.following_checks import changed, check_following
from simtune.train.options import SEEDS_PER_RUN, PPOOptions, TrainOptions
from simtune.train.update_checks import check_update

SOURCES = ("env", "store", "dataset_path")
"""Options that say where training data comes from; exactly one is given."""

ROLLOUT_OPTIONS = (
    "env_arg",
    "capture_root",
    "episodes_per_iteration",
    "group_size",
    "num_envs",
    "max_new_tokens",
    "stop",
    "decision",
    "length_normalised",
    "history",
    "env_workers",
    "curriculum",
)
"""Options of ppo that only roll-outs in an environment read."""

PLAYING_OPTIONS = (
    "num_envs",
    "max_new_tokens",
    "stop",
    "decision",
    "length_normalised",
    "history",
)
"""Those of them that an evaluation reads too."""

EVALUATION_OPTIONS = (
    "eval_episodes",
    "eval_seed",
    "eval_decoding",
    "eval_env",
    "eval_env_arg",
    "keep",
)
"""Options of ppo that only evaluations during training read."""


def check_inputs(options: TrainOptions) -> None:
    """Load the plugins, then check model, data source, rewards and registry.

    Raises:
        OptionError: the model, the source, a reward or an option cannot be used.
        DataError: the data file or the store holds nothing that can be used.
        EnvironmentSpecError: the environment cannot be made, or cannot be turned into text.
        PluginError: a plugin cannot be loaded.
        RegistryError: the registry is broken, or has no such adapter to start from.
    """
    for spec in options.plugin:
        plugins.load(spec)
    check_model(options.llm_path)
    check_source(options)
    _check_use(options)
    from simtune.rewards.registration import select

    select(options.reward)
    _check_registry(options)


def check_model(path: str) -> None:
    """Make sure that a base model is where it is said to be.

    Raises:
        OptionError: no directory, or one without config.json.
    """
    directory = Path(path)
    if directory.is_dir() and (directory / "config.json").is_file():
        return
    if directory.is_dir():
        adapter = (directory / "adapter_config.json").is_file()
        got = "a LoRA adapter" if adapter else "a directory without config.json"
    else:
        got = "a file" if directory.exists() else "nothing there"
    raise OptionError(
        f"no base model in {path!r}",
        expected="a Hugging Face model directory (with config.json)",
        got=f"{got} ({directory.resolve()})",
        fix="simtune models pull-base tiny --output DIR makes one",
    )


def check_source(options: TrainOptions) -> None:
    """Make sure that exactly one source of data is given, and that it holds something.

    Raises:
        OptionError: none or several are given, or the store does not exist.
        DataError: it holds nothing, or nothing that can be used.
        EnvironmentSpecError: it is an environment that cannot be used.
    """
    possible = [name for name in SOURCES if name in options.__struct_fields__]
    given = [name for name in possible if getattr(options, name) is not None]
    if len(given) != 1:
        raise OptionError(
            "training needs data from one source" if not given else "two sources of data are given",
            expected="exactly one of " + ", ".join(map(_flag, possible)),
            got=" and ".join(map(_flag, given)) or "none of them",
        )
    if options.dataset_path is not None:
        read_decisions(options.dataset_path)
    if options.store is not None and not options.follow:
        _check_store(Path(options.store))
    if isinstance(options, PPOOptions) and options.env is not None:
        from simtune.gym import build
        from simtune.gym.seating import check_source

        made = partial(build, options.env, **options.env_arg)
        check_source(made, workers=options.env_workers)


def _check_use(options: TrainOptions) -> None:
    """Refuse options that this run would not read, or that leave it nothing to do."""
    if options.dataset_path is not None and options.reward:
        raise OptionError(
            "--reward scores captured episodes; a data set has its own ratings",
            got=f"--reward {options.reward[0]} with --dataset-path",
            fix="leave --reward out, or train from a --store",
        )
    check_following(options)
    if not isinstance(options, PPOOptions):
        return
    if options.env is None:
        used = {*PLAYING_OPTIONS} if options.eval_env is not None else set()
        used |= {"episodes_per_iteration"} if options.follow else set()
        for name in changed(options, set(ROLLOUT_OPTIONS).difference(used)):
            raise OptionError(
                f"{_flag(name)} is about roll-outs, and there are none without --env",
                fix=f"leave {_flag(name)} out, or give --env",
            )
    _check_evaluation(options)
    check_update(options)


def _check_evaluation(options: PPOOptions) -> None:
    """Refuse an evaluation that cannot be played, or that is played on training's own seeds."""
    if options.eval_every == 0:
        for name in changed(options, EVALUATION_OPTIONS):
            raise OptionError(
                f"{_flag(name)} is about evaluations, and there are none without --eval-every",
                fix=f"leave {_flag(name)} out, or give --eval-every 5",
            )
        return
    if options.env is None and options.eval_env is None:
        raise OptionError(
            "there is no environment to evaluate in",
            expected="--eval-env SPEC beside --store or --dataset-path",
            got=f"--eval-every {options.eval_every}",
        )
    from simtune.gym import build
    from simtune.gym.seating import check_source

    if options.eval_env is not None:
        check_source(partial(build, options.eval_env, **options.eval_env_arg))
    elif options.eval_env_arg:
        given = options.env_arg | options.eval_env_arg
        check_source(partial(build, str(options.env), **given))
    first = options.seed * SEEDS_PER_RUN
    last = first + options.iterations * options.episodes_per_iteration
    if options.env is not None and (
        options.eval_seed < last and first < options.eval_seed + options.eval_episodes
    ):
        raise OptionError(
            "the evaluation would play seeds that are trained on",
            expected=f"--eval-seed outside {first} to {last - 1}",
            got=f"{options.eval_seed} to {options.eval_seed + options.eval_episodes - 1}",
        )


def _check_registry(options: TrainOptions) -> None:
    from simtune.registry import Registry

    registry = Registry(options.models_dir)
    if options.adapter is None:
        registry.list()
    else:
        registry.get(options.adapter)


def _check_store(root: Path) -> None:
    if not root.is_dir():
        raise OptionError(
            "the store does not exist",
            expected="the directory that decisions were captured into",
            got=root.resolve(),
        )
    if not any(path.is_file() for path in root.rglob("*")):
        raise DataError("the store is empty", got=root.resolve())


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
