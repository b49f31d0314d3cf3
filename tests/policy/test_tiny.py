import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.errors import DataError
from simtune.policy.tiny import build_model, build_tokenizer, fit_to_play, save_base

TEXTS = ["left", "right", "go left", "wall, ice, hole"] * 20
TOKENIZER = build_tokenizer(TEXTS, vocab_size=300)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
@settings(deadline=None)
def test_any_text_survives_the_tokenizer(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    if "<|" not in text:
        assert TOKENIZER.decode(ids) == text


def test_a_known_word_is_one_token():
    assert len(TOKENIZER("left", add_special_tokens=False)["input_ids"]) == 1


def test_a_training_text_begins_with_the_serving_text_and_ends_the_turn():
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "go left"}]
    asked = TOKENIZER.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    whole = TOKENIZER.apply_chat_template(
        [*prompt, {"role": "assistant", "content": "left"}], tokenize=False
    )
    assert asked == "<|system|>s<|end|><|user|>go left<|end|><|assistant|>"
    assert whole == asked + "left<|end|>"


def test_the_model_has_about_a_million_parameters_and_a_seed():
    one, same, other = (build_model(TOKENIZER, seed=seed) for seed in (1, 1, 2))
    assert 0.8e6 < sum(weights.numel() for weights in one.parameters()) < 1.1e6
    weights = [model.get_input_embeddings().weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_fitting_teaches_the_words(tmp_path):
    model = build_model(TOKENIZER)
    played = [
        [{"role": "user", "content": "wall, ice"}, {"role": "assistant", "content": answer}]
        for answer in ("left", "right")
    ]
    losses = []
    last = fit_to_play(
        model, TOKENIZER, played, steps=30, batch_size=8, on_step=lambda *seen: losses.append(seen)
    )
    assert losses[0][2] > 4
    assert last < 0.3
    assert [step for step, _, _ in losses] == list(range(1, 31))
    save_base(model, TOKENIZER, tmp_path / "base")
    from simtune.policy.local import load_base

    loaded, tokenizer = load_base(tmp_path / "base")
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert tokenizer.chat_template == TOKENIZER.chat_template


def test_nothing_to_fit_to_is_an_error():
    with pytest.raises(DataError, match="no conversations"):
        fit_to_play(build_model(TOKENIZER), TOKENIZER, [], steps=1)
