"""A policy that answers with the registry's newest adapter, or its champion, as they change."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from simtune.errors import OptionError, RegistryError, SimtuneError
from simtune.policy.adapter_hash import WEIGHTS_FILE, saved_sha256
from simtune.policy.local import LocalPolicy, load_base, quiet
from simtune.registry.files import REGISTRY_FILE
from simtune.registry.record import ModelRecord
from simtune.registry.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simtune.records import Messages
    from simtune.reply import Reply

Followed: TypeAlias = Literal["latest", "champion"]
"""`latest`: the newest adapter that is not retired; `champion`: the one that was promoted."""


class FollowingPolicy(LocalPolicy):
    """A `LocalPolicy` that swaps its adapter between two decisions when the registry says so.

    The registry's file is replaced in one step after an adapter's files are in place, so what it
    names is whole. Every reply carries the hash of the adapter that made it. While there is no
    such adapter, or after the only champion was rolled back, the base model answers.

    An adapter that cannot be loaded is named in a warning, once, and the one before answers on.

    Args:
        models_dir: the registry; it need not be there yet.
        llm_path: directory of the base model; adapters of other bases are passed over.
        follow: which adapter.
        settings: as for `LocalPolicy`.

    Attributes:
        model_id: the registry's id of the adapter that answers; None for the base model.

    Raises:
        OptionError: an unknown `follow`, or no base model.
    """

    def __init__(
        self,
        models_dir: str | Path,
        llm_path: str | Path,
        follow: Followed = "latest",
        **settings: Any,
    ) -> None:
        if follow not in ("latest", "champion"):
            raise OptionError("this cannot be followed", expected="latest | champion", got=follow)
        model, tokenizer = load_base(llm_path)
        settings.setdefault("name", str(llm_path))
        super().__init__(model, tokenizer, **settings)
        self.model_id: str | None = None
        self._base = Path(llm_path).resolve()
        self._follow = follow
        self._registry = Registry(models_dir)
        self._file = Path(models_dir) / REGISTRY_FILE
        self._seen: tuple[int, ...] | None = None
        self._refused: set[str] = set()
        self.look()

    def act(
        self, prompts: Sequence[Messages], choices: Sequence[Sequence[str]] | None = None
    ) -> list[Reply]:
        """Answer each prompt, all with the same adapter; as `LocalPolicy.act`."""
        self.look()
        return super().act(prompts, choices)

    def look(self) -> bool:
        """Take the registry as it is now; True where another model answers from here on.

        Costs the look-up of a file's time where the registry has not changed.
        """
        seen = self._signature()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            record = self._wanted(self._registry.list())
            if (None if record is None else record.id) == self.model_id:
                return False
            self._swap(record)
        except SimtuneError as error:
            self._complain(str(error))
            return False
        return True

    def _wanted(self, records: list[ModelRecord]) -> ModelRecord | None:
        for record in reversed(records):
            fits = record.type == "fine_tuned" and Path(record.base_model).resolve() == self._base
            if self._follow == "champion":
                fits = fits and record.status == "champion"
            if fits and record.status != "retired" and record.id not in self._refused:
                return record
        return None

    def _swap(self, record: ModelRecord | None) -> None:
        model: Any = self.model
        if record is None:
            model.disable_adapter_layers()
            self.adapter = None
        elif record.weights_sha256 != self.adapter:
            self._load(record)
        self.model_id = None if record is None else record.id

    def _load(self, record: ModelRecord) -> None:
        """Put an adapter's weights on the model.

        Raises:
            RegistryError: they are gone, or not those that were registered.
            CorruptError: they cannot be read.
        """
        from peft import PeftConfig, PeftModel, set_peft_model_state_dict
        from safetensors.torch import load_file

        path = self._registry.path(record)
        if saved_sha256(path) != record.weights_sha256:
            self._refused.add(record.id)
            raise RegistryError(
                f"the weights of model {record.id!r} are not those that were registered",
                expected=record.weights_sha256,
                got=saved_sha256(path),
            )
        model: Any = self.model
        config = PeftConfig.from_pretrained(str(path))
        with quiet():
            if not isinstance(model, PeftModel):
                self._answer_with(PeftModel.from_pretrained(model, str(path)).eval())
            elif _alike(model.peft_config["default"], config):
                set_peft_model_state_dict(model, load_file(path / WEIGHTS_FILE))
                model.enable_adapter_layers()
            else:
                base = model.unload()
                self._answer_with(PeftModel.from_pretrained(base, str(path)).eval())
        self.forget()
        self.adapter = record.weights_sha256

    def _answer_with(self, model: Any) -> None:
        from simtune.policy.answering import Answering

        self.model = model
        self._answering = Answering(model, self.pad_id)

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _complain(self, text: str) -> None:
        warnings.warn(f"the policy goes on as it was: {text}", RuntimeWarning, stacklevel=4)


def _alike(mine: Any, theirs: Any) -> bool:
    """Whether weights of one configuration fit the layers that another one made."""
    names = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "bias", "modules_to_save")
    same = all(getattr(mine, name, None) == getattr(theirs, name, None) for name in names)
    return same and set(mine.target_modules or ()) == set(theirs.target_modules or ())
