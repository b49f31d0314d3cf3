"""A simulation with nothing but Python: `python with_urllib.py URL MODEL [SECONDS]`."""

import itertools
import json
import sys
import time
import urllib.request
import uuid
from typing import Any

from crossing import ROADS, Crossing


def post(url: str, body: dict[str, Any], episode: str) -> Any:
    """Post JSON; returns the JSON that comes back."""
    headers = {"content-type": "application/json", "x-simtune-episode": episode}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def play(url: str, model: str, seed: int) -> None:
    """One episode."""
    crossing = Crossing(seed)
    episode = f"urllib-{uuid.uuid4().hex}"
    here = f"{url}/simtune/episodes/{episode}"
    while not crossing.over:
        message = {"role": "user", "content": crossing.describe()}
        asked = {"model": model, "messages": [message], "choices": ROADS}
        answer = post(f"{url}/chat/completions", asked, episode)
        reward = crossing.step(answer["choices"][0]["message"]["content"])
        post(f"{here}/reward", {"reward": reward}, episode)
    end = {"terminated": True, "outcome": {"success": crossing.success}}
    post(f"{here}/finish", end, episode)


def main(url: str, model: str, pause: str = "0.02") -> None:
    """Play until somebody ends it."""
    for seed in itertools.count(2_000_000):
        try:
            play(url, model, seed)
        except OSError as error:  # no server, or one that refuses: the episode is left
            print(f"episode left: {error}", file=sys.stderr)
            time.sleep(0.5)
        time.sleep(float(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
