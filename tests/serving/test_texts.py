"""Text is shown as it comes: whole characters, and nothing of a stop text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.policy.tiny import build_tokenizer
from simtune.serving.texts import TextSoFar
from simtune.serving.tokens import TokenTexts

TOKENIZER = build_tokenizer(["left right up down, é and ☃"] * 10, vocab_size=300)


def encoded(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def shown(ids, stop=()):
    """The pieces that a stream shows, and how many tokens it took."""
    text, pieces, taken = TextSoFar(TOKENIZER, stop), [], []
    for token in ids:
        taken.append(token)
        ended = text.add(token)
        pieces.append(text.news())
        if ended:
            break
    pieces.append(text.rest(taken))
    assert text.whole(taken) == "".join(pieces)
    return pieces, len(taken)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_the_pieces_are_the_text(text):
    pieces, _ = shown(encoded(text))
    assert "".join(pieces) == TOKENIZER.decode(encoded(text), skip_special_tokens=True)


def test_half_a_character_is_not_shown():
    pieces, _ = shown(encoded("x猫"))
    assert [piece for piece in pieces if piece] == ["x", "猫"]


@pytest.mark.parametrize("said", ["left STOP right", "leftSTOP", "left S", "STOP", "left STO"])
def test_nothing_of_a_stop_text_is_shown(said):
    ids = encoded(said)
    pieces, _ = shown(ids, stop=["STOP", "END"])
    assert "".join(pieces) == said.partition("STOP")[0]


def test_the_first_of_several_stop_texts_counts():
    assert (
        shown(encoded("up down left"), stop=["left", "down"])[0]
        == shown(encoded("up down left"), stop=["down"])[0]
    )
    assert "".join(shown(encoded("up down left"), stop=["left", "down"])[0]) == "up "


def test_no_token_is_drawn_after_a_stop_text():
    ids = encoded("up down left")
    assert shown(ids, stop=["down"])[1] == len(encoded("up down"))


def test_the_bytes_of_tokens_spell_the_text():
    texts = TokenTexts(TOKENIZER)
    ids = encoded("é ☃ up 猫")
    spelt = bytes(byte for token in ids for byte in texts(token)[1])
    assert spelt.decode() == "é ☃ up 猫"
    assert "\ufffd" in "".join(texts(token)[0] for token in ids)  # a part of a character
