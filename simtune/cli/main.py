"""`simtune VERB`: finds the verb's module, runs it, and turns errors into messages.

Only the module of the verb that was asked for is imported, so that `--help` is immediate.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from simtune import __version__
from simtune.errors import MissingExtraError, OptionError, SimtuneError

VERBS = {
    "demo": "the whole loop on a tiny model and a real environment, in minutes",
    "train": "train a LoRA adapter: sft or ppo",
    "score": "score captured episodes with rewards, as often as you like",
    "episodes": "look at what was captured",
    "eval": "play policies on the same seeds, with confidence intervals",
    "serve": "an OpenAI-compatible endpoint for base and adapters",
    "models": "the registry of adapters, and base models",
    "plugins": "what is installed, and what failed",
    "doctor": "what is wrong, and how to mend it",
}

USER_ERROR = 2
INTERRUPTED = 130

_EXTRAS = {
    "gymnasium": "gym",
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "trl": "train",
    "datasets": "train",
    "accelerate": "train",
    "mlflow": "train",
    "duckdb": "train",
    "matplotlib": "train",
    "yaml": "train",
    "starlette": "serve",
    "uvicorn": "serve",
}


class Verb(Protocol):
    """What a module `simtune.cli.<verb>` holds."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's options, with dashes; underscores are accepted everywhere."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit code."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `OptionError` and names the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise OptionError(message, fix=f"{self.prog} --help")

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse, and refuse what is left over with the nearest option that exists."""
        args, unknown = self.parse_known_args(argv)
        if not unknown:
            return args
        name = unknown[0].partition("=")[0]
        known = sorted(_option_strings(self))
        near = difflib.get_close_matches(name, known, n=1)
        what = "unknown option" if name.startswith("-") else "unexpected argument"
        raise OptionError(
            f"{what} {name!r}",
            expected=f"did you mean {near[0]!r}?" if near else None,
            fix=f"{self.prog} --help",
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 2 for a user's error, 130 when interrupted."""
    arguments = [_dashed(token) for token in (sys.argv[1:] if argv is None else argv)]
    debug = "--debug" in arguments
    arguments = [token for token in arguments if token != "--debug"]
    try:
        with warnings.catch_warnings():
            # Deprecations between the libraries below us: nobody at a command line can act on
            # them. Our own tests run the same code with warnings as errors.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return _dispatch(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, debug)
    except BrokenPipeError:
        # The reader of our output is gone (`simtune ... | head`): nothing is left to say, and
        # Python's own flush at exit must not fail on the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        extra = MissingExtraError("this command", package=missing, extra=_EXTRAS[missing])
        return _fail(str(extra), USER_ERROR, debug)
    except (SimtuneError, OSError) as error:
        return _fail(str(error), USER_ERROR, debug)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        _overview().parse_all(arguments)
        sys.stdout.write(_overview().format_help())
        return USER_ERROR if not arguments else 0
    name, rest = arguments[0], arguments[1:]
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        raise OptionError(
            f"unknown command {name!r}",
            expected=f"did you mean {near[0]!r}?" if near else " | ".join(VERBS),
            fix="simtune --help",
        )
    verb = cast(Verb, importlib.import_module(f"simtune.cli.{name}"))
    parser = Parser(prog=f"simtune {name}", description=verb.HELP, allow_abbrev=False)
    verb.add_arguments(parser)
    return verb.run(parser.parse_all(rest))


def _overview() -> Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {text}" for name, text in VERBS.items())
    parser = Parser(
        prog="simtune",
        usage="simtune VERB [options]",
        description="Make the LLM inside a simulation better at it.",
        epilog=f"verbs:\n{verbs}\n\nsimtune VERB --help shows the options of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"simtune {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _dashed(token: str) -> str:
    """`--llm_path=a_b` -> `--llm-path=a_b`: options take `_` or `-`, values stay as they are."""
    if not token.startswith("--"):
        return token
    name, equals, value = token.partition("=")
    return name.replace("_", "-") + equals + value


def _option_strings(parser: argparse.ArgumentParser) -> set[str]:
    found: set[str] = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found.update(_option_strings(child))
    return found


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"simtune: error: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
