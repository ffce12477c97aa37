"""Any number of workers, none of which knows of another, gives the rows of one."""

import json
import os
import subprocess
import sys

import pytest

from tests.tiny import ROOT


def torchrun(work, n, *settings):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n), "--no-python"]
    command += [sys.executable, "-m", "pipeline", "precompute-ref", "--config", str(work.config), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *settings], env=environment, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize("n", [2, 4])
def test_torchrun_shares_the_prompts_out(work, make_work, n):
    golden = make_work()
    golden.run("precompute-ref")
    done = torchrun(work, n)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shard"] == f"0/{n}"  # the first worker alone prints
    costs = [json.loads(path.read_text()) for path in (work.root / "store").glob("*/costs/*.json")]
    assert sorted(cost["shard"] for cost in costs) == [f"{i}/{n}" for i in range(n)]
    assert sum(cost["pairs"] for cost in costs) == 40
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    assert work.run("verify")["references"][0]["pairs"] == golden.run("verify")["references"][0]["pairs"] == 40


@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_workers_gives_the_rows_of_one(make_work, count):
    golden, work = make_work(), make_work()
    golden.run("precompute-ref")
    documents = [work.run("precompute-ref", arguments={"shard": f"{i}/{count}"}) for i in reversed(range(count))]
    assert sum(document["pairs_scored"] for document in documents) == 40
    assert {document["pairs_stored_before"] for document in documents} == {0}
    assert work.stored_rows().equals(golden.stored_rows())
    assert work.run("precompute-ref")["status"] == "nothing_to_do"


def test_workers_that_start_together_and_one_that_joins_late_share_the_work(work):
    """Real processes, on a work folder in which nothing is prepared yet."""
    command = [sys.executable, "-m", "pipeline", "precompute-ref", "--config", str(work.config), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(
            [*command, "--shard", f"{i}/2"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for i in range(2)
    ]
    documents = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [document["exit_code"] for document in documents] == [0, 0]
    assert sum(document["pairs_scored"] for document in documents) == 40
    late = work.run("precompute-ref", arguments={"shard": "1/4"})
    assert late["status"] == "nothing_to_do" and late["shard"] == "1/4"
    assert len(work.stored_rows()) == 40
    assert work.run("train", "train.epochs=1")["status"] == "done"


def test_a_worker_that_died_leaves_its_share_and_training_says_so(work):
    work.run("precompute-ref", arguments={"shard": "0/2"})
    stored = len(work.stored_rows())
    message = work.run("train", expect=4)["message"]
    assert "pairs have no reference log-probs under reference tiny-float32" in message
    assert work.run("precompute-ref", arguments={"shard": "1/2"})["pairs_scored"] == 40 - stored
    assert work.run("train", "train.epochs=1")["status"] == "done"
