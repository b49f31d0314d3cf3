"""Every option of `simtune train`, once: flags, YAML and `run_tuning` are made from these.

`Meta(description=...)` is the help text. An option that no method reads does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from simtune.errors import OptionError

OnStep: TypeAlias = Callable[[int, "int | None", dict[str, float]], None]
"""Called as `on_step(step, total, metrics)` on the trainer's thread; no total: there is no end."""

OnWait: TypeAlias = Callable[[str], None]
"""Called with what the trainer waits for, in words, on its thread, about once a second."""

SEEDS_PER_RUN = 1_000_000
"""Seeds of episodes that belong to one value of `--seed`."""


class TrainOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every training method understands."""

    llm_path: Annotated[str, Meta(description="directory of the base model")] = ""
    dataset_path: Annotated[
        str | None, Meta(description="file of decisions (JSON list, JSON lines)")
    ] = None
    store: Annotated[str | None, Meta(description="root of captured episodes")] = None
    reward: Annotated[
        list[str], Meta(description="NAME[=WEIGHT], repeatable; default: the environment's reward")
    ] = msgspec.field(default_factory=list)
    plugin: Annotated[list[str], Meta(description="plugin file or module to load, repeatable")] = (
        msgspec.field(default_factory=list)
    )
    adapter: Annotated[
        str | None, Meta(description="adapter to start from: model id, `latest` or `champion`")
    ] = None
    experiment_name: Annotated[str, Meta(description="MLflow experiment")] = "llm_tuning"
    tracking_uri: Annotated[
        str, Meta(description="MLflow URI; a plain path means sqlite inside it")
    ] = "./mlruns"
    models_dir: Annotated[str, Meta(description="registry of adapters")] = "./models"
    description: Annotated[str, Meta(description="free text for the registry")] = ""
    devices: Annotated[
        str, Meta(description='GPU indices, such as "0" or "0,1"; CPU where there is none')
    ] = "0"
    seed: Annotated[int, Meta(description="seed of everything random")] = 0
    lora_r: Annotated[int, Meta(description="rank of the LoRA matrices", ge=1)] = 16
    lora_alpha: Annotated[int, Meta(description="LoRA scale numerator", ge=1)] = 32
    lora_dropout: Annotated[float, Meta(description="dropout on LoRA inputs", ge=0, lt=1)] = 0.05
    lora_target: Annotated[
        str, Meta(description="`all-linear` or comma-separated module names")
    ] = "all-linear"
    follow: Annotated[bool, Meta(description="stay, and learn from --store as episodes arrive")] = (
        False
    )
    follow_timeout: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="with --follow: end after so many seconds without anything new"),
    ] = None
    publish_every: Annotated[
        int, Meta(description="with --follow: rounds between published adapters", ge=1)
    ] = 1
    keep_published: Annotated[
        int, Meta(description="with --follow: newest candidates whose files are kept", ge=2)
    ] = 5
    serve: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(description="with --follow: port of an endpoint beside the trainer; 0: a free one"),
    ] = None


class SFTOptions(TrainOptions, kw_only=True, forbid_unknown_fields=True):
    """`simtune train sft`: imitate the better captured decisions."""

    top_fraction: Annotated[
        float, Meta(description="share of episodes, or of rated rows, kept, best first", gt=0, le=1)
    ] = 1.0
    min_score: Annotated[
        float | None,
        Meta(description="lowest score kept; rated rows: default mid-range"),
    ] = None
    epochs: Annotated[float, Meta(description="passes over the data", gt=0)] = 3.0
    learning_rate: Annotated[float, Meta(description="peak learning rate", gt=0)] = 2e-4
    batch_size: Annotated[int, Meta(description="samples per optimizer step", ge=1)] = 32
    max_length: Annotated[int, Meta(description="longest sample, tokens", ge=8)] = 2048
    excess_length: Annotated[
        Literal["drop", "truncate", "raise"], Meta(description="what happens to longer samples")
    ] = "drop"
    training_arguments: Annotated[
        dict[str, Any], Meta(description="any field of TRL's SFTConfig")
    ] = msgspec.field(default_factory=dict)
    iterations: Annotated[
        int, Meta(description="rounds; 0: no end, with --follow, where it is the default", ge=0)
    ] = 0
    episodes_per_iteration: Annotated[int, Meta(description="episodes of one round", ge=1)] = 64
    buffer_episodes: Annotated[
        int, Meta(description="with --follow: episodes kept for replay", ge=2)
    ] = 512
    buffer_temperature: Annotated[
        float, Meta(description="with --follow: how evenly replay draws; large: all alike", gt=0)
    ] = 1.0
    resume: Annotated[
        str | None,
        Meta(description="go on with a run: `latest`, its id or directory; `never`: begin anew"),
    ] = None
    keep_checkpoints: Annotated[
        int, Meta(description="newest checkpoints of a run that are kept", ge=1)
    ] = 2
    checkpoint_dir: Annotated[
        str | None, Meta(description="where runs keep checkpoints; default: MODELS_DIR/checkpoints")
    ] = None


class PPOOptions(TrainOptions, kw_only=True, forbid_unknown_fields=True):
    """`simtune train ppo`: learn from the rewards of roll-outs, or of logged decisions."""

    env: Annotated[
        str | None,
        Meta(
            description="gymnasium id, or module:callable that returns an environment or a vector "
            "of them"
        ),
    ] = None
    env_arg: Annotated[dict[str, Any], Meta(description="K=V for the environment, repeatable")] = (
        msgspec.field(default_factory=dict)
    )
    capture_root: Annotated[str, Meta(description="store that roll-outs are captured into")] = (
        "./simtune-data"
    )
    iterations: Annotated[
        int, Meta(description="rounds; 0: no end, with --follow, where it is the default", ge=0)
    ] = 20
    episodes_per_iteration: Annotated[int, Meta(description="episodes of one round", ge=1)] = 64
    group_size: Annotated[
        int, Meta(description="episodes that begin alike, for rloo and group", ge=1)
    ] = 1
    num_envs: Annotated[int, Meta(description="environments stepped together", ge=1)] = 32
    max_new_tokens: Annotated[int, Meta(description="longest answer, tokens", ge=1)] = 16
    stop: Annotated[list[str], Meta(description="text that ends an answer, repeatable")] = (
        msgspec.field(default_factory=list)
    )
    temperature: Annotated[float, Meta(description="sampling temperature", gt=0)] = 1.0
    decision: Annotated[
        Literal["generate", "choose"],
        Meta(description="write answers, or choose among the environment's named actions"),
    ] = "generate"
    length_normalised: Annotated[
        bool, Meta(description="choose by the mean over an option's tokens, not the sum")
    ] = False
    history: Annotated[
        Annotated[str, Meta(pattern=r"^(\d+|full)$")] | None,
        Meta(description="earlier turns in the chat: a number, or full; default: by environment"),
    ] = None
    env_workers: Annotated[
        int, Meta(description="processes that step the environments; 0: the trainer's own", ge=0)
    ] = 0
    curriculum: Annotated[
        str | None, Meta(description="module:function (index, stats) -> options of each reset")
    ] = None
    gamma: Annotated[float, Meta(description="discount per decision", ge=0, le=1)] = 0.99
    gae_lambda: Annotated[float, Meta(description="GAE lambda per decision", ge=0, le=1)] = 0.95
    epochs: Annotated[int, Meta(description="passes over each batch", ge=1)] = 3
    minibatch_size: Annotated[int, Meta(description="decisions per optimizer step", ge=1)] = 256
    tokens_per_batch: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="tokens computed at once; default: by device"),
    ] = None
    estimator: Annotated[
        str, Meta(description="of advantages: gae, token-gae, rloo, group, or a plugin's")
    ] = "gae"
    whiten: Annotated[bool, Meta(description="whiten advantages over the round")] = True
    normalise: Annotated[
        Literal["tokens", "decisions"], Meta(description="what counts the same in the policy loss")
    ] = "tokens"
    behaviour: Annotated[
        Literal["auto", "stored", "decoupled"],
        Meta(description="ratios to the sampler, or to the trainer with importance weights"),
    ] = "auto"
    mismatch_tolerance: Annotated[
        float, Meta(description="nats of sampler and trainer apart that auto lets pass", ge=0)
    ] = 0.01
    importance_cap: Annotated[
        float, Meta(description="largest importance weight of the decoupled form", gt=0)
    ] = 2.0
    max_staleness: Annotated[
        int, Meta(description="with --follow: versions that a decision may be old", ge=0)
    ] = 4
    learning_rate: Annotated[float, Meta(description="learning rate of the LoRA", gt=0)] = 3e-4
    lr_schedule: Annotated[
        Literal["constant", "linear"],
        Meta(description="linear: both rates fall to a tenth over the rounds"),
    ] = "constant"
    critic_learning_rate: Annotated[
        float, Meta(description="learning rate of the value head", gt=0)
    ] = 1e-3
    critic_warmup: Annotated[
        int, Meta(description="first rounds that train the value head only", ge=0)
    ] = 1
    clip_low: Annotated[float, Meta(description="lower clip range of the ratio", gt=0)] = 0.2
    clip_high: Annotated[float, Meta(description="upper clip range of the ratio", gt=0)] = 0.28
    dual_clip: Annotated[
        Annotated[float, Meta(gt=1)] | None,
        Meta(description="bound on the ratio for negative advantages"),
    ] = 3.0
    value_coef: Annotated[float, Meta(description="weight of the value loss", ge=0)] = 0.5
    entropy_coef: Annotated[float, Meta(description="weight of the entropy bonus", ge=0)] = 0.01
    value_clip: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="how far a value may move in one round"),
    ] = None
    kl_coef: Annotated[float, Meta(description="weight of the KL to the base", ge=0)] = 0.0
    kl_form: Annotated[
        Literal["k3-loss", "k1-reward"], Meta(description="KL estimate, and what it is added to")
    ] = "k3-loss"
    kl_target: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="KL to the base that the weight adapts to"),
    ] = None
    max_grad_norm: Annotated[float, Meta(description="gradient clipping", gt=0)] = 1.0
    target_kl: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="stop a round's epochs above this KL to the sampler"),
    ] = None
    eval_every: Annotated[
        int, Meta(description="rounds between evaluations on held-out seeds; 0: none", ge=0)
    ] = 0
    eval_episodes: Annotated[int, Meta(description="episodes of an evaluation", ge=1)] = 100
    eval_seed: Annotated[int, Meta(description="seed of an evaluation's first episode", ge=0)] = (
        2_000_000_000
    )
    eval_decoding: Annotated[
        Literal["greedy", "sampled"], Meta(description="how an evaluated policy answers")
    ] = "greedy"
    eval_env: Annotated[
        str | None, Meta(description="environment to evaluate in; default: --env")
    ] = None
    eval_env_arg: Annotated[
        dict[str, Any], Meta(description="K=V for it, over those of --env-arg, repeatable")
    ] = msgspec.field(default_factory=dict)
    keep: Annotated[
        Literal["best", "last"],
        Meta(description="which adapter is registered where rounds were evaluated"),
    ] = "best"
    resume: Annotated[
        str | None,
        Meta(description="go on with a run: `latest`, its id or directory; `never`: begin anew"),
    ] = None
    save_every: Annotated[int, Meta(description="rounds between checkpoints; 0: none", ge=0)] = 5
    keep_checkpoints: Annotated[
        int, Meta(description="newest checkpoints of a run that are kept", ge=1)
    ] = 2
    checkpoint_dir: Annotated[
        str | None, Meta(description="where runs keep checkpoints; default: MODELS_DIR/checkpoints")
    ] = None
    processes: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="training processes; default: one per GPU of --devices, one on a CPU"),
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Meta(description="of the frozen base model's weights")
    ] = "auto"
    attention: Annotated[
        Literal["auto", "sdpa", "flash_attention_2", "eager"],
        Meta(description="attention implementation"),
    ] = "auto"
    compile: Annotated[bool, Meta(description="torch.compile the decoder in updates")] = False
    gradient_checkpointing: Annotated[
        bool, Meta(description="compute activations anew in the backward pass: less memory")
    ] = False


METHODS: dict[str, type[TrainOptions]] = {"sft": SFTOptions, "ppo": PPOOptions}


def parse_options(method: str, values: dict[str, Any]) -> TrainOptions:
    """Make the options of a method from names and values; both `_` and `-` in names.

    Raises:
        OptionError: an unknown method or option (with the nearest name), or a wrong value.
    """
    import difflib

    if method not in METHODS:
        raise OptionError(
            f"unknown training method {method!r}", expected=" | ".join(METHODS), got=method
        )
    kind = METHODS[method]
    named = {name.replace("-", "_"): value for name, value in values.items()}
    for name in named:
        if name not in kind.__struct_fields__:
            near = difflib.get_close_matches(name, kind.__struct_fields__, n=1)
            raise OptionError(
                f"unknown option {name!r} for {method}",
                expected=f"did you mean {near[0]!r}?"
                if near
                else ", ".join(kind.__struct_fields__),
            )
    try:
        if named.get("resume") is not None:
            from simtune.train.resume import NEVER, resumed_values

            named = named if named["resume"] == NEVER else resumed_values(named, kind)
        if msgspec.convert(named.get("follow", False), bool, strict=False):
            named = {"iterations": 0} | named
        options = msgspec.convert(named, kind, strict=False)
    except msgspec.ValidationError as error:
        raise OptionError(f"bad option for {method}: {error}") from error
    if isinstance(options, PPOOptions) and options.iterations == 0 and not options.follow:
        raise OptionError("there would be no round", expected="--iterations of 1 or more")
    if not options.llm_path:
        raise OptionError(
            "no base model is named",
            expected="--llm-path DIR",
            fix="simtune models pull-base tiny --output base-tiny makes one",
        )
    return options
