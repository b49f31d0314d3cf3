"""A simulation in a process of its own: episodes of two decisions, sampled as if by an adapter.

python -m tests.train.simulating ROOT EPISODES SECONDS_BETWEEN [ADAPTER]
"""

import sys
import time

import simtune

VOCABULARY = 60


def play(root, episodes, pause=0.0, adapter=None, *, wanted=None):
    """Episodes that end well; the ids are some that the tiny model has."""
    wanted = wanted or {}
    for number in range(episodes):
        with simtune.episode(env="tapping", root=root, seed=number) as episode:
            for step in range(2):
                ids = [(7 * number + 3 * step + i) % VOCABULARY for i in range(3)]
                reply = simtune.Reply(
                    "tap",
                    prompt_token_ids=wanted.get("prompt_token_ids", ids),
                    token_ids=[5 + number % 7, 4],
                    logprobs=wanted.get("logprobs", [-4.0, -4.5]),
                    sampling={"temperature": 1.0},
                    model="base",
                    adapter=adapter,
                )
                episode.decision("tap?", reply, reward=float(number % 2))
        time.sleep(pause)


if __name__ == "__main__":
    root, episodes, pause, *adapter = sys.argv[1:]
    play(root, int(episodes), float(pause), *adapter)
    simtune.flush()
