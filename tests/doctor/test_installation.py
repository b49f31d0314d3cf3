"""Releases, plugins, devices and limits that do not fit, each really installed or set so."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from collections import namedtuple

import pytest

from simtune import plugins
from simtune.doctor import threads, torch_build
from simtune.doctor.limits import check as check_limits
from tests.doctor.test_log_and_files import Statvfs


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Installs a distribution of metadata alone, in front of all others."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(place)

    def install(name, version, requires=(), entry_points=""):
        folder = place / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {each}" for each in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        (folder / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        return place

    return install


def test_the_installed_releases_fit(found):
    (finding,) = found("versions").values()
    assert finding.level == "ok"


def test_an_optional_library_out_of_range_is_a_warning_with_the_pip_line(found, site):
    site("trl", "0.9.0")
    wrong = found("versions")["version-conflict"]
    assert wrong.level == "warning"
    assert wrong.seen == "simtune 0.1.0 needs trl<2,>=1.16, and 0.9.0 is installed"
    assert wrong.fix == "pip install 'trl<2,>=1.16'"


def test_a_needed_library_out_of_range_is_an_error(found, site):
    site("msgspec", "0.1.0")
    assert found("versions")["version-conflict"].level == "error"


def test_libraries_that_do_not_fit_each_other_are_told(found, site):
    site("peft", "0.21.0", requires=["transformers<4"])
    wrong = found("versions")["version-conflict"]
    assert wrong.seen.startswith("peft 0.21.0 needs transformers<4, and ")


def build(tmp_path, monkeypatch, cuda, gpus):
    for place in ("torch", "gpus"):
        (tmp_path / place).mkdir()
    (tmp_path / "torch" / "version.py").write_text(
        f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda!r}\n"
    )
    spec = namedtuple("Spec", "origin")(str(tmp_path / "torch" / "__init__.py"))
    monkeypatch.setattr(torch_build.importlib.util, "find_spec", lambda name: spec)
    for number in range(gpus):
        (tmp_path / "gpus" / f"0000:0{number}").mkdir()
    monkeypatch.setattr(torch_build, "GPUS", tmp_path / "gpus")


@pytest.mark.parametrize(
    ("cuda", "gpus", "code"),
    [(None, 0, "torch"), ("13.0", 2, "torch"), (None, 1, "cpu-torch")],
)
def test_a_torch_for_cpus_beside_a_gpu_is_a_warning(found, tmp_path, monkeypatch, cuda, gpus, code):
    build(tmp_path, monkeypatch, cuda, gpus)
    (finding,) = found("torch").values()
    assert finding.code == code
    assert "torch 2.13.0" in finding.seen


def test_the_torch_that_is_installed_is_understood(found):
    import torch

    assert found("torch")["torch"].seen.startswith(f"torch {torch.__version__}, built for CUDA ")


def test_the_installed_plugins_load(found):
    assert found("plugins")["plugins"].level == "ok"


def test_a_plugin_that_cannot_be_imported_is_a_warning(found, site):
    site("broken-plugin", "1.0", entry_points="[simtune]\nbroken = no_such_module\n")
    wrong = found("plugins")["failed-plugin"]
    assert wrong.seen == (
        "plugin 'broken' raised in import: ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert "SIMTUNE_BLOCK_PLUGINS=broken" in wrong.fix


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def simtune_desicion(row): ...", "simtune_desicion"),
        ("def simtune_decision(rwo): ...", "rwo"),
    ],
)
def test_a_misspelled_hook_or_argument_is_an_error(found, tmp_path, monkeypatch, body, said):
    (tmp_path / "wrong.py").write_text(f"import simtune\n\n@simtune.hookimpl\n{body}\n")
    monkeypatch.setenv("SIMTUNE_PLUGINS", "wrong.py")
    wrong = found("plugins")["broken-plugin"]
    assert "plugin 'wrong'" in wrong.seen and said in wrong.seen


def test_a_plugin_whose_rewards_fail_to_register_is_a_warning(found, tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text(
        "import simtune\n\n@simtune.hookimpl\n"
        "def simtune_register_rewards(register):\n    raise LookupError('no model of the judge')\n"
    )
    monkeypatch.setenv("SIMTUNE_PLUGINS", "half.py")
    assert found("plugins")["failed-plugin"].seen == (
        "plugin 'half' raised in simtune_register_rewards: LookupError: no model of the judge"
    )


def test_a_plugin_file_that_is_gone_is_an_error(found, monkeypatch):
    monkeypatch.setenv("SIMTUNE_PLUGINS", "gone.py")
    assert "does not exist" in found("plugins")["broken-plugin"].seen


def test_without_its_own_entry_point_simtune_is_to_be_installed_again(found, monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    assert found("plugins")["no-builtin-rewards"].level == "error"


SMI = """#!/bin/sh
echo "NVIDIA A, 1000, {used}"
"""


def smi(tmp_path, monkeypatch, used):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(SMI.format(used=used))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def test_gpus_are_listed_with_what_is_free(found, tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, 100)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "NVIDIA A, 944 MB free" in found("devices")["devices"].seen


def test_a_full_gpu_a_hidden_one_and_little_memory_are_told(found, tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, 990)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "meminfo").write_text("MemAvailable: 500000 kB\n")
    codes = found("devices")
    assert {code: finding.level for code, finding in codes.items()} == {
        "gpu-nearly-full": "warning",
        "hidden-gpu": "note",
        "low-memory": "warning",
    }


def test_few_descriptors_are_a_warning_in_a_process_that_has_few():
    program = (
        "from simtune.doctor import Subject, diagnose\n"
        "import json, msgspec\n"
        "print(json.dumps(msgspec.to_builtins(diagnose(Subject(), ['limits']).findings)))"
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run(
        ["sh", "-c", f'ulimit -S -n 256 && exec "{sys.executable}" -c "$0"', program],
        capture_output=True,
        text=True,
        check=True,
    )
    (finding,) = (each for each in json.loads(done.stdout) if each["level"] == "warning")
    assert finding["code"] == "few-descriptors"
    assert finding["seen"].startswith("256 open files are allowed")
    assert finding["fix"] == f"ulimit -n {4096 if hard == -1 else min(4096, hard)}"


def test_little_shared_memory_is_a_note(monkeypatch):
    fake = Statvfs(0, 4096, 64 * 2**20 // 4096, 0, 0)
    monkeypatch.setattr(os, "statvfs", lambda path: fake)
    codes = {finding.code: finding for finding in check_limits(None)}
    assert codes["small-shared-memory"].seen.startswith("/dev/shm has 67.1 MB")


MAPPED = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 0)
    print("mapped", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("variable", "code"), [(None, "too-many-threads"), ("1", "threads")])
def test_torch_processes_that_ask_for_more_threads_than_cores(
    found, tmp_path, monkeypatch, variable, code
):
    """Real processes that map a file of the library's name stand for those that load it."""
    library = tmp_path / "libtorch_cpu.so"
    library.write_bytes(b"x")
    environment = {"OMP_NUM_THREADS": variable} if variable else {}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MAPPED, str(library)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        for process in started:
            process.stdout.readline()
            shown = tmp_path / "proc" / str(process.pid)
            shown.symlink_to(f"/proc/{process.pid}")
        monkeypatch.setattr(threads, "PROC", tmp_path / "proc")
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
        (finding,) = found("threads").values()
    finally:
        for process in started:
            process.communicate()
    assert finding.code == code
    if variable is None:
        assert finding.seen.startswith("2 processes with torch run 4 threads on 2 cores")
        assert finding.fix.startswith("export OMP_NUM_THREADS=1 ")
