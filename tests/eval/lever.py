"""Two levers: the right one pays nine times in ten, the left one three times."""

from __future__ import annotations

import gymnasium
import torch
from gymnasium.spaces import Discrete
from peft import LoraConfig, get_peft_model

from simtune.gym import TextEnv, rollout
from simtune.policy.adapter_hash import adapter_sha256
from simtune.policy.choices import OptionIds
from simtune.policy.local import LocalPolicy, load_base, quiet
from simtune.policy.tiny import build_model, build_tokenizer, save_base

CHANCES = (0.3, 0.9)
NAMES = ("left", "right")
SPEC = "tests.eval.lever:make"


class Lever(gymnasium.Env):
    observation_space = Discrete(1)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.luck = float(self.np_random.random())
        return 0, {}

    def step(self, action):
        won = self.luck < CHANCES[int(action)]
        return 0, float(won), True, False, {"success": won}


def make():
    return TextEnv(Lever(), render=lambda *_: "pull", actions=NAMES, instructions="Pull a lever.")


def make_base(path):
    tokenizer = build_tokenizer(["left", "right", "pull a lever"] * 20, vocab_size=300)
    save_base(build_model(tokenizer, seed=0), tokenizer, path)
    return path


def make_adapter(registry, base, wanted, *, steps=12, seed=0):
    """Register an adapter that pulls the lever of a name."""
    model, tokenizer = load_base(base)
    torch.manual_seed(seed)
    with quiet():
        tuned = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
        )
    (played,) = rollout(
        make, LocalPolicy(tuned, tokenizer, decision="choose"), episodes=1, capture=False
    )
    prompt = torch.tensor([played.decisions[0].prompt_token_ids])
    options = OptionIds(tokenizer)(NAMES)
    optimizer = torch.optim.Adam([p for p in tuned.parameters() if p.requires_grad], lr=0.02)
    place = NAMES.index(wanted)
    for _ in range(steps):
        scores = tuned(prompt).logits[0, -1].float().log_softmax(-1)
        firsts = scores[[option[0] for option in options]]
        loss = -firsts.log_softmax(-1)[place]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tuned.eval()
    with registry.staging() as staged:
        tuned.save_pretrained(str(staged))
        return registry.register(
            staged,
            method="sft",
            base_model=str(base),
            weights_sha256=adapter_sha256(tuned),
            parameters={"decision": "choose"},
        )
