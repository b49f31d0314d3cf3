"""A tiny base model that has seen the crossing's words, and uniformly random answers."""

import random
import sys
from pathlib import Path

from crossing import ROADS, Crossing

from simtune.policy.tiny import build_model, build_tokenizer, fit_to_play, save_base


def main(output: str) -> None:
    """Make it: `python base.py DIRECTORY`."""
    chance = random.Random(0)
    played = [
        [
            {"role": "user", "content": Crossing(seed).describe()},
            {"role": "assistant", "content": chance.choice(ROADS)},
        ]
        for seed in range(400)
    ]
    tokenizer = build_tokenizer(message["content"] for chat in played for message in chat)
    model = build_model(tokenizer)
    fit_to_play(model, tokenizer, played, steps=60)
    save_base(model, tokenizer, Path(output))


if __name__ == "__main__":
    main(sys.argv[1])
