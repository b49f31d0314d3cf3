"""Evaluation on held-out seeds in the middle of training, which it does not disturb."""

import pytest
import torch

from simtune.reply import Reply
from simtune.train.options import PPOOptions
from simtune.train.parallel import Processes
from simtune.train.periodic_eval import HeldOut
from tests.train.conftest import DIRECTIONS

GUESSING = "tests.train.guessing:Guessing"


class Repeating:
    """Says the direction that is shown, or another one; counts how it was asked."""

    def __init__(self, right=True):
        self.greedy = False
        self.generator = torch.Generator().manual_seed(0)
        self.right = right
        self.asked = set()
        self.forgot = 0

    def act(self, prompts, choices=None):
        self.asked.add((self.greedy, self.generator.initial_seed()))
        torch.rand(3, generator=self.generator)
        return [Reply(self.answer(chat[-1]["content"])) for chat in prompts]

    def answer(self, text):
        shown = next(way for way in DIRECTIONS if way in text)
        return shown if self.right else DIRECTIONS[DIRECTIONS.index(shown) - 1]

    def forget(self):
        self.forgot += 1


def held_out(policy, **changes):
    given = {"env": GUESSING, "eval_every": 3, "eval_episodes": 5, "num_envs": 2, "iterations": 7}
    return HeldOut(PPOOptions(**(given | changes)), policy, Processes())


def test_it_is_due_before_the_first_round_every_so_many_and_at_the_end():
    assert [done for done in range(8) if held_out(None).due(done)] == [0, 3, 6, 7]
    assert not any(held_out(None, eval_every=0).due(done) for done in range(8))


@pytest.mark.parametrize("decoding", ["greedy", "sampled"])
def test_the_policys_decoding_and_generator_are_as_before(decoding):
    policy = Repeating()
    before = policy.generator.get_state()
    measured = held_out(policy, eval_decoding=decoding, eval_seed=77).measure()
    assert policy.asked == {(decoding == "greedy", 77)}
    assert torch.equal(policy.generator.get_state(), before)
    assert policy.greedy is False
    assert (measured.episodes, measured.seed) == (5, 77)


def test_metrics_have_intervals_and_a_gain_that_is_paired_with_the_start():
    policy = Repeating(right=False)
    watched = held_out(policy)
    first = watched.metrics(watched.measure())
    assert (first["eval_return"], first["eval_success"], first["eval_gain"]) == (0.0, 0.0, 0.0)
    policy.right = True
    later = watched.metrics(watched.measure())
    assert (later["eval_return"], later["eval_success"], later["eval_valid"]) == (2.0, 1.0, 1.0)
    # Wilson's lower limit of 5 in 5: 5 / (5 + 1.96^2).
    assert later["eval_success_low"] == pytest.approx(5 / (5 + 1.959964**2))
    assert later["eval_success_high"] == 1.0
    assert (later["eval_gain"], later["eval_gain_low"]) == (2.0, 2.0)


def test_it_can_be_in_another_environment():
    watched = held_out(Repeating(), env=None, eval_env=GUESSING)
    assert watched.measure().mean_return.estimate == 2.0
