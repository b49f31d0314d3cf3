"""MLflow without its chatter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOISY = ("mlflow", "mlflow.store.db.utils", "alembic")


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Keep MLflow's and its database migration's lines off stderr; as it was afterwards.

    Deprecation warnings here are between MLflow and its own dependencies (SQLAlchemy 2.1 and
    the `noload` strategy); nobody who trains can act on them.
    """
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
