"""Capture a simulation's decisions: `python examples/01_capture.py [STORE]`.

Three lines are added to a simulation: a decorator, a `with`, and a reward.
"""

import random
import sys
import tempfile

from junction import STEPS, Junction, Messages, parse

import simtune

chance = random.Random(0)


@simtune.capture(agent="signal", parse=parse)
def ask(messages: Messages) -> str:
    """Where the simulation asks its model; this stand-in guesses, and sometimes rambles."""
    return chance.choice(["north", "East, I think.", "Green for east", "Both roads look busy."])


def simulate(seed: int) -> None:
    """One episode: ask, act, reward."""
    junction = Junction(seed)
    with simtune.episode(env="junction", seed=seed) as episode:
        for _ in range(STEPS):
            answer = ask([{"role": "user", "content": junction.describe()}])
            try:
                green = parse(answer)
            except ValueError:
                green = None  # the simulation goes on; the decision is kept as invalid
            waiting = junction.step(green)
            simtune.reward(-waiting)
        episode.finish(truncated=True, outcome={"success": waiting < 6})


def main(root: str) -> None:
    """Play twenty episodes, then look at what was captured."""
    simtune.configure(root=root)
    for seed in range(20):
        simulate(seed)

    store = simtune.read(root)
    counts = store.count()
    print(f"{counts['episodes']} episodes, {counts['decisions']} decisions in {root}")
    best = max(store.episodes(), key=lambda episode: episode.total_reward)
    print(f"best: seed {best.metadata['seed']}, reward {best.total_reward:.0f}")
    for decision in best.decisions[:3]:
        print(f"  {decision.prompt[-1]['content']} -> {decision.response!r} {decision.reward:+.0f}")
    invalid = store.sql("SELECT count(*) AS n FROM decisions WHERE NOT valid")
    print(f"{invalid['n'][0]} answers named no road")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
