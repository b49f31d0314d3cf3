"""Token in, token out: a prompt goes on from the tokens that were sampled, or is made anew."""

import pytest

import simtune
from simtune.policy.chats import ChatEncoder
from simtune.policy.tiny import build_tokenizer

ASK = [{"role": "system", "content": "play"}, {"role": "user", "content": "hello"}]
MORE = {"role": "user", "content": "go on"}


@pytest.fixture
def tokenizer():
    return build_tokenizer(["hello hello hello"] * 20, vocab_size=280)


@pytest.fixture
def encode(tokenizer):
    return ChatEncoder(tokenizer, [tokenizer.eos_token_id])


def answered(encode, text, token_ids):
    (prompt,) = encode([ASK])
    reply = simtune.Reply(text, prompt_token_ids=prompt, token_ids=token_ids)
    return [*ASK, {"role": "assistant", "content": reply}, MORE]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_two_sampled_tokens_stay_two_though_their_text_is_one(encode, tokenizer):
    pair = ids_of(tokenizer, "he") + ids_of(tokenizer, "llo")
    assert len(pair) > len(ids_of(tokenizer, "hello")) == 1
    (prompt,) = encode([answered(encode, "hello", pair)])
    (first,) = encode([ASK])
    assert prompt[: len(first) + len(pair)] == [*first, *pair]
    assert tokenizer.decode(prompt) == tokenizer.apply_chat_template(
        answered(encode, "hello", pair), tokenize=False, add_generation_prompt=True
    )


@pytest.mark.parametrize("ended", [True, False])
def test_the_end_of_the_turn_stands_there_once(encode, tokenizer, ended):
    sampled = ids_of(tokenizer, "hello") + [tokenizer.eos_token_id] * ended
    (prompt,) = encode([answered(encode, "hello", sampled)])
    plain = [
        {**message, "content": str(message["content"])}
        for message in answered(encode, "hello", sampled)
    ]
    # These tokens are the ones the text has, so both ways agree.
    assert [prompt] == ChatEncoder(tokenizer, [])([plain])


def test_a_template_that_changes_the_answer_is_followed(tokenizer):
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "message['content'].split('</think>')[-1]"
    )
    encode = ChatEncoder(tokenizer, [tokenizer.eos_token_id])
    text = "hm</think>hello"
    chat = answered(encode, text, ids_of(tokenizer, text))
    (prompt,) = encode([chat])
    shown = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert "hm" not in shown
    assert prompt == ids_of(tokenizer, shown)


def test_a_chat_that_was_cut_is_made_anew(encode, tokenizer):
    chat = answered(encode, "hello", ids_of(tokenizer, "hello"))[1:]  # no system message
    (prompt,) = encode([chat])
    shown = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == ids_of(tokenizer, shown)


def test_a_reply_of_another_process_is_recognised_by_its_tokens(encode, tokenizer):
    pair = ids_of(tokenizer, "he") + ids_of(tokenizer, "llo")
    chat = answered(encode, "hello", pair)
    assert ChatEncoder(tokenizer, [tokenizer.eos_token_id])([chat]) == encode([chat])


def test_equal_chats_are_encoded_alike_and_apart(encode):
    first, second = encode([ASK, ASK])
    assert first == second
    first.append(0)
    assert encode([ASK]) == [second]
