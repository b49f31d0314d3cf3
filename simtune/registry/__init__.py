"""Adapters that were trained: where they are, and what data, rewards, base and code made them."""

from simtune.registry.record import DataSeen, ModelRecord, RewardUsed
from simtune.registry.registry import Registry

__all__ = ["DataSeen", "ModelRecord", "Registry", "RewardUsed"]
