"""Finding plugins, keeping them out, and calling them one at a time."""

import inspect
import sys
import types
from importlib.metadata import EntryPoint

import pytest

from simtune import hookimpl, hookspecs, plugins
from simtune.errors import PluginError

SPECS = sorted(name for name in vars(hookspecs) if name.startswith("simtune_"))


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Every test starts with no plugin loaded, and only simtune's own installed."""
    monkeypatch.delenv("SIMTUNE_PLUGINS", raising=False)
    monkeypatch.delenv("SIMTUNE_BLOCK_PLUGINS", raising=False)
    install(monkeypatch, {"builtin-rewards": "simtune.rewards.builtin"})
    plugins.reset()
    yield
    plugins.reset()


def install(monkeypatch, points):
    """Pretend that these entry points are installed: name -> module."""
    found = [EntryPoint(name, value, plugins.GROUP) for name, value in points.items()]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)


def write(folder, text, name="mine.py"):
    path = folder / name
    path.write_text("from simtune import hookimpl\n" + text)
    return str(path)


DECISION = """
seen = []

@hookimpl
def simtune_decision(row):
    seen.append(row)
"""

RAISING = """
@hookimpl
def simtune_decision(row):
    raise ValueError("no such row")
"""


def test_every_entry_point_is_a_plugin_under_its_name():
    assert plugins.manager().has_plugin("builtin-rewards")
    assert plugins.implemented("simtune_register_rewards")
    assert not plugins.implemented("simtune_decision")


def test_a_file_is_loaded_and_called(tmp_path):
    name = plugins.load(write(tmp_path, DECISION))
    assert name == "mine"
    assert plugins.call_each("simtune_decision", row="row 1") == []
    assert plugins.manager().get_plugin("mine").seen == ["row 1"]


def test_a_module_is_loaded_by_its_name(tmp_path, monkeypatch):
    write(tmp_path, DECISION, "mine_as_module.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert plugins.load("mine_as_module") == "mine_as_module"
    assert plugins.implemented("simtune_decision")
    del sys.modules["mine_as_module"]


def test_loading_again_changes_nothing(tmp_path):
    spec = write(tmp_path, DECISION)
    plugins.load(spec)
    plugins.load(spec)
    plugins.call_each("simtune_decision", row=1)
    assert plugins.manager().get_plugin("mine").seen == [1]


def test_two_files_of_one_name_are_an_error(tmp_path):
    plugins.load(write(tmp_path, DECISION))
    (tmp_path / "other").mkdir()
    with pytest.raises(PluginError, match="two plugins are named 'mine'"):
        plugins.load(write(tmp_path / "other", DECISION))


def test_a_plugin_file_may_be_named_like_a_module_that_exists(tmp_path):
    import json

    plugins.load(write(tmp_path, DECISION, "json.py"))
    assert sys.modules["json"] is json
    assert plugins.implemented("simtune_decision")


@pytest.mark.parametrize("spec", ["missing.py", "no_such_module_anywhere"])
def test_what_does_not_exist_is_an_error(spec):
    with pytest.raises(PluginError, match=spec):
        plugins.load(spec)


@pytest.mark.parametrize("text", ["raise RuntimeError('at import')", "import nothing_here", "("])
def test_a_file_that_fails_on_import_is_an_error_and_leaves_nothing(tmp_path, text):
    with pytest.raises(PluginError, match="fails on import"):
        plugins.load(write(tmp_path, text))
    assert "simtune_plugin_mine" not in sys.modules
    assert not plugins.manager().has_plugin("mine")


def test_a_misspelled_hook_is_an_error_that_lists_the_hooks(tmp_path):
    spec = write(tmp_path, DECISION.replace("simtune_decision", "simtune_decison"))
    with pytest.raises(PluginError, match=r"(?s)'mine'.*simtune_decison.*simtune_decision,"):
        plugins.load(spec)
    assert not plugins.manager().has_plugin("mine")


def test_an_optional_hook_may_be_unknown(tmp_path):
    text = "@hookimpl(optionalhook=True)\ndef simtune_of_another_release():\n    pass\n"
    assert plugins.load(write(tmp_path, text)) == "mine"


def test_a_wrong_argument_is_an_error(tmp_path):
    with pytest.raises(PluginError, match=r"arguments it does not have"):
        plugins.load(write(tmp_path, DECISION.replace("(row)", "(line)")))
    assert not plugins.manager().has_plugin("mine")


def test_an_installed_plugin_with_a_misspelled_hook_is_the_same_error_each_time(
    tmp_path, monkeypatch
):
    text = DECISION.replace("simtune_decision", "simtune_decison")
    write(tmp_path, text, "misspelled_plugin.py")
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, {"wrong": "misspelled_plugin"})
    for _ in range(2):
        with pytest.raises(PluginError, match="SIMTUNE_BLOCK_PLUGINS=wrong"):
            plugins.manager()
    plugins.reset()
    plugins.block(["wrong"])
    assert not plugins.manager().has_plugin("wrong")
    del sys.modules["misspelled_plugin"]


