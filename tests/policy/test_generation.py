import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from simtune.policy.generation import Settings, sample
from simtune.policy.stopping import Stops

EOS = 1


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=0,
        )
    ).eval()


def draw(model, prompts, **settings):
    defaults = {"eos_ids": frozenset([EOS]), "max_new_tokens": 6}
    return sample(model, prompts, Settings(**(defaults | settings)), pad_id=0)


def test_greedy_equals_transformers_generate(model):
    prompts = [[3, 4, 5], [6, 7, 8]]
    mine = draw(model, prompts, greedy=True)
    theirs = model.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(2, 3, dtype=torch.long),
        do_sample=False,
        max_new_tokens=6,
    )
    for answer, row in zip(mine, theirs[:, 3:].tolist(), strict=True):
        assert answer.token_ids == row[: len(answer.token_ids)]


def test_logprobs_are_those_of_a_full_pass_at_the_temperature(model):
    (answer,) = draw(model, [[3, 4]], temperature=0.6, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[3, 4, *answer.token_ids]])
    with torch.no_grad():
        scores = (model(ids).logits[0] / 0.6).log_softmax(-1)
    expected = [scores[1 + t, token].item() for t, token in enumerate(answer.token_ids)]
    assert answer.logprobs == pytest.approx(expected, abs=1e-4)


def test_an_answer_does_not_depend_on_its_neighbours_in_the_batch(model):
    prompts = [[3, 4, 5, 6, 7, 8], [9], [10, 11]]
    together = draw(model, prompts, greedy=True)
    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = draw(model, [prompt], greedy=True)
        assert answer.token_ids == alone.token_ids
        assert answer.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_the_end_is_kept_where_it_was_sampled_and_not_invented_at_the_limit(model):
    answers = draw(
        model, [[i] for i in range(2, 18)] * 8, generator=torch.Generator().manual_seed(0)
    )
    ended = [answer for answer in answers if answer.token_ids[-1] == EOS]
    cut = [answer for answer in answers if answer.token_ids[-1] != EOS]
    assert ended
    assert cut
    assert all(EOS not in answer.token_ids[:-1] for answer in ended)
    assert all(len(answer.token_ids) == 6 for answer in cut)
    assert all(len(answer.token_ids) == len(answer.logprobs) for answer in answers)


def test_sampling_follows_the_distribution(model):
    with torch.no_grad():
        chances = model(torch.tensor([[5]])).logits[0, -1].softmax(-1)
    answers = draw(
        model, [[5]] * 4000, max_new_tokens=1, generator=torch.Generator().manual_seed(2)
    )
    counts = torch.bincount(torch.tensor([a.token_ids[0] for a in answers]), minlength=20) / 4000
    torch.testing.assert_close(counts, chances, atol=0.03, rtol=0)


def test_an_answer_that_holds_a_stop_text_ends_there_with_all_its_tokens(model):
    texts = {3: "go", 4: " Observ", 5: "ation"}

    class Decoder:
        def decode(self, ids, skip_special_tokens):
            return "".join(texts.get(one, "x") for one in ids)

    stops = Stops(Decoder(), ["Observation", "!"])
    assert [stops([3, 4]), stops([3, 4, 5]), stops([])] == [False, True, False]
    assert stops.before("go Observation: 3!") == "go "
    assert stops.before("go") == "go"
    (cut,) = draw(model, [[7]], stopped=lambda ids: len(ids) == 2, greedy=True)
    (whole,) = draw(model, [[7]], greedy=True)
    assert cut.token_ids == whole.token_ids[:2]
