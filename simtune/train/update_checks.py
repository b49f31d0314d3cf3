"""Options of PPO's update that contradict each other, or that nothing would read."""

from __future__ import annotations

from simtune.errors import OptionError
from simtune.train import estimators
from simtune.train.options import PPOOptions

_WITHOUT_KL = ("kl_form", "kl_target")
_WITHOUT_DECOUPLED = ("mismatch_tolerance", "importance_cap")
_WITHOUT_CRITIC = ("critic_learning_rate", "value_coef", "value_clip", "gae_lambda")


def check_update(options: PPOOptions) -> None:
    """Make sure that every option of the update is of use.

    Raises:
        OptionError: it is not, or there is no such estimator.
        PluginError: a plugin's estimator cannot be used.
    """
    estimator = estimators.select(options.estimator)
    if not options.kl_coef:
        _refuse(options, _WITHOUT_KL, "there is no KL to the base without --kl-coef")
    if options.behaviour == "stored":
        _refuse(options, _WITHOUT_DECOUPLED, "--behaviour stored has no importance weights")
    if options.env is not None and estimator.grouped and options.group_size == 1:
        raise OptionError(
            f"--estimator {estimator.name} compares episodes that began alike",
            expected="--group-size 2 or more",
            fix="--group-size 8",
        )
    if options.episodes_per_iteration % options.group_size:
        raise OptionError(
            "a round would end within a group",
            expected="--episodes-per-iteration that --group-size divides",
            got=f"{options.episodes_per_iteration} and {options.group_size}",
        )
    if not estimator.critic:
        if estimator.plugin == "simtune":
            _refuse(options, _WITHOUT_CRITIC, f"--estimator {estimator.name} has no critic")
    elif options.iterations and options.critic_warmup >= options.iterations:
        raise OptionError(
            "every round would train the value head only",
            expected="--critic-warmup below --iterations",
            got=f"{options.critic_warmup} of {options.iterations}",
        )


def _refuse(options: PPOOptions, names: tuple[str, ...], why: str) -> None:
    defaults = PPOOptions()
    for name in names:
        if getattr(options, name) != getattr(defaults, name):
            flag = "--" + name.replace("_", "-")
            raise OptionError(f"{flag} would change nothing: {why}", fix=f"leave {flag} out")
