"""Several adapters on one base model at a time."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtune.errors import OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG_FILE = "adapter_config.json"


def beside(base: PreTrainedModel, adapter_dir: Path) -> Any:
    """A model of its own for an adapter: modules of its own, the base's tensors shared.

    The base is left as it is, and any number of adapters answer at the same time.

    Raises:
        OptionError: there is no adapter, or it does not fit the base.
    """
    from peft import PeftModel

    from simtune.policy.local import quiet

    if not (adapter_dir / CONFIG_FILE).is_file():
        raise OptionError(
            f"no adapter in {str(adapter_dir)!r}",
            expected=f"a directory with {CONFIG_FILE}",
            fix="simtune models ls",
        )
    shared = {id(one): one for one in itertools.chain(base.parameters(), base.buffers())}
    shell = copy.deepcopy(base, dict(shared))
    try:
        with quiet():
            return PeftModel.from_pretrained(shell, str(adapter_dir)).eval()
    except (RuntimeError, ValueError) as error:
        raise OptionError(
            f"the adapter in {str(adapter_dir)!r} does not fit the base model",
            expected="an adapter that was trained on this base",
            got=str(error).splitlines()[0],
        ) from error
