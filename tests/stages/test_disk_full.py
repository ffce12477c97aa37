"""A disk that is full: a real file system of 256 KiB, mounted for the test."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tiny import example_rows, write_jsonl


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a tmpfs of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_scoring_stops_with_what_to_do_and_goes_on_when_there_is_room(work, small_disk):
    write_jsonl(work.data, example_rows(400))
    url = f"store.url={small_disk / 'store'}"
    document = work.run("precompute-ref", url, expect=6)
    assert f"Cannot write to {small_disk / 'store'}" in document["message"]
    assert "No space left on device" in document["message"] and "bytes are free there" in document["message"]
    assert "run the same command again" in document["message"]
    assert not list(small_disk.rglob(".tmp-*"))
    kept = len(list(small_disk.glob("store/*/parts/*")))
    assert kept > 5
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    document = work.run("precompute-ref", url)
    assert document["pairs_stored_before"] >= 8 * kept and document["pairs_scored"] < 400
    whole = work.run("verify", url)
    assert whole["references"][0]["pairs"] == 400


def test_a_store_that_may_only_be_read_is_read(work, small_disk):
    """Training, evaluation and a finished rerun need no more."""
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    url = f"store.url={small_disk / 'store'}"
    work.run("precompute-ref", url)
    shutil.copytree(work.root, work.folder / "kept")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert work.run("precompute-ref", url)["status"] == "nothing_to_do"
    assert work.run("train", url, "train.epochs=1")["status"] == "done"
    assert work.run("eval", url, "train.epochs=1")["status"] == "done"
    assert work.run("verify", url)["exit_code"] == 0
    write_jsonl(work.data, example_rows(41))
    message = work.run("precompute-ref", url, expect=6)["message"]
    assert "Read-only file system" in message and "or make the folder writable" in message
    assert Path(small_disk / "store").is_dir()
