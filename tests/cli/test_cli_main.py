"""The frame of the command line: speed, errors, exit codes."""

import os
import subprocess
import sys
import time

import pytest

from simtune.cli import main as frame
from simtune.errors import DataError, OptionError


def simtune(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "simtune.cli.main", *arguments],
        capture_output=True,
        text=True,
        **settings,
    )


@pytest.fixture
def verb(monkeypatch):
    """Put a verb `eval` in place whose run does what the test says."""

    def put(run):
        class Verb:
            HELP = "A verb of this test."

            @staticmethod
            def add_arguments(parser):
                parser.add_argument("--number", type=int, default=0)
                parser.add_argument("--some-text")

        Verb.run = staticmethod(run)
        monkeypatch.setitem(sys.modules, "simtune.cli.eval", Verb)

    return put


def test_help_is_immediate_and_lists_every_verb():
    took = []
    for _ in range(5):
        start = time.perf_counter()
        done = simtune("--help")
        took.append(time.perf_counter() - start)
    assert done.returncode == 0
    for name, text in frame.VERBS.items():
        assert f"{name} " in done.stdout and text in done.stdout
    # The best of five: the machine may be busy with other things.
    assert min(took) < 0.3


def test_help_imports_nothing_but_the_frame():
    code = (
        "import sys; from simtune.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in "
        "{'msgspec', 'pluggy', 'pyarrow', 'numpy', 'torch', 'rich', 'gymnasium', 'yaml'}"
        " or m.startswith('simtune.cli.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "['simtune.cli.main']"


@pytest.mark.parametrize("name", sorted(frame.VERBS))
def test_the_help_of_every_verb_is_light(name):
    code = (
        f"import sys; from simtune.cli.main import main\n"
        f"try: main([{name!r}, '--help'])\nexcept SystemExit as end: assert not end.code\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'pyarrow', 'numpy', 'torch', 'gymnasium', 'transformers', 'mlflow'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith(f"usage: simtune {name}")
    assert done.stderr.strip() == "[]"


def test_without_a_verb_it_shows_the_help(capsys):
    assert frame.main([]) == 2
    assert "verbs:" in capsys.readouterr().out


def test_an_unknown_verb_gets_the_nearest(capsys):
    assert frame.main(["trian"]) == 2
    assert capsys.readouterr().err == (
        "simtune: error: unknown command 'trian'\n"
        "  expected: did you mean 'train'?\n  fix: simtune --help\n"
    )


def test_an_unknown_option_gets_the_nearest(verb, capsys):
    verb(lambda args: 0)
    assert frame.main(["eval", "--nubmer", "3"]) == 2
    said = capsys.readouterr().err
    assert "unknown option '--nubmer'" in said and "did you mean '--number'?" in said


def test_options_are_not_abbreviated(verb, capsys):
    verb(lambda args: 0)
    assert frame.main(["eval", "--num", "3"]) == 2
    assert "unknown option '--num'" in capsys.readouterr().err


def test_a_value_that_does_not_fit_names_its_option(verb, capsys):
    verb(lambda args: 0)
    assert frame.main(["eval", "--number", "three"]) == 2
    assert "--number" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--some_text=a_b", "--some-text=a_b"])
def test_names_take_dash_or_underscore_and_values_stay(verb, flag):
    seen = []
    verb(lambda args: seen.append(args.some_text) or 0)
    assert frame.main(["eval", flag]) == 0
    assert seen == ["a_b"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OptionError("no such thing", expected="a thing", fix="get one"), "expected: a thing"),
        (DataError("nothing to learn from"), "nothing to learn from"),
        (PermissionError(13, "Permission denied", "/somewhere"), "Permission denied"),
    ],
)
def test_an_error_is_a_message_and_exit_code_2(verb, capsys, error, said):
    def run(args):
        raise error

    verb(run)
    assert frame.main(["eval"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("simtune: error: ") and said in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("arguments", [["--debug", "eval"], ["eval", "--debug"]])
def test_debug_adds_the_traceback(verb, capsys, arguments):
    def run(args):
        raise DataError("nothing to learn from")

    verb(run)
    assert frame.main(arguments) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "simtune: error: nothing to learn from" in shown


def test_a_missing_dependency_is_the_line_that_installs_it(verb, capsys):
    def run(args):
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow.tracking")

    verb(run)
    assert frame.main(["eval"]) == 2
    assert "pip install 'simtune[train]'" in capsys.readouterr().err


def test_a_bug_is_not_disguised(verb):
    def run(args):
        raise ModuleNotFoundError("No module named 'simtune.nothing'", name="simtune.nothing")

    verb(run)
    with pytest.raises(ModuleNotFoundError):
        frame.main(["eval"])


def test_an_interrupt_is_130(verb, capsys):
    def run(args):
        raise KeyboardInterrupt

    verb(run)
    assert frame.main(["eval"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_left_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "simtune.cli.main", "plugins", "ls", "--json"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")
