"""The page on following a store is true: its code runs."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "tailing.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})
