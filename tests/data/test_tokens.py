"""Tokens: the prompt that serving gives, loss on the answer alone, captured ids untouched."""

from __future__ import annotations

import pytest

from simtune.data.samples import Sample
from simtune.data.tokens import IGNORED, encode, prompt_ids, tokenise
from simtune.errors import DataError

PROMPT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "which way?"}]


def sample(**fields) -> Sample:
    return Sample(**({"prompt": PROMPT, "response": "go left", "origin": "row 1"} | fields))


def test_the_prompt_is_token_for_token_what_serving_gives(tokenizer):
    from simtune.policy.chats import ChatEncoder

    serving = ChatEncoder(tokenizer, ends=[tokenizer.eos_token_id])([PROMPT])[0]
    assert prompt_ids(tokenizer, PROMPT) == serving
    made = tokenise(tokenizer, [sample()], max_length=512)
    assert made.input_ids[0][: len(serving)] == serving


def test_loss_is_on_the_answer_and_its_end_only(tokenizer):
    made = tokenise(tokenizer, [sample()], max_length=512)
    trained = [label for label in made.labels[0] if label != IGNORED]
    assert tokenizer.decode(trained) == "go left<|end|>"
    assert trained[-1] == tokenizer.eos_token_id
    start = len(prompt_ids(tokenizer, PROMPT))
    assert made.labels[0][:start] == [IGNORED] * start
    assert made.labels[0][start:] == made.input_ids[0][start:]


def test_the_whole_sample_reads_as_the_template_writes_a_finished_conversation(tokenizer):
    made = tokenise(tokenizer, [sample()], max_length=512)
    whole = [*PROMPT, {"role": "assistant", "content": "go left"}]
    assert tokenizer.decode(made.input_ids[0]) == tokenizer.apply_chat_template(
        whole, tokenize=False
    )


def test_captured_ids_are_used_as_they_are(tokenizer):
    """The sampler may have split a word in another way than the tokenizer would."""
    letters = [tokenizer.convert_tokens_to_ids(c) for c in ("g", "o", "Ġ", "l", "e", "f", "t")]
    prompt = prompt_ids(tokenizer, PROMPT)
    captured = encode(tokenizer, sample(prompt_token_ids=prompt, token_ids=letters))
    assert (captured.prompt_ids, captured.response_ids) == (prompt, letters)
    anew = encode(tokenizer, sample()).response_ids
    assert anew != [*letters, tokenizer.eos_token_id]
    made = tokenise(
        tokenizer,
        [sample(prompt_token_ids=prompt, token_ids=letters), sample()],
        max_length=512,
    )
    assert made.captured == 1
    assert made.labels[0][len(prompt) :] == letters


@pytest.mark.parametrize("ids", [[5, 6, 7], [100_000]])
def test_another_tokenizers_ids_give_way_to_the_text(tokenizer, ids):
    made = encode(tokenizer, sample(prompt_token_ids=[1, 2], token_ids=ids))
    assert not made.captured
    assert made == encode(tokenizer, sample())


def test_longer_samples_are_dropped_and_counted(tokenizer):
    short, long = sample(), sample(response="go left " * 50)
    limit = len(tokenise(tokenizer, [short], max_length=512).input_ids[0])
    made = tokenise(tokenizer, [short, long, long], max_length=limit)
    assert (len(made.input_ids), made.dropped, made.truncated) == (1, 2, 0)
    with pytest.raises(DataError, match="all 1 are longer than"):
        tokenise(tokenizer, [long], max_length=limit)


def test_cutting_takes_the_beginning_of_the_prompt_first(tokenizer):
    whole = tokenise(tokenizer, [sample()], max_length=512)
    limit = len(whole.input_ids[0]) - 5
    made = tokenise(tokenizer, [sample()], max_length=limit, excess_length="truncate")
    assert made.truncated == 1
    assert made.input_ids[0] == whole.input_ids[0][5:]
    assert made.labels[0] == whole.labels[0][5:]


def test_an_answer_too_long_alone_loses_its_end(tokenizer):
    long = sample(response="go left " * 50)
    made = tokenise(tokenizer, [long], max_length=8, excess_length="truncate")
    assert len(made.input_ids[0]) == 8
    assert made.labels[0][0] == IGNORED
    assert made.labels[0][1:] == encode(tokenizer, long).response_ids[:7]


def test_raise_names_the_sample(tokenizer):
    with pytest.raises(DataError, match="'row 1' is too long"):
        tokenise(tokenizer, [sample()], max_length=8, excess_length="raise")
