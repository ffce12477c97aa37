"""The flight recorder's purpose: rows whose sides were exchanged are found by what training saw of them."""

from tests.poisoned import poisoned_rows
from tests.tiny import write_jsonl


def test_twenty_poisoned_rows_are_among_the_fifty_worst(work):
    rows, bad = poisoned_rows(300, 20)
    write_jsonl(work.data, rows)
    settings = ("data.eval_fraction=0", "train.pairs_per_step=8")
    work.run("precompute-ref", *settings)
    work.run("train", *settings)
    document = work.run("inspect", "--dry-run", *settings, arguments={"worst": True, "limit": 50})
    assert document["found"] == 300 and {shown["visit"]["visits"] for shown in document["shown"]} == {2}
    worst = {shown["location"] for shown in document["shown"]}
    assert {f"{work.data}:{place + 1}" for place in bad} <= worst
    run = work.root / "runs" / document["run"]
    assert (run / "visits.parquet").is_file() and not (run / "visits").exists()
