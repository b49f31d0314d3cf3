import pytest
import torch

from simtune import hookimpl, plugins
from simtune.errors import OptionError, PluginError
from simtune.train.advantages import Estimate
from simtune.train.episode_turns import EpisodeTurns
from simtune.train.estimators import collect, select
from simtune.train.round_data import RoundData
from simtune.train.turns import Turn


@pytest.fixture
def plugged():
    """Registers an object as a plugin, and takes it out again."""
    added = []

    def register(plugin):
        plugins.manager().register(plugin, name="mine")
        added.append(plugin)

    yield register
    for plugin in added:
        plugins.manager().unregister(plugin)


class Baseline:
    """Reward minus the mean reward of the round."""

    @hookimpl
    def simtune_register_estimators(self, register):
        register("baseline", self.estimate, per="decision", critic=False)

    def estimate(self, traces, *, gamma, gae_lambda):
        rewards = [reward for trace in traces for reward in trace.rewards]
        mean = sum(rewards) / len(rewards)
        return [
            Estimate([r - mean for r in trace.rewards], list(trace.rewards)) for trace in traces
        ]


def rounds():
    turn = Turn(prompt_ids=[3], action_ids=[5, 6])
    return [EpisodeTurns(turns=[turn], rewards=[1.0]), EpisodeTurns(turns=[turn], rewards=[4.0])]


def assign(data):
    return data.credit(torch.zeros(2), None, gamma=1.0, gae_lambda=1.0, whitened=False)


def test_the_built_in_ones():
    assert {name: (one.per, one.critic) for name, one in collect().items()} == {
        "gae": ("decision", True),
        "token-gae": ("token", True),
        "rloo": ("decision", False),
        "group": ("decision", False),
    }


def test_a_plugins_estimator_gives_the_advantages(plugged):
    plugged(Baseline())
    registered = select("baseline")
    assert (registered.plugin, registered.critic) == ("mine", False)
    found = assign(RoundData(rounds(), registered))
    assert found.advantages.tolist() == [-1.5, -1.5, 1.5, 1.5]


def test_a_misspelled_estimator_is_named():
    with pytest.raises(OptionError, match="did you mean 'token-gae'"):
        select("token_gae")


def test_a_name_that_is_taken_is_refused(plugged):
    class Taken:
        @hookimpl
        def simtune_register_estimators(self, register):
            register("gae", lambda traces, **settings: [])

    plugged(Taken())
    with pytest.raises(PluginError, match="two advantage estimators are named 'gae'"):
        select("gae")


def test_an_estimator_that_is_none_is_refused(plugged):
    class Broken:
        @hookimpl
        def simtune_register_estimators(self, register):
            register("broken", None)

    plugged(Broken())
    with pytest.raises(PluginError, match="'broken' of plugin 'mine' cannot be used"):
        select("gae")


def test_an_estimator_that_forgets_a_step_is_refused(plugged):
    class Short:
        @hookimpl
        def simtune_register_estimators(self, register):
            register("short", lambda traces, **settings: [Estimate([0.0], [0.0])])

    plugged(Short())
    with pytest.raises(PluginError, match="'short' gave other counts"):
        assign(RoundData(rounds(), select("short")))
