"""What identifies an adapter: a hash of its tensors, the same in memory and on disk.

Every decision carries this hash in the column `adapter`, and the registry's records in
`weights_sha256`, so the store knows which weights made which decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtune.errors import CorruptError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

WEIGHTS_FILE = "adapter_model.safetensors"

_TORCH_NAMES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "F8_E4M3": "torch.float8_e4m3fn",
    "F8_E5M2": "torch.float8_e5m2",
    "I64": "torch.int64",
    "I32": "torch.int32",
    "I16": "torch.int16",
    "I8": "torch.int8",
    "U8": "torch.uint8",
    "BOOL": "torch.bool",
}
"""Torch's names of the types in a safetensors file."""


def adapter_sha256(model: PeftModel) -> str:
    """Content hash of an adapter's tensors: equal weights have equal hashes, in memory or saved."""
    from peft import get_peft_model_state_dict

    return tensors_sha256(get_peft_model_state_dict(model))


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over name, dtype, shape and bytes of each tensor, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(_heading(name, str(tensor.dtype), tensor.shape))
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def saved_sha256(adapter_dir: str | Path) -> str:
    """The same hash of an adapter in PEFT's format, read without torch.

    Raises:
        CorruptError: the weights are not there, or not a safetensors file.
    """
    from safetensors import SafetensorError, deserialize

    read: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = deserialize
    path = Path(adapter_dir) / WEIGHTS_FILE
    try:
        tensors = dict(read(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise CorruptError(
            f"the adapter's weights in {str(path)!r} cannot be read",
            expected="a safetensors file",
            got=error,
        ) from error
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        kind = _TORCH_NAMES.get(tensor["dtype"], tensor["dtype"])
        digest.update(_heading(name, kind, tensor["shape"]))
        digest.update(tensor["data"])
    return digest.hexdigest()


def _heading(name: str, dtype: str, shape: torch.Size | list[int]) -> bytes:
    return f"{name}|{dtype}|{tuple(shape)}|".encode()
