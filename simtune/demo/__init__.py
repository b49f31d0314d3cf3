"""The whole loop on one environment: capture, SFT, PPO, before and after."""

from simtune.demo.loop import run_demo
from simtune.demo.result import DemoResult, PolicyResult
from simtune.demo.sizes import DemoOptions

__all__ = ["DemoOptions", "DemoResult", "PolicyResult", "run_demo"]
