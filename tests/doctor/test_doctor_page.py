"""docs/doctor.md has every code with its levels, and no other."""

import re
from pathlib import Path

from simtune.doctor import CHECKS, CODES

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
SOURCES = Path(__file__).parents[2] / "simtune" / "doctor"


def test_every_code_is_on_the_page_with_its_levels():
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z ]+) \| .+ \| .+ \|$", PAGE, re.M)
    assert {code: tuple(levels.split(" or ")) for code, levels in rows} == CODES
    assert len(rows) == len(CODES)


def test_every_code_can_be_found_by_some_check():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES.glob("*.py"))
    assert [code for code in CODES if text.count(f'"{code}"') < 2] == []


def test_no_code_is_the_name_of_a_check():
    assert set(CODES).isdisjoint(CHECKS)
