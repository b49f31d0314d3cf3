"""A simulation that asks through OpenAI's client: `python with_openai.py URL MODEL [SECONDS]`.

Three things make its answers decisions of an episode: a header, a reward, and an end.
"""

import itertools
import sys
import time
import uuid

import openai
from crossing import ROADS, Crossing


def play(client: openai.OpenAI, model: str, seed: int) -> None:
    """One episode."""
    crossing = Crossing(seed)
    episode = f"openai-{uuid.uuid4().hex}"
    while not crossing.over:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": crossing.describe()}],
            extra_headers={"x-simtune-episode": episode},
            extra_body={"choices": ROADS},
        )
        reward = crossing.step(answer.choices[0].message.content or "")
        client.post(f"/simtune/episodes/{episode}/reward", body={"reward": reward}, cast_to=object)
    end = {"terminated": True, "outcome": {"success": crossing.success}}
    client.post(f"/simtune/episodes/{episode}/finish", body=end, cast_to=object)


def main(url: str, model: str, pause: str = "0.02") -> None:
    """Play until somebody ends it."""
    # A request that is asked again would reward a decision twice: a broken episode is left.
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)
    for seed in itertools.count(1_000_000):
        try:
            play(client, model, seed)
        except openai.APIError as error:
            print(f"episode left: {error}", file=sys.stderr)
            time.sleep(0.5)
        time.sleep(float(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
