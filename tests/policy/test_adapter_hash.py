"""The hash of an adapter: of its content, the same in memory and on disk, and of nothing else."""

import pytest
import torch
from safetensors.torch import save_file

from simtune.errors import CorruptError
from simtune.policy.adapter_hash import WEIGHTS_FILE, saved_sha256, tensors_sha256

TENSORS = {
    "b.lora_A.weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "a.lora_B.weight": torch.tensor([[1.5], [-2.0]], dtype=torch.bfloat16),
}


@pytest.fixture
def saved(tmp_path):
    save_file(TENSORS, tmp_path / WEIGHTS_FILE, metadata={"format": "pt"})
    return tmp_path


def test_memory_and_disk_have_the_same_hash(saved):
    assert saved_sha256(saved) == tensors_sha256(TENSORS)
    assert tensors_sha256(dict(reversed(TENSORS.items()))) == tensors_sha256(TENSORS)


def test_one_changed_byte_is_another_hash(saved):
    before = saved_sha256(saved)
    path = saved / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert saved_sha256(saved) != before


def test_name_shape_and_type_count():
    zeros = torch.zeros(4)
    hashes = [
        tensors_sha256(one)
        for one in (
            {"a": zeros},
            {"b": zeros},
            {"a": zeros.view(2, 2)},
            {"a": zeros.to(torch.int32)},
        )
    ]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_what_is_no_adapter_is_said(tmp_path, content):
    if content is not None:
        (tmp_path / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(CorruptError, match="a safetensors file"):
        saved_sha256(tmp_path)
