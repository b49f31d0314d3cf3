"""The real 135M instruct model: made, tuned for one step, and talking."""

import json

import pytest

pytestmark = pytest.mark.slow

ROWS = [{"prompt": "Which way, left or right?", "output": "left", "rating": 5}] * 2


@pytest.fixture(scope="module")
def place(tmp_path_factory, simtune):
    place = tmp_path_factory.mktemp("smollm2")
    (place / "rows.json").write_text(json.dumps(ROWS))
    simtune("models", "pull-base", "smollm2-135m", "--output", "base", cwd=place)
    return place


# Raised inside peft, which still asks transformers for the property by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_it_learns_a_step_and_answers(place, simtune):
    from simtune.policy.local import LocalPolicy

    flags = ("--dataset-path", "rows.json", "--set", "max_steps=1", "--lora-r", "4", "--json")
    record = json.loads(simtune("train", "sft", "--llm-path", "base", *flags, cwd=place).out)
    assert record["data"]["decisions"] == 2
    question = [{"role": "user", "content": "What is the capital of France?"}]
    adapter = place / "models" / record["path"]
    policy = LocalPolicy.load(place / "base", adapter, greedy=True, max_new_tokens=24)
    assert "Paris" in policy(question)
