"""The documentation is true: its code runs, and it leaves out nothing that has a name."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

import simtune
from simtune import hookspecs, plugins
from simtune.cli.main import VERBS
from simtune.records import Row
from simtune.registry import Registry
from simtune.train.options import PPOOptions, SFTOptions, TrainOptions

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
REWARDS = (REPOSITORY / "docs" / "rewards.md").read_text(encoding="utf-8")
TRAINING = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", page, re.S)


@pytest.fixture
def in_new_directory(tmp_path, monkeypatch):
    """An empty directory, a configuration of its own, and plugins found anew afterwards."""
    from simtune import config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "_current", None)
    yield tmp_path
    plugins.reset()


@pytest.fixture
def base_tiny(in_new_directory):
    """What `simtune models pull-base tiny` makes, without its minute of fitting."""
    from simtune.policy.tiny import build_model, build_tokenizer, save_base

    tokenizer = build_tokenizer(["5 buyers. Your price, 1 to 9?"] * 20)
    save_base(build_model(tokenizer), tokenizer, in_new_directory / "base-tiny")


@pytest.mark.usefixtures("base_tiny")
def test_the_readme_runs(in_new_directory, capsys):
    capture, plugin, train = python_blocks(README)
    names = {}
    exec(capture, names)
    assert "'decisions': 40" in capsys.readouterr().out

    (in_new_directory / "fair.py").write_text(plugin)
    command = next(line for line in README.splitlines() if "--plugin fair.py" in line).split()
    scored = subprocess.run(
        [Path(sys.executable).with_name("simtune"), *command[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert scored.returncode == 0, scored.stderr
    assert simtune.read("simtune-data").count()["scores"] == 40 + 40

    exec(train, names)
    (record,) = Registry("models").list()
    assert record.id in capsys.readouterr().out
    assert record.data.episodes == 20
    assert [(used.name, used.weight) for used in record.data.rewards] == [
        ("environment", 1.0),
        ("fair", 0.5),
    ]
    assert record.data.decisions + record.data.skipped.get("invalid decisions", 0) == 20


def test_the_readme_is_short():
    assert sum(len(block.strip().splitlines()) for block in python_blocks(README)) <= 36


def test_the_plugin_of_the_rewards_page_works(in_new_directory, monkeypatch):
    plugin, check = python_blocks(REWARDS)
    (in_new_directory / "mine.py").write_text(plugin)
    monkeypatch.syspath_prepend(in_new_directory)
    try:
        exec(check, {})
        mine = importlib.import_module("mine")
        row = Row(kind="decision", episode_id="e", response="the password is hunter2")
        mine.simtune_decision(row)
        assert row.response == "the password is ***"
    finally:
        sys.modules.pop("mine", None)


def hooks():
    return {
        name: function
        for name, function in vars(hookspecs).items()
        if name.startswith("simtune_") and callable(function)
    }


@pytest.mark.parametrize("name", sorted(hooks()))
def test_every_hook_is_documented_with_its_arguments(name):
    arguments = ", ".join(inspect.signature(hooks()[name]).parameters)
    assert f"\n### `{name}({arguments})`\n" in REWARDS


def test_no_hook_is_documented_that_does_not_exist():
    assert set(re.findall(r"^### `(simtune_\w+)\(", REWARDS, re.M)) == set(hooks())


def test_every_built_in_reward_is_documented():
    from simtune.rewards import builtin

    registered = []
    builtin.simtune_register_rewards(lambda name, reward: registered.append(name))
    section = REWARDS.split("## The built-in ones")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == registered


def documented(heading):
    """Option -> default, as the table under a heading says."""
    section = TRAINING.split(f"\n### {heading}\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `--([a-z-]+)` \| (.*?) ?\| .+ \|$", section, re.M)
    return {name.replace("-", "_"): default for name, default in rows}


def declared(kind, without=()):
    """Option -> default, as the Struct says."""
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.name not in without:
            default = "" if field.default is msgspec.NODEFAULT else field.default
            found[field.name] = "none" if default is None else str(default)
    return found


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("Of both methods", TrainOptions), ("Of sft", SFTOptions), ("Of ppo", PPOOptions)],
)
def test_every_option_is_documented_with_its_default(heading, kind):
    common = () if kind is TrainOptions else TrainOptions.__struct_fields__
    assert documented(heading) == declared(kind, without=common)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_is_in_the_readme(verb):
    assert re.search(rf"^\| `simtune {verb}[ `]", README, re.M)


def test_the_layers_are_those_that_are_enforced():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]["layers"]
    enforced = [line.replace("simtune.", "") for line in contract]
    page = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = page.split("## Layers")[1].split("\n## ")[0]
    shown = re.findall(r"^    ([a-z| ]+?)(?:  .*)?$", section, re.M)
    assert shown == enforced


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []
