"""`redact=` and plugins: what is kept out of a store is in none of its files."""

import re

import msgspec
import numpy as np
import pytest
from read_back import said

import simtune
from simtune.errors import OptionError, RedactionError
from simtune.recording.guard import failures, left_out
from simtune.recording.redaction import TextRules
from simtune.records import Row

SECRET = 'sk-Zürich\n"7"'
TOKENS = [70_001, 70_002, 70_003]
REPLY = simtune.Reply(
    f"the key is {SECRET}",
    prompt_token_ids=TOKENS,
    token_ids=TOKENS,
    logprobs=[-0.5] * 3,
    sampling={"temperature": 1.0, "choice_token_ids": [TOKENS]},
    choices=["stay", f"use {SECRET}"],
    choice_logprobs=[-0.5, -1.0],
)


def everything_written(root):
    """The bytes of every file, and each value of the Parquet files, which are compressed."""
    log = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    shown = repr(simtune.read(root).decisions().to_pylist()).encode()
    shown += b"".join(map(msgspec.json.encode, simtune.read(root).episodes()))
    return log + shown


def spellings(secret):
    packed = np.array(TOKENS, np.int32).tobytes()
    listed = msgspec.msgpack.encode(TOKENS)[1:]
    yield from (packed, listed, b"70001", b"70002")
    for form in (secret, repr(secret)[1:-1], msgspec.json.encode(secret).decode()[1:-1]):
        yield form.encode()


def leak(secret=SECRET, **options):
    """A simulation that lets its secret slip wherever it can."""

    @simtune.capture(**options)
    def ask(messages, **more):
        return REPLY

    @simtune.capture(**options)
    def fail(prompt):
        raise PermissionError(f"{secret} was refused")

    message = {"role": "user", "content": f"say {secret}", "note": {secret: [secret]}}
    parts = {"role": "user", "content": [{"type": "text", "text": secret}]}
    with pytest.raises(PermissionError), simtune.episode(agent="a") as log:
        ask([message, parts])
        log.decision(
            f"about {secret}",
            {"move": secret},
            parsed={"move": [secret, 3]},
            observation={"seen": {"key": secret}},
            metadata={secret: 1},
            extra={"why": f"as {secret} said"},
            redact=log_rules(options),
        )
        fail("no secret here")


def log_rules(options):
    rules = options.get("redact")
    return () if rules is None else (TextRules(list(rules)),)


@pytest.mark.parametrize("rule", [SECRET, re.compile(r'sk-\w+\s*"7"|sk-\w+\\n\\+"7\\+"')])
@pytest.mark.parametrize("where", ["decorator", "configure"])
def test_a_secret_is_in_no_file(store, rule, where):
    if where == "configure":
        simtune.configure(redact=[rule])
        leak()
    else:
        leak(redact=[rule])
    *_, failed = store.rows("decision")
    assert failed.error == "PermissionError: [redacted] was refused"
    assert store.only("episode_end").error == failed.error
    written = everything_written(store.root)
    assert [form for form in spellings(SECRET) if form in written] == []
    assert b"[redacted]" in written


def test_without_rules_the_same_search_finds_it(store):
    leak()
    store.rows()
    written = everything_written(store.root)
    found = {form for form in spellings(SECRET) if form in written}
    assert {SECRET.encode(), np.array(TOKENS, np.int32).tobytes(), b"70001"} <= found


def test_everything_else_stays(store):
    @simtune.capture(redact=[SECRET])
    def ask(messages):
        return REPLY

    ask([{"role": "user", "content": f"say {SECRET}!"}])
    row = store.only()
    assert row.prompt == [{"role": "user", "content": "say [redacted]!"}]
    assert (row.response, row.choices) == ("the key is [redacted]", ["stay", "use [redacted]"])
    assert (row.prompt_token_ids, row.token_ids, row.logprobs) == ([], [], [])
    assert row.choice_logprobs == [-0.5, -1.0]
    assert said(row.sampling) == {"temperature": 1.0}
    assert said(row.extra) == {
        "changed": ["prompt", "response", "choices"],
        "tokens": "left out: the text they spell was changed",
    }


