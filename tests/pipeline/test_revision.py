"""A revision is that of the checkout around a folder, and says whether anything differs from it."""

import os
import shutil
import subprocess

import pytest

from pipeline.revision import PROGRAM, own_revision, revision

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def git(folder, *arguments):
    who = {"GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e", "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "e"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=os.environ | who, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_that_of_the_checkout_and_tells_what_differs(tmp_path):
    asked = revision.__wrapped__
    assert asked(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert asked(tmp_path) is None  # there is no commit yet
    (tmp_path / "a").write_text("a")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "a")
    (tmp_path / "inner").mkdir()
    head = git(tmp_path, "rev-parse", "HEAD")
    assert asked(tmp_path / "inner") == (head, False) and str(asked(tmp_path)) == head[:10]
    (tmp_path / "a").write_text("b")
    assert asked(tmp_path / "inner") == (head, True) and str(asked(tmp_path)) == f"{head[:10]}, with changes"


def test_an_installed_program_has_none_of_a_checkout_around_it(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "a")
    monkeypatch.setattr("pipeline.revision.PROGRAM", tmp_path / "site-packages")
    assert own_revision() is None
    monkeypatch.setattr("pipeline.revision.PROGRAM", tmp_path)
    assert own_revision() is not None
    assert (PROGRAM / "pyproject.toml").exists()
