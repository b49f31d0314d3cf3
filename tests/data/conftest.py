"""A tokenizer with a chat template, trained on the spot."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tokenizer():
    from simtune.policy.tiny import build_tokenizer

    return build_tokenizer(["go left", "go right", "which way?"] * 20, vocab_size=300)
