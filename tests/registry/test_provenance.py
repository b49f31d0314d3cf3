"""Which code trained a model."""

import subprocess
from importlib.metadata import version

from simtune.registry.provenance import code_commit, library_versions


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def repository(path):
    (path / "simtune").mkdir(parents=True)
    (path / "simtune" / "code.py").write_text("1")
    git(path, "init", "-q")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "first")
    git(path, "tag", "v1")
    return path / "simtune"


def test_the_commit_is_that_of_the_repository_simtune_runs_from(tmp_path):
    package = repository(tmp_path / "checkout")
    commit = git(tmp_path / "checkout", "rev-parse", "HEAD")
    assert code_commit(package) == commit
    (package / "code.py").write_text("2")
    assert code_commit(package) == f"{commit}-dirty"


def test_a_repository_that_merely_holds_an_installation_says_nothing(tmp_path):
    repository(tmp_path / "theirs")
    installed = tmp_path / "theirs" / "venv" / "simtune"
    installed.mkdir(parents=True)
    assert code_commit(installed) == ""


def test_no_repository_and_no_commit(tmp_path):
    assert code_commit(tmp_path) == ""


def test_libraries_are_those_that_are_installed():
    found = library_versions()
    assert found["torch"] == version("torch")
    assert "vllm" not in found
