"""Which rewards there are, and asking for them by name."""

import pytest

from simtune.errors import OptionError, PluginError
from simtune.rewards.registration import collect, select


def constant(episode):
    return 1.0


def test_the_built_in_ones_come_through_the_hook():
    found = collect()
    assert {name for name, each in found.items() if each.plugin == "builtin-rewards"} == {
        "environment",
        "success",
        "valid",
        "length_penalty",
    }
    assert found["valid"].version == "1"


def test_a_plugin_adds_its_own(add_plugin):
    add_plugin("mine", version="2", constant=constant)
    found = collect()["constant"]
    assert (found.version, found.plugin, found.reward) == ("2", "mine", constant)


def test_two_plugins_of_one_reward_name_are_both_named(add_plugin):
    add_plugin("first", constant=constant)
    add_plugin("second", constant=constant)
    with pytest.raises(PluginError, match=r"'constant'.*'(first|second)'.*'(first|second)'"):
        collect()


@pytest.mark.parametrize("name", ["", "a b", "../up", "-x", "x" * 101])
def test_a_name_that_cannot_be_a_directory_is_refused(add_plugin, name):
    add_plugin("mine", **{name: constant})
    assert name not in collect()


def test_a_plugin_that_raises_costs_only_its_own_rewards(add_plugin):
    add_plugin("broken", good=constant, bad="not callable")
    add_plugin("fine", other=constant)
    assert {"good", "other", "valid"} <= set(collect())
    with pytest.raises(OptionError, match=r"(?s)unknown reward 'bad'.*'broken'.*not callable"):
        select(["bad"])


def test_specs_are_names_with_weights():
    chosen = select(["valid=0.5", "success", "length_penalty=-2e-1"])
    assert [(each.name, weight) for each, weight in chosen] == [
        ("valid", 0.5),
        ("success", 1.0),
        ("length_penalty", -0.2),
    ]


def test_nothing_asked_for_is_the_environment():
    assert [(each.name, weight) for each, weight in select([])] == [("environment", 1.0)]


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(OptionError, match=r"(?s)'sucess'.*did you mean 'success'"):
        select(["sucess"])


@pytest.mark.parametrize("spec", ["valid=", "valid=much", "valid=nan", "valid=inf"])
def test_a_weight_is_a_finite_number(spec):
    with pytest.raises(OptionError, match="weight of reward 'valid'"):
        select([spec])


def test_a_reward_counts_once():
    with pytest.raises(OptionError, match="asked for twice"):
        select(["valid", "valid=2"])
