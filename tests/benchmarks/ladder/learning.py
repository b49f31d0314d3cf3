"""Climb a rung with one seed: base, SFT where the recipe has it, PPO, held-out seeds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from simtune.demo.sizes import HELD_OUT_SEED
from simtune.recording.recorders import recorders
from tests.benchmarks.ladder.bounds import RandomPolicy
from tests.benchmarks.ladder.recipes import Recipe

EXPERT_SEED = 500_000_000
PLAYED = 8000
"""Decisions of random play that a base is fitted to."""


class Climb(msgspec.Struct, kw_only=True):
    """What one seed of a rung gave; rates and returns are those of the held-out seeds.

    Attributes:
        seed: of the base, its play, SFT and PPO.
        random: any legal action.
        oracle: the best policy known.
        untrained: the base without an adapter, sampled.
        imitated: after SFT, greedy; None without SFT.
        greedy: after PPO, the most probable action.
        sampled: after PPO, actions drawn.
        decisions: of PPO's roll-outs.
        expert_decisions: that SFT was given.
        cpu_s: seconds of processor time of `base`, `expert`, `sft`, `ppo`.
        curve: of each round of PPO; JSON has null where explained variance is undefined.
    """

    seed: int
    random: float
    oracle: float
    untrained: float
    imitated: float | None = None
    greedy: float
    sampled: float
    decisions: int
    expert_decisions: int = 0
    cpu_s: dict[str, float]
    curve: list[dict[str, float]]


def climb(recipe: Recipe, seed: int, bases: Path) -> Climb:
    """Train in a directory of its own, and evaluate.

    Args:
        recipe: of the rung.
        seed: of everything random.
        bases: directory of base models; rungs with the same texts share one.
    """
    with tempfile.TemporaryDirectory() as place:
        found = _Run(recipe, seed, Path(place), bases).climb()
        for recorder in recorders():
            recorder.close()
    return found


def base_of(recipe: Recipe, seed: int, bases: Path) -> tuple[Path, float]:
    """The rung's base model, made where it is not there yet, and seconds of processor time."""
    from simtune.policy.random_play import conversations
    from simtune.policy.tiny import build_model, build_tokenizer, fit_to_play, save_base

    played_in = recipe.base_env or recipe.env
    place = bases / f"{played_in.rpartition(':')[2]}-{recipe.base_steps}-{seed}"
    cost = place / "cpu_seconds"
    if not cost.exists():
        started = time.process_time()
        played = conversations(played_in, count=PLAYED, seed=seed)
        tokenizer = build_tokenizer(message["content"] for chat in played for message in chat)
        model = build_model(tokenizer, seed=seed)
        fit_to_play(model, tokenizer, played, steps=recipe.base_steps, seed=seed)
        save_base(model, tokenizer, place)
        cost.write_text(f"{time.process_time() - started:.1f}")
    return place, float(cost.read_text())


KEPT_METRICS = (
    "decisions_seen",
    "success",
    "return",
    "length",
    "entropy",
    "explained_variance",
    "approx_kl",
    "clip_fraction",
    "grad_norm",
)
"""Of every round, for the curve."""


class _Run:
    """The stages of one climb."""

    def __init__(self, recipe: Recipe, seed: int, place: Path, bases: Path) -> None:
        self.recipe = recipe
        self.seed = seed
        self.place = place
        self.base, seconds = base_of(recipe, seed, bases)
        self.cpu_s: dict[str, float] = {"base": seconds}
        self.curve: list[dict[str, float]] = []

    def climb(self) -> Climb:
        """All stages."""
        recipe = self.recipe
        bounds = {
            "random": self._measure(RandomPolicy(self.seed)),
            "oracle": self._measure(recipe.oracle()),
            "untrained": self._measure_model(None, greedy=False),
        }
        parent, imitated, shown = None, None, 0
        if recipe.expert is not None:
            with self._timed("expert"):
                shown = self._capture_expert()
            with self._timed("sft"):
                parent = self._sft()
            imitated = self._measure_model(parent, greedy=True)
        with self._timed("ppo"):
            trained = self._ppo(parent)
        return Climb(
            seed=self.seed,
            **bounds,
            imitated=imitated,
            greedy=self._measure_model(trained, greedy=True),
            sampled=self._measure_model(trained, greedy=False),
            decisions=int(self.curve[-1]["decisions_seen"]),
            expert_decisions=shown,
            cpu_s=self.cpu_s,
            curve=self.curve,
        )

    def _capture_expert(self) -> int:
        """The expert's episodes, into the store; how many decisions."""
        from simtune.gym import rollout

        assert self.recipe.expert is not None
        episodes = rollout(
            self.recipe.env,
            self.recipe.expert(),
            episodes=self.recipe.expert_episodes,
            seed=EXPERT_SEED + self.seed * 1_000_000,
            num_envs=64,
            root=str(self.place / "expert"),
        )
        return sum(map(len, episodes))

    def _sft(self) -> Any:
        from simtune.train.options import SFTOptions
        from simtune.train.sft import train_sft

        store = str(self.place / "expert")
        return train_sft(SFTOptions(**self._common(), **self.recipe.sft, store=store))

    def _ppo(self, parent: Any) -> Any:
        from simtune.train.options import PPOOptions
        from simtune.train.ppo import train_ppo

        def follow(done: int, total: int, metrics: dict[str, float]) -> None:
            self.curve.append({name: metrics[name] for name in KEPT_METRICS if name in metrics})

        options = PPOOptions(
            **self._common(),
            **self.recipe.ppo,
            env=self.recipe.env,
            env_arg=self.recipe.env_arg,
            capture_root=str(self.place / "store"),
            adapter=None if parent is None else parent.id,
        )
        return train_ppo(options, on_step=follow)

    def _common(self) -> dict[str, Any]:
        return {
            "llm_path": str(self.base),
            "models_dir": str(self.place / "models"),
            "tracking_uri": str(self.place / "mlruns"),
            "seed": self.seed,
        }

    def _measure_model(self, record: Any, *, greedy: bool) -> float:
        from simtune.policy.local import LocalPolicy
        from simtune.registry import Registry

        ppo = self.recipe.ppo
        adapter = None if record is None else Registry(self.place / "models").path(record)
        policy = LocalPolicy.load(
            self.base,
            adapter,
            decision=ppo["decision"],
            max_new_tokens=ppo.get("max_new_tokens", 16),
            greedy=greedy,
            seed=self.seed,
        )
        return self._measure(policy)

    def _measure(self, policy: Any) -> float:
        """Success or mean return over the held-out seeds."""
        from simtune.eval.compare import evaluate

        recipe = self.recipe
        found = evaluate(
            policy, recipe.env, episodes=recipe.held_out, seed=HELD_OUT_SEED, num_envs=250
        )
        interval = found.mean_return if recipe.measure == "return" else found.success
        assert interval is not None
        return interval.estimate

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.cpu_s[stage] = round(time.process_time() - started, 1)
