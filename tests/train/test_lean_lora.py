import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from simtune.train.lean_lora import LeanLinear, make_lean


class Two(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.one = nn.Linear(6, 5, bias=bias)
        self.two = nn.Linear(5, 4, bias=bias)

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))


def adapted(bias=True, **changes):
    torch.manual_seed(0)
    settings = {"r": 2, "lora_alpha": 6, "target_modules": ["one", "two"]} | changes
    model = get_peft_model(Two(bias), LoraConfig(**settings)).eval()
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weights)
    return model


def passed(model):
    torch.manual_seed(1)
    x = torch.randn(2, 3, 6, requires_grad=True)
    out = model(x)
    (out * torch.randn(out.shape)).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return out.detach(), x.grad, grads


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_pefts(bias):
    theirs, ours = adapted(bias), adapted(bias)
    assert make_lean(ours) == 2
    (out, to_x, grads), (expected, expected_x, expected_grads) = passed(ours), passed(theirs)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(to_x, expected_x)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name])


@pytest.mark.parametrize(
    "changes", [{"use_dora": True}, {"lora_bias": True}, {"bias": "lora_only"}]
)
def test_what_is_not_plain_lora_is_left_to_peft(changes):
    theirs, ours = adapted(**changes), adapted(**changes)
    make_lean(ours)
    for one, other in zip(passed(ours)[:2], passed(theirs)[:2], strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_is_applied_where_a_model_is_trained():
    model = adapted(lora_dropout=0.5)
    make_lean(model)
    x = torch.randn(4, 6)
    torch.testing.assert_close(model(x), model(x))
    model.train()
    assert not torch.allclose(model(x), model(x))


def test_without_the_adapter_it_is_the_base():
    model = adapted()
    make_lean(model)
    x = torch.randn(4, 6)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), Two.forward(model.get_base_model(), x))
        base = model.get_base_model().one.base_layer(x)
        torch.testing.assert_close(model.get_base_model().one(x), base)
    assert isinstance(model.get_base_model().one, LeanLinear)


def test_what_is_saved_stays_the_same(tmp_path):
    model = adapted()
    before = set(model.state_dict())
    make_lean(model)
    assert set(model.state_dict()) == before
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
