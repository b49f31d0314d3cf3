"""The code in docs/policies.md runs, from top to bottom."""

import re
from pathlib import Path

from simtune.policy.tiny import build_model, build_tokenizer, save_base

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tokenizer = build_tokenizer(["left hole, down ice"] * 20, vocab_size=280)
    save_base(build_model(tokenizer), tokenizer, tmp_path / "base-tiny")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["reply"] in ("left", "down")
    assert "('left', 'down')" in capsys.readouterr().out
