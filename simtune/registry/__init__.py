"""Adapters that were trained: where they are, what made them, and which one is champion."""

from simtune.registry.history import Change
from simtune.registry.record import DataSeen, ModelRecord, RewardUsed
from simtune.registry.registry import Registry

__all__ = ["Change", "DataSeen", "ModelRecord", "Registry", "RewardUsed"]
