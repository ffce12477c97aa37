"""Any number of workers, none of which knows of another, gives the rows of one."""

import json

import pytest

from tests.jobs import Command
from tests.torchrun import finish, start

COMMAND = ("precompute-ref", "--json", "--config")


@pytest.mark.parametrize("n", [2, 4])
def test_torchrun_shares_the_prompts_out(work, make_work, commands, n):
    golden = make_work()
    golden.run("precompute-ref")
    code, out, err = finish(start(commands, n, "pipeline", *COMMAND, str(work.config)))
    assert code == 0, err
    assert json.loads(out)["shard"] == f"0/{n}"  # the first worker alone prints
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
    workers = [Command([*COMMAND, str(work.config), "--shard", f"{i}/2"], work.folder) for i in range(2)]
    documents = [json.loads(worker.finish().stdout) for worker in workers]
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
