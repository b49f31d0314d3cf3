"""Episodes to score."""

import pytest

from simtune import Decision, Episode, plugins


@pytest.fixture(autouse=True)
def fresh_plugins():
    plugins.reset()
    yield
    plugins.reset()


@pytest.fixture
def make_episode():
    def make(rewards=(0.0, 1.0), *, success=None, responses=None, valid=None, episode_id="e"):
        count = len(rewards)
        decisions = [
            Decision(decision_id=f"w-{i}", step=i, response=response, valid=ok, reward=reward)
            for i, (reward, response, ok) in enumerate(
                zip(rewards, responses or ["left"] * count, valid or [True] * count, strict=True)
            )
        ]
        outcome = {} if success is None else {"success": success}
        return Episode(episode_id=episode_id, decisions=decisions, ended=True, outcome=outcome)

    return make


@pytest.fixture
def add_plugin():
    """Register a plugin that offers rewards: name -> callable."""
    from simtune import hookimpl

    def add(plugin_name, *, version="1", **rewards):
        class Offering:
            @hookimpl
            def simtune_register_rewards(self, register):
                for name, reward in rewards.items():
                    register(name, reward, version=version)

        plugins.manager().register(Offering(), name=plugin_name)

    return add
