import pytest
import torch

from simtune.train import vocabulary
from simtune.train.vocabulary import Vocabulary
from tests.train.tiny_models import VOCABULARY, rotary


@pytest.mark.parametrize("temperatures", [None, torch.tensor([0.5, 1.0, 2.0, 1.0, 0.7])])
@pytest.mark.parametrize("entropy_gradient", [True, False])
def test_a_piece_at_a_time_is_the_same_with_gradients(monkeypatch, temperatures, entropy_gradient):
    torch.manual_seed(0)
    words = Vocabulary(rotary())
    reads, ids = torch.tensor([4, 0, 0, 3, 1, 2]), torch.tensor([3, 9, 2, 7, 7, 1])
    hidden = torch.randn(5, 32)
    found = []
    for chunk in (2**24, 2 * VOCABULARY):  # all at once; two states at a time
        monkeypatch.setattr(vocabulary, "CHUNK", chunk)
        states = hidden.clone().requires_grad_()
        logprobs, entropy = words.ask(
            states, temperatures, reads, ids, entropy_gradient=entropy_gradient
        )
        assert entropy.requires_grad is entropy_gradient
        total = (logprobs * torch.arange(6)).sum() + (entropy * torch.arange(5)).sum()
        total.backward()
        found.append((logprobs.detach(), entropy.detach(), states.grad))
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(whole, pieces)


def test_no_matrix_of_all_tokens_and_words_is_made(monkeypatch):
    """The largest tensor that is made has as many numbers as a piece may have."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            out = function(*arguments, **(named or {}))
            if isinstance(out, torch.Tensor):
                Largest.seen = max(Largest.seen, out.numel())
            return out

    words = Vocabulary(rotary())
    monkeypatch.setattr(vocabulary, "CHUNK", 40 * VOCABULARY)
    hidden = torch.randn(400, 32, requires_grad=True)
    with Largest():
        logprobs, entropy = words.ask(
            hidden, None, torch.arange(400), torch.zeros(400).long(), entropy_gradient=True
        )
        (logprobs.sum() + entropy.sum()).backward()
    # [400, 32] hidden states are the largest now; [400, 24] logits would hide below them.
    assert Largest.seen == hidden.numel()
    monkeypatch.setattr(vocabulary, "CHUNK", 2)
    words.ask(hidden[:3], None, torch.arange(3), torch.zeros(3).long(), entropy_gradient=True)
