"""From captured decisions to a better adapter, stage by stage, with simtune's public parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from simtune.demo import lake
from simtune.demo.result import DemoResult, PolicyResult, learning_curve
from simtune.demo.sizes import HELD_OUT_SEED, LAKE, DemoOptions, sizes
from simtune.errors import OptionError

if TYPE_CHECKING:
    from simtune.registry import ModelRecord

EXPERIMENT = "simtune-demo"


class Stage(Protocol):
    """Shows how far one stage is."""

    def update(self, done: int, total: int | None, metrics: dict[str, float]) -> None:
        """Say how far it is."""


StageFactory = Callable[[str], Any]
"""`(title) -> context manager that gives a Stage`."""


def run_demo(options: DemoOptions, stage: StageFactory) -> DemoResult:
    """Run the whole loop and return what it found.

    Args:
        options: directory, seed, model, and whether to do only a fraction of the work.
        stage: shows progress; called with the title of each stage.

    Raises:
        OptionError: the directory exists and is not empty, or the model is unknown.
    """
    root = Path(options.dir)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OptionError(
            f"the demo's directory {options.dir!r} is not empty",
            expected="a new directory, so that nothing of yours is overwritten",
            fix="simtune demo --dir ANOTHER, or remove it",
        )
    root.mkdir(parents=True, exist_ok=True)
    loop = _Loop(options, root, stage)
    result = loop.run()
    loop.record(result)
    return result


class _Loop:
    """One run; each method is a stage."""

    def __init__(self, options: DemoOptions, root: Path, stage: StageFactory) -> None:
        self.options = options
        self.sizes = sizes(options)
        self.root = root
        self.stage = stage
        self.seconds: dict[str, float] = {}
        self.paths = {
            "base": str(root / "base"),
            "store": str(root / "store"),
            "models": str(root / "models"),
            "tracking": str(root / "mlruns"),
            "picture": str(root / "learning-curve.png"),
            "results": str(root / "results.json"),
        }

    def run(self) -> DemoResult:
        self.base()
        self.capture()
        policies = [self.play("random", lake.RandomWalk(self.options.seed), samples=True)]
        policies.append(self.model("untrained", None))
        policies.append(self.play("heuristic", lake.heuristic, samples=False))
        sft = self.sft()
        policies.append(self.model("after SFT", sft))
        ppo, curve = self.ppo(sft)
        policies.append(self.model("after PPO", ppo))
        policies.append(self.play("oracle", lake.oracle, samples=False))
        return DemoResult(
            policies=policies,
            held_out=self.sizes.held_out,
            captured=self.captured(),
            curve=curve,
            paths=self.paths,
            models={"after SFT": sft.id, "after PPO": ppo.id},
            seconds=self.seconds,
        )

    def base(self) -> None:
        """The model to start from: random weights fitted to random play, or the real one."""
        from simtune.policy.bases import pull_base

        with self._timed(f"base model {self.options.model}") as shown:
            pull_base(
                self.options.model,
                self.paths["base"],
                env=LAKE,
                seed=self.options.seed,
                on_step=lambda done, total, loss: shown.update(done, total, {"loss": loss}),
            )

    def capture(self) -> None:
        """Capture the heuristic's episodes, as any simulation would."""
        from simtune.gym import rollout

        total = self.sizes.heuristic_episodes
        with self._timed("capture the heuristic") as shown:
            done = 0

            def count(_: object) -> None:
                nonlocal done
                done += 1
                shown.update(done, total, {})

            rollout(
                lake.lake,
                lake.heuristic,
                episodes=total,
                seed=500_000_000 + self.options.seed * 1_000_000,
                num_envs=64,
                root=self.paths["store"],
                run_id="heuristic",
                on_episode=count,
            )

    def sft(self) -> ModelRecord:
        """Imitate the heuristic's episodes that reached the goal."""
        from simtune.train.options import SFTOptions
        from simtune.train.sft import train_sft

        with self._timed("SFT on its successes") as shown:
            return train_sft(
                SFTOptions(
                    **self._common(),
                    **self.sizes.sft,
                    store=self.paths["store"],
                    min_score=1.0,
                    description="demo: imitates the heuristic's successful episodes",
                ),
                on_step=shown.update,
            )

    def ppo(self, parent: ModelRecord) -> tuple[ModelRecord, list[float]]:
        """Learn from the reward of its own roll-outs; each round plays new maps."""
        from simtune.train.options import PPOOptions
        from simtune.train.ppo import train_ppo

        curve: list[float] = []
        with self._timed("PPO on its own roll-outs") as shown:

            def follow(done: int, total: int | None, metrics: dict[str, float]) -> None:
                curve.append(metrics["success"])
                shown.update(done, total, {"success": metrics["success"]} | metrics)

            record = train_ppo(
                PPOOptions(
                    **self._common(),
                    **self.sizes.ppo,
                    env=LAKE,
                    capture_root=self.paths["store"],
                    adapter=parent.id,
                    description="demo: PPO from the SFT adapter",
                ),
                on_step=follow,
            )
        return record, curve

    def model(self, label: str, record: ModelRecord | None) -> PolicyResult:
        """Evaluate the base model, or an adapter on it, on the held-out maps."""
        from simtune.policy.local import LocalPolicy
        from simtune.registry import Registry

        adapter = None if record is None else Registry(self.paths["models"]).path(record)
        policy = LocalPolicy.load(
            self.paths["base"], adapter, max_new_tokens=4, seed=self.options.seed
        )
        sampled = self._evaluate(f"{label}, sampled", policy)
        policy.greedy = True
        greedy = self._evaluate(f"{label}, greedy", policy)
        return PolicyResult(
            label=label,
            greedy=greedy.success,
            sampled=sampled.success,
            valid=sampled.valid_rate or 0.0,
        )

    def play(self, label: str, policy: Any, *, samples: bool) -> PolicyResult:
        """Evaluate a policy without a model."""
        found = self._evaluate(label, policy)
        return PolicyResult(
            label=label,
            greedy=None if samples else found.success,
            sampled=found.success if samples else None,
            valid=found.valid_rate or 0.0,
        )

    def captured(self) -> dict[str, int]:
        """What the store holds."""
        from simtune.store import read

        return read(self.paths["store"]).count()

    def record(self, result: DemoResult) -> None:
        """Keep the table and the picture, in the directory and in MLflow."""
        from simtune.train.tracking import Tracker

        figure = learning_curve(result)
        figure.savefig(self.paths["picture"], dpi=120)
        encoded = msgspec.json.format(msgspec.json.encode(result), indent=2)
        Path(self.paths["results"]).write_bytes(encoded)
        with Tracker(EXPERIMENT, self.paths["tracking"], run_name="demo") as tracker:
            tracker.params(msgspec.to_builtins(self.options))
            for policy in result.policies:
                rates = {"greedy": policy.greedy, "sampled": policy.sampled}
                name = policy.label.replace(" ", "_")
                tracker.metrics(
                    {f"{name}_{kind}": rate.estimate for kind, rate in rates.items() if rate}, 0
                )
            tracker.artifact(self.paths["picture"])
            tracker.artifact(self.paths["results"])

    def _evaluate(self, label: str, policy: Any) -> Any:
        from simtune.eval.compare import evaluate

        episodes = self.sizes.held_out
        with self._timed(f"evaluate {label}") as shown:
            found = evaluate(
                policy,
                lake.lake,
                episodes=episodes,
                seed=HELD_OUT_SEED,
                label=label,
                num_envs=episodes,
            )
            shown.update(episodes, episodes, {"success": found.mean_return.estimate})
        return found

    def _common(self) -> dict[str, Any]:
        return {
            "llm_path": self.paths["base"],
            "models_dir": self.paths["models"],
            "tracking_uri": self.paths["tracking"],
            "experiment_name": EXPERIMENT,
            "seed": self.options.seed,
        }

    @contextmanager
    def _timed(self, title: str) -> Iterator[Stage]:
        started = time.perf_counter()
        with self.stage(title) as shown:
            yield shown
        self.seconds[title] = round(time.perf_counter() - started, 1)
