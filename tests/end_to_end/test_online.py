"""Simulations, trainer and server as real processes, killed with SIGKILL and started again.

They share a store and an endpoint. What must hold: no episode is consumed twice, every decision
carries the hash of the adapter that made it, returns rise while all run, a bad adapter is refused,
and a broken champion is rolled back.
"""

import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

import pytest

from simtune.policy.local import LocalPolicy
from simtune.registry import Registry
from simtune.registry.promotion import champion_of, history_of
from simtune.store import Cursor, read, tail
from simtune.train import checkpoints, journal

EXAMPLE = Path(__file__).parents[2] / "examples" / "04_online"
PATIENCE = 400
"""Seconds for one thing to happen, on a machine that does much else."""


def of_example(name):
    """A module of the example; its directory begins with a digit."""
    spec = importlib.util.spec_from_file_location(f"online_{name}", EXAMPLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


programs = of_example("programs")


class Machine:
    """Programs that share a directory; any of them can be killed and started again.

    Args:
        place: the directory.
        names: of the programs of the example that are wanted.
        small_rounds: of four episodes, from simulations that take their time.
    """

    def __init__(self, place, names, *, small_rounds=False):
        self.place = place
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.commands = {name: programs.commands(self.port)[name] for name in names}
        self.running = {}
        self._new, self._seen = tail(str(place / "store")), []
        for name, command in self.commands.items():
            if small_rounds and name == "trainer":
                command[:] = ["4" if word == "48" else word for word in command]
            elif small_rounds and name != "server":
                command.append("0.2")
            self.start(name)

    def start(self, name):
        with open(self.place / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                self.commands[name],
                cwd=self.place,
                env=programs.SETTINGS,
                stdout=log,
                stderr=log,
                # Killed with its children: the shell's curl, too.
                start_new_session=True,
            )

    def kill(self, name):
        assert self.running[name].poll() is None, self.said(name)
        os.killpg(self.running[name].pid, signal.SIGKILL)
        self.running.pop(name).wait()

    def end(self, name):
        """Ask it to end; returns its exit code."""
        self.running[name].terminate()
        code = self.running[name].wait(PATIENCE)
        del self.running[name]
        return code

    def said(self, name):
        return (self.place / f"{name}.log").read_text()[-3000:]

    def wait(self, until, *, watched=("server", "trainer")):
        """Until something holds, while the programs live."""
        deadline = time.monotonic() + PATIENCE
        while not (found := until()):
            for name in watched:
                if name in self.running:
                    assert self.running[name].poll() is None, self.said(name)
            assert time.monotonic() < deadline, {name: self.said(name) for name in self.commands}
            time.sleep(0.5)
        return found

    def run(self, words):
        """A command of simtune's that must not fail; returns its exit code."""
        done = subprocess.run(
            [str(programs.SIMTUNE), *words.split()],
            cwd=self.place,
            env=programs.SETTINGS,
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.returncode

    def close(self):
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.clear()

    # What the machine has done

    @property
    def registry(self):
        return Registry(self.place / "models")

    def episodes(self):
        """Complete episodes in the order of their ends: (adapters, return)."""
        for episode in self._new.episodes():
            adapters = {decision.adapter for decision in episode.decisions}
            self._seen.append((adapters, episode.total_reward))
        return self._seen

    def of(self, adapter):
        """Returns of an adapter's episodes."""
        return [value for made_by, value in self.episodes() if made_by == {adapter}]

    def rounds(self):
        return max(
            (int(one.name[6:]) for one in self.place.glob("models/checkpoints/*/round-*")),
            default=0,
        )


@pytest.fixture
def machine(tmp_path):
    """Makes machines, and ends what they run."""
    made = []

    def make(*arguments, **named):
        made.append(Machine(tmp_path, *arguments, **named))
        return made[-1]

    yield make
    for one in made:
        one.close()


def check_once(place):
    """Every complete episode was taken by the trainer, or is still before it; none twice."""
    (run,) = (one for one in (place / "models" / "checkpoints").iterdir() if one.is_dir())
    source = checkpoints.newest(run).state.source
    lines = (run / journal.FILE).read_bytes()[: source["journal"]].splitlines()
    taken = [json.loads(line) for line in lines]
    store = read(place / "store")
    rest = [one.episode_id for one in store.tail(Cursor.from_json(source["cursor"])).episodes()]
    ended = [one.episode_id for one in store.episodes(ended=True)]
    assert len(ended) == len(set(ended))
    assert sorted([*(episode for episode, _, _ in taken), *rest]) == sorted(ended)
    return taken


def check_hashes(machine, decisions_each=20):
    """Captured probabilities are those of the adapter that each decision names, and of no other."""
    place, by_adapter = machine.place, {}
    for episode in read(place / "store").episodes():
        for decision in episode.decisions:
            by_adapter.setdefault(decision.adapter, []).append(decision)
    paths = {one.weights_sha256: place / "models" / one.path for one in machine.registry.list()}
    assert set(by_adapter) <= {None, *paths}
    before = None
    for adapter in [None, *(one for one in paths if one in by_adapter)][-6:]:
        some = by_adapter[adapter][-decisions_each:]
        policy = LocalPolicy.load(place / "base", paths.get(adapter), decision="choose")
        replies = policy.act(
            [decision.prompt for decision in some], choices=[decision.choices for decision in some]
        )
        found = [list(reply.choice_logprobs) for reply in replies]
        for decision, expected in zip(some, found, strict=True):
            assert list(decision.choice_logprobs) == pytest.approx(expected, abs=1e-4)
        if before is not None:
            others = [
                list(reply.choice_logprobs)
                for reply in before.act(
                    [decision.prompt for decision in some],
                    choices=[decision.choices for decision in some],
                )
            ]
            assert (
                max(
                    abs(a - b)
                    for x, y in zip(found, others, strict=True)
                    for a, b in zip(x, y, strict=True)
                )
                > 1e-3
            )
        before = policy
    return by_adapter


def test_a_trainer_and_a_server_are_killed_while_a_simulation_plays(machine, bare_base, tmp_path):
    """The short one: two rounds, a swap, both killed once, two rounds more."""

    (tmp_path / "base").symlink_to(bare_base)
    here = machine(["server", "trainer", "urllib"], small_rounds=True)

    def swapped():
        records = here.registry.list()
        return here.rounds() >= 2 and records and here.of(records[-1].weights_sha256)

    here.wait(swapped)
    done, known = here.rounds(), {one.weights_sha256 for one in here.registry.list()}
    for name in ("trainer", "server"):
        here.kill(name)
        here.start(name)

    def swapped_again():
        newer = [one for one in here.registry.list() if one.weights_sha256 not in known]
        return here.rounds() >= done + 2 and any(here.of(one.weights_sha256) for one in newer)

    here.wait(swapped_again)
    assert here.end("trainer") == 0
    here.close()
    taken = check_once(tmp_path)
    learned = [number for _, number, what in taken if what == "learned"]
    assert learned == [number for number in range(len(learned) // 4) for _ in range(4)]
    assert len(check_hashes(here)) >= 3


@pytest.mark.slow
def test_everything_online_killed_at_random(machine, tmp_path):
    """The whole example, with eight kills while it learns."""
    seed = int(os.environ.get("ONLINE_SEED", "0")) or random.randrange(1, 10**6)
    print(f"ONLINE_SEED={seed}")
    chance = random.Random(seed)
    subprocess.run(
        [sys.executable, EXAMPLE / "base.py", "base"],
        cwd=tmp_path,
        env=programs.SETTINGS,
        check=True,
    )
    names = ["server", "trainer", "openai", "urllib", "curl"]
    here = machine(names)
    here.wait(lambda: here.rounds() >= 2)
    victims = [*chance.choices(names, k=4), "trainer", "server", "openai", "curl"]
    chance.shuffle(victims)
    for victim in victims:
        time.sleep(chance.uniform(1, 10))
        here.kill(victim)
        time.sleep(chance.uniform(0, 2))
        here.start(victim)

    # Learning goes on: of the episodes that `latest` decided, the last third is better.
    def of_trained():
        return [value for made_by, value in here.episodes() if None not in made_by]

    def risen():
        values = of_trained()
        return len(values) > 300 and fmean(values[-100:]) > 1.5

    here.wait(risen)
    assert here.run(f"{programs.GATE} --model latest") == 0
    good = champion_of(here.registry)

    here.commands["watch"] = [str(programs.SIMTUNE), *programs.WATCH.split()]
    here.start("watch")
    here.wait(lambda: len(here.of(good.weights_sha256)) >= 40)
    values = [value for _, value in here.episodes()]
    third = len(values) // 3
    assert fmean(values[-third:]) > fmean(values[:third]) + 0.5

    # An adapter that learned from a reward with the wrong sign.
    assert here.run(programs.TRAIN_WRONG) == 0
    bad = [one for one in here.registry.list() if one.method == "sft"][-1]
    assert here.run(f"{programs.GATE} --model {bad.id}") == 1
    assert champion_of(here.registry).id == good.id

    # Promoted all the same, and found out by its own scores. The watch, too, may be killed.
    assert here.run(f"models promote {bad.id} --reason in-a-hurry") == 0
    here.kill("watch")
    here.start("watch")
    here.wait(lambda: history_of(here.registry)[-1].event == "rolled_back")
    assert [(one.event, one.by, one.model, one.after) for one in history_of(here.registry)] == [
        ("promoted", "gate", good.id, good.id),
        ("refused", "gate", bad.id, good.id),
        ("promoted", "hand", bad.id, bad.id),
        ("rolled_back", "watch", bad.id, good.id),
    ]
    rolled = len(here.of(good.weights_sha256))
    here.wait(lambda: len(here.of(good.weights_sha256)) > rolled)

    assert here.end("trainer") == 0
    here.close()
    check_once(tmp_path)
    check_hashes(here)
    assert here.registry.get(bad.id).status == "retired"
