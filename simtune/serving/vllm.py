"""`--engine vllm`: the installed vLLM serves base and adapters, under the registry's names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from simtune.errors import OptionError, SimtuneError
from simtune.registry import Registry
from simtune.serving.options import ServeOptions

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM reserves room for; an adapter's is rounded up to one."""

ALIASES = ("champion", "latest")


def serve_vllm(options: ServeOptions) -> int:
    """Run `vllm serve` and keep its adapters those of the registry; returns its exit code.

    Raises:
        OptionError: vLLM is not installed, or cannot do what was asked for.
        SimtuneError: an adapter cannot be found.
    """
    program = shutil.which("vllm")
    if program is None:
        raise OptionError(
            "--engine vllm needs vllm, which is not installed", fix="pip install vllm"
        )
    if options.capture is not None:
        raise OptionError(
            "--engine vllm does not capture by itself",
            expected="--engine transformers with --capture",
            fix="capture in the simulation: simtune_openai.capture(client), from simtune-openai",
        )
    adapters = _adapters(options)
    running = subprocess.Popen(
        command(program, options, adapters),
        env={**os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
    )
    try:
        while running.poll() is None:
            time.sleep(options.poll)
            adapters = _swap(options, adapters)
    except KeyboardInterrupt:
        running.terminate()
    return running.wait()


def command(program: str, options: ServeOptions, adapters: Mapping[str, Path]) -> list[str]:
    """What is run.

    Args:
        program: the vLLM executable.
        options: of `simtune serve`.
        adapters: name -> directory.
    """
    said = [program, "serve", options.llm_path, "--host", options.host, "--port", str(options.port)]
    said += ["--served-model-name", Path(options.llm_path).name]
    said += ["--max-num-seqs", str(options.max_concurrency)]
    for key in options.api_key:
        said += ["--api-key", key]
    said += ["--enable-lora", "--max-loras", str(options.max_adapters)]
    said += ["--max-lora-rank", str(_rank(adapters))]
    if adapters:
        said += ["--lora-modules", *(f"{name}={path}" for name, path in adapters.items())]
    return said


def _rank(adapters: Mapping[str, Path]) -> int:
    largest = 0
    for path in adapters.values():
        largest = max(largest, json.loads((path / "adapter_config.json").read_bytes())["r"])
    return next((rank for rank in RANKS if rank >= largest), RANKS[-1])


def _adapters(options: ServeOptions) -> dict[str, Path]:
    """The adapters to serve by name: those asked for, and whatever the aliases mean now."""
    registry = Registry(options.models_dir)
    found: dict[str, Path] = {}
    for name in options.adapter:
        if Path(name).is_dir():
            found[Path(name).name] = Path(name).resolve()
        else:
            record = registry.get(name)
            found[record.id] = registry.path(record).resolve()
    records = registry.list()
    champions = [record for record in records if record.status == "champion"]
    for alias, some in zip(ALIASES, (champions, records), strict=True):
        if some:
            path = registry.path(some[-1]).resolve()
            found[some[-1].id] = found[alias] = path
    return found


def _swap(options: ServeOptions, present: dict[str, Path]) -> dict[str, Path]:
    """Load what is new in the registry into the running vLLM; what fails is tried again."""
    try:
        wanted = _adapters(options)
        for name, path in wanted.items():
            if present.get(name) != path:
                if name in present:
                    _tell(options, "unload_lora_adapter", {"lora_name": name})
                _tell(options, "load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
                present = {**present, name: path}
    except (SimtuneError, urllib.error.URLError) as error:
        sys.stderr.write(f"simtune serve: the registry cannot be followed: {error}\n")
    return present


def _tell(options: ServeOptions, what: str, body: Mapping[str, str]) -> None:
    host = "127.0.0.1" if options.host == "0.0.0.0" else options.host
    headers = {"content-type": "application/json"}
    if options.api_key:
        headers["authorization"] = f"Bearer {options.api_key[0]}"
    request = urllib.request.Request(
        f"http://{host}:{options.port}/v1/{what}", json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=options.timeout):
        pass