def test_tokens_stay_where_their_text_does(store):
    @simtune.capture(redact=["hunter2"])
    def ask(prompt):
        return simtune.Reply("left", prompt_token_ids=[1], token_ids=[2], logprobs=[-0.5])

    with simtune.episode():
        ask("left or right?")
    row = store.only()
    assert (row.prompt_token_ids, row.token_ids, row.extra) == ([1], [2], None)


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        (["abc", "abcdef"], "abcdef", "[redacted]"),
        (["a.c"], "abc a.c", "abc [redacted]"),
        ([re.compile(r"\d{4}")], '{"card": 1234, "n": 7}', '{"card":"[redacted]","n":7}'),
        ([re.compile(r"\d{4}")], "card 1234", "card [redacted]"),
        (['say "x"'], '{"deep": "{\\"in\\": \\"say \\\\\\"x\\\\\\"\\"}"}', '{"deep":"{\\"in\\":'),
        ([re.compile("key", re.I)], "KEY", "[redacted]"),
    ],
)
def test_text_rules(rules, text, expected):
    found = TextRules(rules)(Row(kind="decision", episode_id="e", response=text)).response
    assert found.startswith(expected)
    assert '"x' not in found.replace("\\", "")


def test_columns_of_json_stay_json():
    rule = TextRules([re.compile('"a":1,"b"'), re.compile("4{16}")])
    row = Row(
        kind="decision", episode_id="e", observation='{"a":1,"b":2}', metadata="[4444444444444444]"
    )
    left = rule(row)
    assert said(left.observation) == "{[redacted]:2}"
    assert said(left.metadata) == ["[redacted]"]


def test_roles_are_not_text():
    row = Row(kind="decision", episode_id="e", prompt=[{"role": "user", "content": "a user"}])
    assert TextRules(["user"])(row).prompt == [{"role": "user", "content": "a [redacted]"}]


@pytest.mark.parametrize("rule", ["", re.compile("x*"), re.compile(b"x"), 3, [""], [None]])
def test_rules_that_cannot_be_used(store, rule):
    with pytest.raises((OptionError, TypeError)):
        simtune.capture(redact=rule)(print)


def test_an_episode_does_not_take_rules_for_metadata(store):
    with pytest.raises(OptionError, match=r"simtune\.configure"):
        simtune.episode(redact=[SECRET])


def test_a_function_changes_the_row(store):
    def pseudonym(row):
        row.agent_id = "someone"
        row.response = "censored"
        return row

    @simtune.capture(redact=pseudonym)
    def ask(prompt):
        return REPLY

    asked = [{"role": "user", "content": "who?"}]
    with simtune.episode(agent="alice"):
        assert ask(asked) is REPLY
    row = store.only()
    assert (row.agent_id, row.response, row.token_ids) == ("someone", "censored", [])
    assert said(row.extra)["changed"] == ["response", "agent_id"]


@pytest.mark.parametrize("answer", [None, False])
def test_a_function_leaves_a_decision_out(store, answer):
    @simtune.capture(redact=lambda row: answer if row.response == "b" else row)
    def ask(prompt):
        return prompt

    with simtune.episode() as log:
        for prompt in "abc":
            ask(prompt)
            simtune.reward(1.0)
        assert log.decision("p", "r", redact=(lambda row: None,)) == ""
    assert [(row.response, row.step) for row in store.rows("decision")] == [("a", 0), ("c", 2)]
    assert len(store.rows("reward")) == 2
    assert said(store.only("episode_end").extra) == {"left_out": 2}
    assert (left_out(), failures()) == ({"redact": 2}, {})


def test_a_function_that_raises_costs_the_decision_not_the_secret(store):
    def broken(row):
        raise ValueError(f"cannot mask {row.response}")

    @simtune.capture(redact=broken)
    def ask(prompt):
        if prompt == "fail":
            raise PermissionError(SECRET)
        return SECRET

    with (
        pytest.raises(PermissionError),
        pytest.warns(RuntimeWarning, match="redaction failed with ValueError") as warned,
        simtune.episode(),
    ):
        assert ask("p") == SECRET
        ask("fail")
    assert not any(SECRET in str(warning.message) for warning in warned)
    assert store.rows("decision") == []
    assert failures() == {"RedactionError": 2}
    end = store.only("episode_end")
    assert (end.error, said(end.extra)) == ("PermissionError", {"left_out": 2})
    assert SECRET.encode() not in everything_written(store.root)


def test_a_function_that_returns_nonsense_is_one_that_raises(store):
    with simtune.episode() as log, pytest.warns(RuntimeWarning, match="OptionError"):
        log.decision("p", "r", redact=(lambda row: "yes",))
    assert store.rows("decision") == []


def test_raise_means_raise(store):
    simtune.configure(backpressure="raise", redact=lambda row: 1 / 0)
    with pytest.raises(RedactionError, match="ZeroDivisionError"):
        simtune.episode().decision("p", "r")