def test_an_installed_plugin_that_does_not_import_costs_only_itself(monkeypatch):
    points = {"broken": "no_such_module_anywhere", "builtin-rewards": "simtune.rewards.builtin"}
    install(monkeypatch, points)
    with pytest.warns(RuntimeWarning, match="plugin 'broken' raised in import"):
        assert plugins.manager().has_plugin("builtin-rewards")
    (failure,) = plugins.first_failures()
    assert (failure.plugin, failure.hook) == ("broken", "import")
    assert "ModuleNotFoundError" in failure.error


def test_block_keeps_a_plugin_out_before_and_after_loading(monkeypatch):
    plugins.block(["builtin-rewards"])
    assert not plugins.implemented("simtune_register_rewards")
    plugins.reset()
    assert plugins.implemented("simtune_register_rewards")
    plugins.block(["builtin-rewards"])
    assert not plugins.implemented("simtune_register_rewards")


def test_the_environment_blocks_and_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMTUNE_BLOCK_PLUGINS", "builtin-rewards, another")
    monkeypatch.setenv("SIMTUNE_PLUGINS", write(tmp_path, DECISION))
    assert not plugins.implemented("simtune_register_rewards")
    assert plugins.implemented("simtune_decision")


def test_what_is_blocked_cannot_be_loaded(tmp_path):
    plugins.block(["mine"])
    with pytest.raises(PluginError, match="'mine' is blocked"):
        plugins.load(write(tmp_path, DECISION))


def test_one_that_raises_does_not_cost_another(tmp_path):
    plugins.load(write(tmp_path, DECISION, "good.py"))
    plugins.load(write(tmp_path, RAISING, "bad.py"))
    expected = plugins.Failure("bad", "simtune_decision", "ValueError: no such row")
    with pytest.warns(RuntimeWarning, match="plugin 'bad' raised in simtune_decision"):
        assert plugins.call_each("simtune_decision", row=1) == [expected]
    # The second failure is counted, not warned about again (warnings are errors in these tests).
    assert plugins.call_each("simtune_decision", row=2) == [expected]
    assert plugins.manager().get_plugin("good").seen == [1, 2]
    assert plugins.failures() == {("bad", "simtune_decision"): 2}


def test_plugins_are_called_in_pluggys_order(tmp_path):
    called = []
    for name, mark in {"a": "trylast=True", "b": "tryfirst=True", "c": "", "d": ""}.items():
        text = f"@hookimpl({mark})\ndef simtune_decision(row):\n    row.append({name!r})\n"
        plugins.load(write(tmp_path, text, f"{name}.py"))
    plugins.call_each("simtune_decision", row=called)
    assert called == ["b", "d", "c", "a"]
    asked = plugins.in_turn("simtune_decision", row=called)
    assert next(asked) == ("b", None)
    assert called == ["b", "d", "c", "a", "b"]


def test_a_hook_takes_only_the_arguments_it_wants(tmp_path):
    text = "ends = []\n@hookimpl\ndef simtune_episode_end(outcome):\n    ends.append(outcome)\n"
    plugins.load(write(tmp_path, text))
    plugins.call_each(
        "simtune_episode_end", episode_id="e", terminated=True, truncated=False, outcome={"a": 1}
    )
    assert plugins.manager().get_plugin("mine").ends == [{"a": 1}]


def test_call_guarded_gives_the_result_or_the_failure():
    assert plugins.call_guarded("p", "h", divmod, 7, 2) == ((3, 1), None)
    result, failure = plugins.call_guarded("p", "h", divmod, 7, 0)
    assert result is None
    assert failure.plugin == "p" and failure.error.startswith("ZeroDivisionError")
    assert plugins.failures() == {("p", "h"): 1}


def test_an_interrupt_is_not_a_plugin_failure():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plugins.call_guarded("p", "h", interrupted)


def test_a_plugin_may_be_any_object():
    class Counting:
        count = 0

        @hookimpl
        def simtune_decision(self, row):
            self.count += row

    plugin = Counting()
    plugins.manager().register(plugin, name="counting")
    plugins.call_each("simtune_decision", row=3)
    assert plugin.count == 3


@pytest.mark.parametrize("name", SPECS)
def test_each_hook_says_when_where_and_what_raising_does(name):
    spec = getattr(hookspecs, name)
    text = inspect.getdoc(spec)
    assert "Called " in text
    assert "thread" in text
    assert "Return value:" in text
    assert "Raising:" in text
    annotations = inspect.get_annotations(spec)
    returned = "Literal[False] | None" if name == "simtune_decision" else "None"
    assert annotations.pop("return") == returned
    assert set(annotations) == set(inspect.signature(spec).parameters)


def test_the_caller_offers_every_hook():
    for name in SPECS:
        assert getattr(plugins.hooks, name).spec is not None
    assert isinstance(hookspecs, types.ModuleType)
