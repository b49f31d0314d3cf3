"""A model small enough to train in a second: 2 layers of width 32, about 40k parameters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

DIRECTIONS = ("left", "right", "up", "down")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small only lose by sharing their work among threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mlflow_directory(tmp_path_factory):
    """Makes directories for MLflow; its tables take seconds to make, a copy of them does not."""
    from simtune.train.tracking import Tracker

    with Tracker("t", str(tmp_path_factory.mktemp("mlflow"))) as tracker:
        database = Path(tracker.uri.removeprefix("sqlite:///"))

    def make(parent: Path) -> str:
        (parent / "mlruns" / "artifacts").mkdir(parents=True)
        shutil.copy(database, parent / "mlruns" / database.name)
        return str(parent / "mlruns")

    return make


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory) -> Path:
    """A Llama with random weights and its tokenizer, in Hugging Face format."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from simtune.policy.tiny import build_tokenizer, save_base

    texts = [f"go {way}" for way in DIRECTIONS for _ in range(50)]
    tokenizer = build_tokenizer(texts, vocab_size=300)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            # Adapters cannot lift a probability far over a frozen output matrix of small numbers.
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    output = tmp_path_factory.mktemp("tiny") / "base"
    save_base(model, tokenizer, output)
    return output