def test_what_is_configured_is_for_every_row_and_ends(store):
    simtune.configure(redact=[SECRET])
    with simtune.episode(env="e", key=SECRET) as log:
        log.decision("p", "r", reward=1.0)
        log.finish(
            terminated=True,
            outcome={"said": SECRET, "success": True},
            final_prompt=SECRET,
            final_prompt_token_ids=TOKENS,
        )
    simtune.configure(redact=())
    with simtune.episode(key="visible"):
        pass
    first, second = store.rows("episode_start")
    assert said(first.metadata) == {"key": "[redacted]"}
    assert said(second.metadata) == {"key": "visible"}
    end, _ = store.rows("episode_end")
    assert said(end.metadata)["outcome"] == {"said": "[redacted]", "success": True}
    assert (end.prompt[0]["content"], end.prompt_token_ids) == ("[redacted]", [])


def test_starts_rewards_and_ends_lose_their_contents_and_not_their_place(store):
    def only_decisions(row):
        return row if row.kind == "decision" else None

    simtune.configure(redact=only_decisions)
    with simtune.episode(env="e", key=SECRET) as log:
        decided = log.decision("p", "r")
        simtune.reward(2.0)
        log.finish(terminated=True, outcome={"said": SECRET})
    start, decision, reward, end = store.rows()
    assert (start.kind, start.metadata, start.env) == ("episode_start", None, None)
    assert (decision.response, decision.env) == ("r", "e")
    assert (reward.target, reward.reward) == (decided, 2.0)
    assert (end.terminated, end.metadata) == (True, None)
    assert {said(row.extra)["redacted"] for row in (start, reward, end)} == {"all"}


def test_both_rules_are_applied_the_decision_points_first(store):
    simtune.configure(redact=["two"])

    @simtune.capture(redact=["one two"])
    def ask(prompt):
        return "one two, two"

    ask("p")
    assert store.only().response == "[redacted], [redacted]"


def hooked(function, **mark):
    class Plugin:
        @simtune.hookimpl(**mark)
        def simtune_decision(self, row):
            return function(row)

    return Plugin()


def test_plugins_see_a_row_in_turn_until_one_leaves_it_out(store, plugin):
    seen = []

    def note(name, answer=None):
        return lambda row: (seen.append((name, row.response)), answer)[1]

    plugin(hooked(note("last"), trylast=True))
    plugin(hooked(lambda row: row.response != "drop me" and None, tryfirst=False))
    plugin(hooked(note("first", answer=True), tryfirst=True))
    with simtune.episode() as log:
        assert log.decision("p", "drop me") == ""
        log.reward(1.0)
        log.decision("p", "keep me")
    assert seen == [("first", "drop me"), ("first", "keep me"), ("last", "keep me")]
    assert [row.response for row in store.rows("decision")] == ["keep me"]
    assert store.rows("reward") == []
    assert sum(left_out().values()) == 1
    assert said(store.only("episode_end").extra) == {"left_out": 1}


def test_redaction_has_the_last_word(store, plugin):
    def enrich(row):
        row.metadata = msgspec.json.encode({"host": SECRET}).decode()

    plugin(hooked(enrich))
    simtune.configure(redact=[SECRET])
    simtune.episode().decision("p", "r")
    row = store.only()
    assert said(row.metadata) == {"host": "[redacted]"}


def test_a_plugin_that_changes_text_takes_its_tokens_away(store, plugin):
    def hide(row):
        row.response = row.response.replace(SECRET, "***")
        row.choices = []

    plugin(hooked(hide))
    simtune.episode().decision("p", REPLY)
    row = store.only()
    assert (row.response, row.token_ids, row.prompt_token_ids) == ("the key is ***", [], [])
    assert said(row.extra)["changed"] == ["response", "choices"]


def test_one_that_raises_costs_neither_the_row_nor_the_others(store, plugin):
    def broken(row):
        row.action = "touched"
        raise ValueError("plugin bug")

    plugin(hooked(lambda row: setattr(row, "agent_id", "x")))
    plugin(hooked(broken))
    with pytest.warns(RuntimeWarning, match="plugin bug"), simtune.episode() as log:
        log.decision("p", "r")
        log.decision("p", "s")
    assert [(row.response, row.action, row.agent_id) for row in store.rows("decision")] == [
        ("r", "touched", "x"),
        ("s", "touched", "x"),
    ]


def test_a_plugin_may_leave_nonsense_in_a_row(store, plugin):
    plugin(hooked(lambda row: setattr(row, "metadata", "not JSON")))
    plugin(hooked(lambda row: setattr(row, "reward", "much")))
    simtune.configure(redact=["JSON"])
    simtune.episode().decision("p", "r")
    row = store.only()
    assert (said(row.metadata), row.reward) == ("not [redacted]", None)
