"""Tells plugins that a training run begins and how it ended."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from simtune import plugins


class Announcement:
    """Calls `simtune_training_start` on entry and `simtune_training_end` on exit.

    Args:
        method: sft, ppo, ...
        options: every option of the run.
        run_id: of the MLflow run.

    Attributes:
        model_id: set it when the model is registered; plugins are told at the end.
    """

    def __init__(self, method: str, options: dict[str, Any], run_id: str | None) -> None:
        """Remember what to say."""
        self.model_id: str | None = None
        self._method = method
        self._options = options
        self._run_id = run_id

    def __enter__(self) -> Self:
        """The run begins."""
        plugins.call_each(
            "simtune_training_start",
            method=self._method,
            options=self._options,
            run_id=self._run_id,
        )
        return self

    def metrics(self, step: int, metrics: dict[str, float]) -> None:
        """A step finished."""
        plugins.call_each(
            "simtune_training_metrics", method=self._method, step=step, metrics=metrics
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The run ended, with a model or with an error."""
        plugins.call_each(
            "simtune_training_end",
            method=self._method,
            model_id=self.model_id,
            error=None if error is None else str(error) or type(error).__name__,
        )
