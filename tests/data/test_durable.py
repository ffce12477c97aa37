"""Files and folders are complete or absent, and a machine that cannot write says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.durable import replace_link, write_bytes, write_folder, write_json
from data.errors import EnvironmentProblem

ROOT = Path(__file__).resolve().parents[2]
NEW_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
WRITE_100_KB = (
    "import sys, pathlib, data.durable as d; d.write_bytes(pathlib.Path(sys.argv[1], 'part'), bytes(100_000))"
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_bytes_creates_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for content in (b"first", b"second, longer", b""):
        write_bytes(path, content)
        assert path.read_bytes() == content
        assert names(path.parent) == ["file"]


def test_reader_that_has_the_old_file_open_keeps_it(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with path.open("rb") as file:
        write_bytes(path, b"new")
        assert (file.read(), path.read_bytes()) == (b"old", b"new")


def test_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path, file_size_limit):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(EnvironmentProblem, match="File too large"), file_size_limit(100):
        write_bytes(path, b"x" * 1000)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.fixture
def synced(monkeypatch):
    """The paths that were synced, under the names they had then."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the name behind a descriptor cannot be told here")
    calls, fsync = [], os.fsync

    def spy(descriptor):
        calls.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return calls


def test_content_is_synced_under_the_temporary_name_and_then_the_folder(tmp_path, synced):
    write_bytes(tmp_path / "file", b"x")
    content, folder = synced
    assert content.name.startswith(".tmp-")
    assert folder == tmp_path


def test_everything_in_a_folder_is_synced_under_the_temporary_name(tmp_path, synced):
    write_folder(tmp_path / "folder", fill_two)
    temporary = synced[0].parents[0]
    assert temporary.name.startswith(".tmp-")
    assert synced == [*(temporary / name for name in ("inner", "inner/one", "two")), temporary, tmp_path]


def test_same_document_gives_the_same_bytes(tmp_path):
    write_json(tmp_path / "one", {"b": 1, "a": {"d": "é", "c": None}})
    write_json(tmp_path / "two", {"a": {"c": None, "d": "é"}, "b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "é" in (tmp_path / "one").read_text(encoding="utf-8")


def test_document_that_is_not_json_leaves_the_old_one(tmp_path):
    write_json(tmp_path / "file", {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"loss": float("nan")})
    assert (tmp_path / "file").read_text() == '{\n  "loss": 1.0\n}\n'


def fill_two(folder):
    (folder / "inner").mkdir()
    (folder / "inner" / "one").write_text("1")
    (folder / "two").write_text("2")


def fill_and_fail(folder):
    fill_two(folder)
    raise RuntimeError("out of ideas")


def test_folder_appears_whole(tmp_path):
    write_folder(tmp_path / "new" / "folder", fill_two)
    assert (tmp_path / "new" / "folder" / "inner" / "one").read_text() == "1"
    assert names(tmp_path / "new") == ["folder"]
    assert names(tmp_path / "new" / "folder") == ["inner", "two"]


def test_folder_is_not_there_while_it_is_filled(tmp_path):
    seen = []
    write_folder(tmp_path / "folder", lambda folder: (fill_two(folder), seen.append((tmp_path / "folder").exists())))
    assert seen == [False]


def test_files_in_a_folder_are_as_open_to_others_as_new_files_are(tmp_path):
    def fill(folder):
        (folder / "inner").mkdir()
        (folder / "inner" / "secret").touch(mode=0o600)

    write_folder(tmp_path / "folder", fill)
    (tmp_path / "new").touch()
    assert (tmp_path / "folder" / "inner" / "secret").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_folder_does_not_appear_when_filling_fails(tmp_path):
    with pytest.raises(RuntimeError, match="out of ideas"):
        write_folder(tmp_path / "folder", fill_and_fail)
    assert names(tmp_path) == []


def test_old_folder_stays_when_filling_fails(tmp_path):
    write_folder(tmp_path / "folder", fill_two)
    with pytest.raises(RuntimeError, match="out of ideas"):
        write_folder(tmp_path / "folder", fill_and_fail)
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["inner", "two"]


def test_folder_is_replaced_as_a_whole(tmp_path):
    write_folder(tmp_path / "folder", fill_two)
    write_folder(tmp_path / "folder", lambda folder: (folder / "three").write_text("3"))
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["three"]


def test_link_is_relative_and_can_be_pointed_elsewhere(tmp_path):
    for target in ("runs/one", "runs/two"):
        (tmp_path / target).mkdir(parents=True)
        replace_link(tmp_path / "latest", tmp_path / target)
        assert (tmp_path / "latest").readlink() == Path(target)
    assert names(tmp_path) == ["latest", "runs"]


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a folder in which not even root may write")
def test_folder_that_cannot_be_written_is_named_with_what_to_do():
    with pytest.raises(EnvironmentProblem) as caught:
        write_bytes(Path("/sys/kernel/pipeline-test/file"), b"x")
    assert str(caught.value).startswith("Cannot write to /sys/kernel/pipeline-test: ")
    assert "make the folder writable, or point `workdir` elsewhere, and run the same command again" in str(caught.value)


@pytest.mark.parametrize("below", ["file", "folder/file"])
def test_file_where_a_folder_should_be_is_named(tmp_path, below):
    (tmp_path / "workdir").write_text("a file")
    with pytest.raises(EnvironmentProblem, match=r"^Cannot write to .*workdir"):
        write_bytes(tmp_path / "workdir" / below, b"x")


def test_full_disk_is_named_and_nothing_incomplete_stays(tmp_path):
    mount = f"mount -t tmpfs -o size=64k tmpfs {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*NEW_NAMESPACE, mount], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    script = f'{mount} && "$0" -c "$1" {tmp_path}; ls -A {tmp_path} >&2'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*NEW_NAMESPACE, script, sys.executable, WRITE_100_KB], env=environment, capture_output=True, text=True
    )
    last_line = done.stderr.splitlines()[-1]  # what `ls` would print comes after it
    assert last_line.startswith(
        f"data.errors.EnvironmentProblem: Cannot write to {tmp_path}: No space left on device ("
    ), done.stderr
    assert "Nothing incomplete was left behind. Free some space" in last_line
