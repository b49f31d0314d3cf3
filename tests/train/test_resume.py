"""`--resume`: which run, and that it is the same run."""

import os
import re

import msgspec
import pytest

from simtune.errors import DataError, OptionError
from simtune.registry import DataSeen
from simtune.train import resume
from simtune.train.logged_source import LoggedSource
from simtune.train.options import PPOOptions, parse_options
from tests.train.test_checkpoints import save

BEGAN = {"llm_path": "base", "env": "E", "lora_r": 4, "iterations": 8, "env_arg": {"size": 4}}


@pytest.fixture
def root(tmp_path):
    """Two runs: `abc1`, and `abd2`, which is the newer one."""
    for age, run in ((100, "abc1"), (50, "abd2")):
        options = msgspec.to_builtins(PPOOptions(**BEGAN, models_dir=str(tmp_path), seed=age))
        path = save(tmp_path / "checkpoints" / run, 3, options=options, run_id=run)
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return tmp_path


def parse(root, **given):
    return parse_options("ppo", {"models_dir": str(root)} | given)


@pytest.mark.parametrize(("wanted", "run"), [("latest", "abd2"), ("abc", "abc1"), ("abd2", "abd2")])
def test_a_run_is_named_as_latest_or_by_the_beginning_of_its_id(root, wanted, run):
    assert parse(root, resume=wanted).resume == str(root / "checkpoints" / run)


def test_a_run_is_named_by_its_directory_from_anywhere(root):
    path = str(root / "checkpoints" / "abc1")
    assert parse_options("ppo", {"resume": path}).models_dir == str(root)


@pytest.mark.parametrize(
    ("wanted", "said"), [("ab", "'ab' begins 2 runs"), ("x", "no run 'x' to resume")]
)
def test_other_names_list_the_runs(root, wanted, said):
    with pytest.raises(OptionError, match=rf"(?s){said}.*abc1, abd2"):
        parse(root, resume=wanted)


def test_without_checkpoints_it_says_where_it_looked(tmp_path):
    where = re.escape(str(tmp_path / "checkpoints"))
    with pytest.raises(OptionError, match=f"no checkpoints in {where}"):
        parse(tmp_path, resume="latest")


def test_its_options_are_those_it_began_with(root):
    options = parse(root, resume="latest")
    assert (options.llm_path, options.lora_r, options.seed) == ("base", 4, 50)
    assert options.env_arg == {"size": 4}


def test_more_rounds_may_be_asked_for(root):
    options = parse(root, resume="latest", iterations="20", save_every=1)
    assert (options.iterations, options.save_every, options.lora_r) == (20, 1, 4)


def test_the_same_option_given_again_is_no_change(root):
    assert parse(root, resume="latest", lora_r="4", env_arg={"size": 4}).lora_r == 4


def test_changed_options_are_listed_with_both_values(root):
    with pytest.raises(OptionError) as caught:
        parse(root, resume="latest", lora_r=8, gamma=0.5, iterations=30)
    assert "expected: --gamma 0.99  --lora-r 4\n" in str(caught.value)
    assert "got: --gamma 0.5  --lora-r 8\n" in str(caught.value)
    assert "May change: --checkpoint-dir, --description" in str(caught.value)


def test_options_made_in_python_are_held_against_the_checkpoint_too(root):
    run = str(root / "checkpoints" / "abc1")
    same = PPOOptions(**BEGAN, models_dir=str(root), seed=100, resume=run)
    assert resume.checkpoint_of(run, same, "ppo").state.round == 3
    with pytest.raises(OptionError, match=r"(?s)--seed 100.*--seed 7"):
        resume.checkpoint_of(run, msgspec.structs.replace(same, seed=7), "ppo")


def test_another_machine_is_named_in_a_warning():
    before = {"torch": "2.13", "threads": "1"}
    resume.warn_of_changes(before, dict(before))
    with pytest.warns(RuntimeWarning, match=r"another threads 1 -> 8; its result may differ"):
        resume.warn_of_changes(before, before | {"threads": "8"})


def test_logged_data_that_grew_cannot_be_gone_on_with():
    def source(digest):
        made = object.__new__(LoggedSource)
        made._seen = DataSeen(source="store", root="data", digest=digest)
        return made

    source("a").load_state_dict(source("a").state_dict())
    with pytest.raises(DataError, match=r"(?s)has changed since.*digest a.*b in data"):
        source("b").load_state_dict(source("a").state_dict())
