import pytest

from simtune.errors import OptionError
from simtune.train.options import PPOOptions
from simtune.train.update_checks import check_update


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"estimator": "gea"}, "did you mean 'gae'"),
        ({"kl_target": 0.1}, "--kl-target would change nothing: there is no KL"),
        ({"kl_form": "k1-reward"}, "--kl-form would change nothing"),
        ({"behaviour": "stored", "importance_cap": 3.0}, "--importance-cap would change nothing"),
        ({"estimator": "rloo", "value_coef": 1.0}, "--value-coef would change nothing"),
        ({"estimator": "rloo", "env": "lake"}, "compares episodes that began alike"),
        ({"group_size": 5, "episodes_per_iteration": 64}, "a round would end within a group"),
        ({"critic_warmup": 5, "iterations": 5}, "train the value head only"),
    ],
)
def test_options_that_nothing_reads_are_refused(values, said):
    with pytest.raises(OptionError, match=said):
        check_update(PPOOptions(**values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kl_coef": 0.1, "kl_target": 0.02, "kl_form": "k1-reward"},
        {"behaviour": "decoupled", "importance_cap": 3.0},
        {"estimator": "rloo", "critic_warmup": 1, "iterations": 1},
        {"estimator": "group", "env": "lake", "group_size": 8},
        {"estimator": "token-gae", "value_clip": 0.2},
    ],
)
def test_options_that_belong_together_pass(values):
    check_update(PPOOptions(**values))
