"""Workers under torchrun: as many processes as asked for, none of which knows of another."""

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
    documents = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sorted(document["shard"] for document in documents) == [f"{i}/{n}" for i in range(n)]
    assert sum(document["pairs_scored"] for document in documents) == 40
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    assert work.run("verify")["references"][0]["pairs"] == golden.run("verify")["references"][0]["pairs"] == 40
