import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE

from simtune.train.packing import prepare, states
from simtune.train.turns import Turn
from tests.train.tiny_models import batches


def test_exactly_the_sampled_tokens_are_asked_for():
    turns = [Turn(prompt_ids=[3, 4], action_ids=[5]), Turn(prompt_ids=[6], action_ids=[7, 1])]
    (batch,) = batches(turns)
    assert sorted(zip(batch.units.tolist(), batch.asked_ids.tolist(), strict=True)) == [
        (0, 5), (1, 7), (2, 1),
    ]  # fmt: skip
    assert batch.sampled == 3
    # The last token of an answer is predicted, not computed: rows 3 4 and 6 7.
    assert sorted(batch.input_ids.tolist()) == [[3, 4], [6, 7]]
    assert batch.position_ids is batch.attention_mask is None


def test_what_he_llo_sampled_as_two_tokens_is_trained_as_two_tokens():
    """Decoding and encoding again would make one token of it: another action, never sampled."""
    words = ["h", "e", "l", "o", "he", "lo", "llo", "hello"]
    merges = [("h", "e"), ("l", "o"), ("l", "lo"), ("he", "llo")]
    tokenizer = Tokenizer(BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.decoder = Fuse()
    he, llo, hello = (tokenizer.token_to_id(word) for word in ("he", "llo", "hello"))
    assert tokenizer.encode("hello").ids == [hello]
    assert tokenizer.decode([he, llo]) == "hello"
    (batch,) = batches([Turn(prompt_ids=[3], action_ids=[he, llo])])
    assert batch.asked_ids.tolist() == [he, llo]


def test_packed_rows_count_anew_and_have_no_padding():
    turns = [Turn(prompt_ids=[3, 4, 9], action_ids=[5]), Turn(prompt_ids=[6], action_ids=[7, 1])]
    (batch,) = batches(turns, packed=True)
    assert batch.input_ids.tolist() == [[3, 4, 9, 6, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.tokens == 5


def test_decisions_of_one_chat_share_its_row():
    turns = [
        Turn(prompt_ids=[3, 4], action_ids=[5]),
        Turn(prompt_ids=[3, 4, 5, 8, 8], action_ids=[6, 1]),
    ]
    (batch,) = batches(turns)
    assert batch.input_ids.tolist() == [[3, 4, 5, 8, 8, 6]]
    # 5 from place 1, 6 and 1 from places 4 and 5; values at the ends of both prompts.
    assert batch.reads[batch.asked_reads].tolist() == [1, 4, 5]
    assert batch.value_places.tolist() == [1, 4]


def test_equal_decisions_are_computed_once_and_counted_each():
    turns = [Turn(prompt_ids=[3, 4], action_ids=[5])] * 3
    (batch,) = batches(turns)
    assert batch.input_ids.tolist() == [[3, 4]]
    assert batch.reads.tolist() == [1]
    assert batch.units.tolist() == [0, 1, 2]


def test_a_place_is_read_once_per_temperature():
    turns = [Turn(prompt_ids=[3], action_ids=[5], temperature=t) for t in (0.5, 1.0, 0.5)]
    (batch,) = batches(turns)
    assert batch.reads.tolist() == [0, 0]
    assert batch.temperatures[batch.asked_reads].tolist() == [0.5, 1.0, 0.5]


def test_states_are_prompts_alone():
    entries = prepare([Turn(prompt_ids=[3, 4], action_ids=[5, 6])])
    (state,) = states(entries)
    assert (state.turn.prompt_ids, state.turn.units, state.values) == ([3, 4], 0, 1)


def test_batches_hold_the_budget_and_every_unit_once():
    generator = torch.Generator().manual_seed(0)
    turns = [
        Turn(
            prompt_ids=torch.randint(2, 20, (int(n),), generator=generator).tolist(),
            action_ids=[5, 6],
        )
        for n in torch.randint(1, 30, (40,), generator=generator)
    ]
    made = batches(turns, 64)
    assert all(batch.input_ids.numel() <= 64 for batch in made)
    assert sorted(unit for batch in made for unit in batch.units.tolist()) == list(range(80))
    padding = sum(batch.input_ids.numel() - batch.tokens for batch in made)
    assert padding / sum(batch.tokens for batch in made) < 0.1
