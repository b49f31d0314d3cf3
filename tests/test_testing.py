"""The checks for authors: what passes, and that every breach is named."""

import pytest

import simtune
from simtune import Decision, Episode, config, hookimpl, testing
from simtune.errors import DataError, PluginError


@pytest.fixture(autouse=True)
def configured(tmp_path, monkeypatch):
    """No test touches the store of the working directory."""
    monkeypatch.setattr(config, "_current", None)
    monkeypatch.setenv("SIMTUNE_ROOT", str(tmp_path / "before"))


def offering(**rewards):
    class Offering:
        @hookimpl
        def simtune_register_rewards(self, register):
            for name, reward in rewards.items():
                register(name, reward)

    return Offering()


def test_a_good_plugin_passes_and_its_rewards_are_named():
    plugin = offering(
        length=lambda episode: float(len(episode)),
        first_word=lambda episode: [float(bool(d.response.split())) for d in episode.decisions],
    )
    assert testing.check_plugin(plugin) == ["first_word", "length"]


def test_simtunes_own_answers_to_the_same_check():
    from simtune.rewards import builtin

    with pytest.raises(PluginError, match="two rewards are named"):
        testing.check_plugin(builtin)


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda episode: float("nan"), "not finite"),
        (lambda episode: [1.0], "1 scores for an episode of 2 decisions"),
        (lambda episode: "good", "got str"),
        (lambda episode: episode.decisions.clear() or 0.0, "it changes the episode"),
        (lambda episode, calls=[]: calls.append(1) or len(calls), "two calls give two scores"),
    ],
)
def test_a_reward_that_breaks_the_contract_is_named(reward, said):
    with pytest.raises(PluginError, match=f"(?s)reward 'mine' on episode 'ordinary'.*{said}"):
        testing.check_plugin(offering(mine=reward))


def test_a_reward_may_refuse_foreign_episodes_but_not_its_own():
    def speed(episode):
        return 1.0 / episode.metadata["seconds"]

    plugin = offering(speed=speed)
    own = Episode(episode_id="own", metadata={"seconds": 2})
    assert testing.check_plugin(plugin) == ["speed"]
    assert testing.check_plugin(plugin, episodes=[own]) == ["speed"]
    own.metadata = {"seconds": 0}
    with pytest.raises(PluginError, match=r"'own': raised ZeroDivisionError"):
        testing.check_plugin(plugin, episodes=[own])


def test_hooks_are_called_and_every_problem_is_told_at_once():
    class Bad:
        @hookimpl
        def simtune_decision(self, row):
            row.metadata = object()

        @hookimpl
        def simtune_training_metrics(self, step):
            return 1 / (step - 1)

        @hookimpl
        def simtune_register_rewards(self, register):
            register("a name", len)

    with pytest.raises(PluginError) as caught:
        testing.check_plugin(Bad())
    said = str(caught.value)
    assert "simtune_decision leaves a row that cannot be kept" in said
    assert "simtune_training_metrics raised ZeroDivisionError" in said
    assert "reward name 'a name' cannot be used" in said


def test_wrappers_misspellings_and_empty_plugins_are_refused():
    class Wrapping:
        @hookimpl(wrapper=True)
        def simtune_decision(self, row):
            return (yield)

    class Misspelled:
        @hookimpl
        def simtune_decisions(self, row):
            pass

    with pytest.raises(PluginError, match="wrappers are not supported"):
        testing.check_plugin(Wrapping())
    with pytest.raises(PluginError, match="simtune_decisions"):
        testing.check_plugin(Misspelled())
    with pytest.raises(PluginError, match="implements no hook"):
        testing.check_plugin(object())


def play(root):
    with simtune.episode(env="maze", seed=3) as log:
        for reward in (0.0, 1.0):
            log.decision([{"role": "user", "content": "?"}], "left", reward=reward)
        log.finish(terminated=True, outcome={"success": True})


def test_a_good_adapter_passes_and_gives_its_episodes(tmp_path):
    (episode,) = testing.check_adapter(play)
    assert (episode.env, episode.total_reward, episode.success) == ("maze", 1.0, True)
    assert config.current().root == str(tmp_path / "before")
    assert not (tmp_path / "before").exists()


def test_an_adapter_may_use_the_root_it_is_given():
    def simulate(root):
        log = simtune.recording.open_episode(env="maze", root=str(root))
        log.decision([{"role": "user", "content": "?"}], "left", reward=1.0)
        log.finish(truncated=True)

    (episode,) = testing.check_adapter(simulate)
    assert episode.truncated


def test_an_adapter_that_captures_nothing_fails():
    with pytest.raises(DataError, match="no captured decisions"):
        testing.check_adapter(lambda root: None)


def test_everything_wrong_with_an_episode_is_told_at_once():
    def simulate(root):
        with simtune.episode() as log:
            log.decision([{"role": "user"}], "?", valid=False)
            log.finish()

    with pytest.raises(DataError) as caught:
        testing.check_adapter(simulate)
    said = str(caught.value)
    for part in (
        "neither terminated nor truncated",
        "it has no env",
        "nothing to learn from",
        "lacks role or content",
        "invalid without saying why",
    ):
        assert part in said


def test_numbers_of_a_decision_must_fit():
    from simtune.testing.adapters import _decision_problems

    decision = Decision(
        decision_id="d",
        prompt=[{"role": "user", "content": "?"}],
        token_ids=[1, 2],
        logprobs=[0.5],
    )
    assert list(_decision_problems(decision)) == [
        "1 logprobs for 2 tokens",
        "a log-probability is above 0: they are natural logarithms",
    ]
