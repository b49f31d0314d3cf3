"""Values read from states that roll-outs computed are those of a pass of their own."""

import pytest
import torch

from simtune.policy.answering import Answering
from simtune.policy.generation import Settings
from simtune.train.episode_turns import EpisodeTurns
from simtune.train.estimators import select
from simtune.train.parallel import Processes
from simtune.train.round_data import RoundData
from simtune.train.seen_states import SeenStates
from simtune.train.survey import survey
from simtune.train.turns import Turn
from tests.train.tiny_models import absolute, actor_critic, layout, rotary

PROMPTS = [[3, 4], [3, 4, 5, 9, 8], [7, 6, 5], [3, 4]]
FINAL = [7, 6, 5, 2, 11]


def sampled(model):
    """A policy answers the prompts in two batches, the second going on from the first."""
    seen = SeenStates()
    answering = Answering(model.policy, 0)
    settings = Settings(
        eos_ids=frozenset({1}), max_new_tokens=2, generator=torch.Generator().manual_seed(0)
    )
    with answering.watched(seen.add):
        for some in (PROMPTS[:1] + PROMPTS[2:], PROMPTS[1:2]):
            answering.sample(some, settings)
    answering.sample([FINAL], settings)
    return seen


def surveyed(model, seen, processes=None, *, final=False):
    turns = [Turn(prompt_ids=ids, action_ids=[5], behaviour_logprobs=[-1.0]) for ids in PROMPTS]
    episode = EpisodeTurns(turns=turns, rewards=[0.0] * 4)
    if final:
        episode.final = Turn(prompt_ids=FINAL)
    data = RoundData([episode], select("gae"), seen=seen)
    return survey(
        model,
        data,
        layout(),
        processes or Processes(),
        critic=True,
        logprobs=False,
        states=True,
    )


def passes(model):
    """Counts forward passes of the decoder from here on."""
    made = []
    model.decoder.register_forward_hook(lambda *_: made.append(1))
    return made


@pytest.mark.parametrize("make", [rotary, absolute])
def test_seen_states_have_the_values_of_a_pass_of_their_own(make):
    model = actor_critic(make)
    computed = surveyed(model, None)
    recalled = surveyed(model, sampled(model))
    assert computed.values.abs().min() > 1e-3
    torch.testing.assert_close(recalled.values, computed.values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(recalled.states, computed.states, atol=1e-5, rtol=1e-5)


def test_only_what_was_not_seen_is_computed():
    model = actor_critic()
    seen = sampled(model)
    made = passes(model)
    surveyed(model, seen)
    assert made == []
    values = surveyed(model, seen, final=True).values
    assert made == [1]
    torch.testing.assert_close(
        values, surveyed(model, None, final=True).values, atol=1e-5, rtol=1e-5
    )


def test_states_that_two_processes_have_seen_count_once():
    class Twice(Processes):
        """Another process that has seen, and computes, the very same."""

        def sum(self, tensor):
            return 2 * tensor

    model = actor_critic()
    recalled = surveyed(model, sampled(model), Twice())
    torch.testing.assert_close(recalled.values, surveyed(model, None).values, atol=1e-5, rtol=1e-5)


def test_nobody_is_shown_anything_outside_the_context():
    model = actor_critic()
    seen = sampled(model)
    entries = RoundData(
        [EpisodeTurns(turns=[Turn(prompt_ids=FINAL, action_ids=[5])], rewards=[0.0])],
        select("gae"),
    ).entries
    assert seen.known(entries) == []
