"""`simtune serve`: an OpenAI-compatible endpoint for a base model and the registry's adapters."""

from __future__ import annotations

import argparse
import os

from simtune.cli import output
from simtune.errors import MissingExtraError

HELP = "Serve a base model and its adapters to any OpenAI client."

KEY_VARIABLE = "SIMTUNE_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--llm-path", required=True, metavar="DIR", help="base model directory")
    add(
        "--adapter",
        action="append",
        default=[],
        metavar="ID_OR_DIR",
        help="adapter to load at the start: an id of the registry, `champion`, `latest`, or a "
        "directory; repeatable. Others of the registry are loaded when they are asked for",
    )
    add("--models-dir", default="./models", metavar="DIR", help="registry (default: %(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8000, metavar="P", help="0: a free one (default: %(default)s)")
    add(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help=f"key that a request must bring; repeatable; or {KEY_VARIABLE}, which others on this "
        "machine cannot read. Needed beyond loopback",
    )
    add("--capture", metavar="ROOT", help="store that every answer is captured into")
    add(
        "--engine",
        choices=["transformers", "vllm"],
        default="transformers",
        help="who computes (default: %(default)s)",
    )
    for flag, kind, default, metavar, text in (
        ("--max-concurrency", int, 64, "N", "answers in work at a time; beyond it 429"),
        ("--max-request-bytes", int, 4 * 2**20, "N", "largest request; beyond it 413"),
        ("--max-tokens", int, 256, "N", "longest answer where the request does not say"),
        ("--max-adapters", int, 8, "N", "adapters that stay loaded"),
        ("--cache-bytes", int, 2**31, "N", "keys and values of each adapter's cache"),
        ("--timeout", float, 120.0, "S", "seconds that an answer may take; beyond it 504"),
        ("--poll", float, 0.5, "S", "seconds between looks at the registry"),
    ):
        add(flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: {default})")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from simtune.serving.options import ServeOptions

    names = ServeOptions.__struct_fields__
    given = {name: getattr(args, name) for name in names}
    if not given["api_key"] and os.environ.get(KEY_VARIABLE):
        given["api_key"] = [os.environ[KEY_VARIABLE]]
    options = ServeOptions(**given)
    options.check()
    if options.engine == "vllm":
        from simtune.serving.vllm import serve_vllm

        return serve_vllm(options)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        package = "starlette and uvicorn"
        raise MissingExtraError("simtune serve", package=package, extra="serve") from error
    from simtune.serving.server import serve

    serve(options, on_ready=lambda address: output.line(f"simtune serves on {address}/v1"))
    return 0
