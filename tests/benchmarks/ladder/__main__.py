"""Climb the ladder, or the rungs that are named, and print what each seed reached.

python -m tests.benchmarks.ladder [RUNG ...] [--seeds 0 1 2] [--results FILE] [--bases DIR]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from simtune.cli import output
from tests.benchmarks.ladder.learning import Climb, climb
from tests.benchmarks.ladder.recipes import RECIPES, Recipe

HEADERS = (
    "rung", "goal", "random", "oracle", "greedy", "mean", "sd",
    "sampled", "decisions", "to 90 %", "cpu s",
)  # fmt: skip
COUNTED = 256
"""Episodes of the latest rounds that a rate is taken over."""


def main(arguments: Sequence[str]) -> int:
    """Climb, a line on stderr for each seed; the file is written anew after each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ladder")
    parser.add_argument("rungs", nargs="*", metavar="RUNG", help=", ".join(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("ladder.json"))
    parser.add_argument("--bases", type=Path, help="keep base models here, and use those there")
    asked = parser.parse_args(arguments)
    unknown = set(asked.rungs) - RECIPES.keys()
    if unknown:
        parser.error(f"no rung {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    import torch

    torch.set_num_threads(1)
    found: dict[str, list[Climb]] = {}
    with tempfile.TemporaryDirectory() as made:
        for name in asked.rungs or RECIPES:
            for seed in asked.seeds:
                one = climb(RECIPES[name], seed, asked.bases or Path(made))
                found.setdefault(name, []).append(one)
                sys.stderr.write(f"{name}, seed {seed}: {_reached(one)}\n")
                asked.results.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    output.table(HEADERS, [table_row(name, climbs) for name, climbs in found.items()])
    output.line(
        "greedy: of each seed; mean and sd of those; sampled: mean; decisions: mean of PPO;"
    )
    output.line(
        f"to 90 %: decisions until that share of the last {COUNTED} episodes succeeded, mean;"
    )
    output.line("cpu s: mean processor time of base, SFT and PPO; returns where random is negative")
    return 0


def _reached(one: Climb) -> str:
    cpu = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in one.cpu_s.items())
    return f"greedy {one.greedy:.3f}, sampled {one.sampled:.3f}, {one.decisions} decisions, {cpu}"


def table_row(name: str, climbs: Sequence[Climb]) -> list[object]:
    """One line: what `HEADERS` names, over the seeds."""
    recipe = RECIPES[name]
    greedy = [one.greedy for one in climbs]
    return [
        name,
        recipe.goal * (_mean(climbs, "oracle") if recipe.of_oracle else 1),
        _mean(climbs, "random"),
        _mean(climbs, "oracle"),
        " ".join(f"{value:.3f}" for value in greedy),
        statistics.mean(greedy),
        statistics.stdev(greedy) if len(greedy) > 1 else None,
        _mean(climbs, "sampled"),
        round(_mean(climbs, "decisions")),
        _decisions_to_90(recipe, climbs),
        statistics.mean(sum(one.cpu_s.values()) for one in climbs),
    ]


def _mean(climbs: Sequence[Climb], what: str) -> float:
    return statistics.mean(getattr(one, what) for one in climbs)


def _decisions_to_90(recipe: Recipe, climbs: Sequence[Climb]) -> int | None:
    """Mean over the seeds; None where one never came so far."""
    reached = [
        decisions_to(one, 0.9, recipe.ppo.get("episodes_per_iteration", 64)) for one in climbs
    ]
    known = [decisions for decisions in reached if decisions is not None]
    return round(statistics.mean(known)) if len(known) == len(climbs) else None


def decisions_to(one: Climb, rate: float, episodes: int) -> int | None:
    """Decisions seen when the latest roll-outs first succeeded at a rate; None: never."""
    width = max(1, COUNTED // episodes)
    for last in range(width, len(one.curve) + 1):
        latest = [point["success"] for point in one.curve[last - width : last]]
        if statistics.mean(latest) >= rate:
            return int(one.curve[last - 1]["decisions_seen"])
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
