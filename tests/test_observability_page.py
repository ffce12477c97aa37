"""The queries of docs/observability.md, run by jq over what real jobs leave."""

import json
import re
import shutil
import subprocess

import pytest

from pipeline.chain import Options, run_command
from pipeline.command import logs_as
from tests.tiny import ROOT, unchanged_process

PAGE = (ROOT / "docs/observability.md").read_text()
QUERIES = re.findall(r"^\$ (jq .*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model_folder):
    """A log and a work folder, under the names of the page."""
    from _pytest.capture import FDCapture

    from tests.tiny import Work

    work = Work(tmp_path_factory.mktemp("page"), model_folder)
    capture = FDCapture(2)
    capture.start()
    with unchanged_process(), logs_as("json"):
        assert run_command("run", Options(work.config, [], True, False, False, 0)) == 0
    (work.folder / "log.jsonl").write_text(capture.snap() + "a line of a native library\n")
    capture.done()
    return work.folder


def ask(folder, query):
    done = subprocess.run(query, shell=True, cwd=folder, capture_output=True, text=True, check=True)  # the page's own
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq here")
def test_the_queries_find_what_they_say(folder):
    whole, warned, trained, seconds, by_job, record = (ask(folder, query) for query in QUERIES)
    assert json.loads(whole[-1])["message"] == "a line of a native library"
    assert json.loads(whole[-2])["message"] == "run: done"
    assert [json.loads(line)["job"] for line in warned] == ["precompute-ref"] * 2
    assert [line.split("\t")[1] for line in trained] == ["0", "68"] and float(trained[1].split("\t")[2]) < 0.7
    lines = (folder / "work/jobs/ledger.jsonl").read_text().splitlines()
    ends = [entry for entry in map(json.loads, lines) if entry["status"] == "done"]
    by_hand = {entry["job"]: sum(entry["device_seconds"].values()) for entry in ends}
    assert float(seconds[0]) == pytest.approx(sum(by_hand.values()))
    found = {job: (int(n), float(took)) for job, n, took in (line.split("\t") for line in by_job)}
    assert found == {job: (1, pytest.approx(took)) for job, took in by_hand.items()}
    assert [json.loads(line)["job"] for line in record] == ["train", "eval"]


@pytest.mark.parametrize("line", re.findall(r'^\{"time".*$', PAGE, re.MULTILINE))
def test_lines_that_the_page_shows_are_objects(line):
    assert list(json.loads(line))[:5] == ["time", "level", "logger", "job", "message"]
