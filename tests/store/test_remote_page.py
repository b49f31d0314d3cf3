"""The page on stores behind a URL is true: its code runs, and it names what a URL may say."""

import re
from pathlib import Path

from simtune import config
from simtune.store import remote

PAGE = (Path(__file__).parents[2] / "docs" / "remote.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(root, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "_current", config.Config(local=str(tmp_path)))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(block, {})


def test_every_parameter_of_an_s3_url_is_named():
    section = PAGE.split("\n## S3\n")[1].split("\n## ")[0]
    for name in (*remote._S3_TEXT, *remote._S3_SECONDS):
        assert name in section
    assert f"`connect_timeout` ({remote._CONNECT_SECONDS:.0f})" in section
    assert f"`request_timeout` ({remote._REQUEST_SECONDS:.0f})" in section
