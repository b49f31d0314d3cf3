"""The code in docs/gym.md runs, from top to bottom."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "gym.md"


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 7
    names = {}
    for block in blocks:
        exec(block, names)
    said = capsys.readouterr().out
    shown = "".join(line[2:] + "\n" for line in blocks[0].splitlines() if line.startswith("# "))
    assert said.startswith(shown)
    assert "down True 4" in said
    assert re.search(r"\d+ of 20 at the goal", said)
