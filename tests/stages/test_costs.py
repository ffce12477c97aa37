"""The ledger: what scoring took, and what stored rows spared."""

import pytest

from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from tests.tiny import example_rows, write_jsonl


def test_each_job_that_scores_leaves_what_it_took_and_a_later_one_says_what_was_saved(work):
    first = work.run("precompute-ref")
    assert "seconds_saved" not in first
    write_jsonl(work.data, example_rows(41))
    second = work.run("precompute-ref")
    store = ReferenceStore(LocalStorage(work.root / "store"), first["reference_id"])
    costs = store.costs()
    assert [(cost["pairs"], cost["responses"]) for cost in costs] == [(40, 80), (1, 2)]
    assert [cost["tokens"] for cost in costs] == [first["tokens"], second["tokens"]]
    assert costs[0]["seconds"] == pytest.approx(first["seconds"], abs=1e-3)
    assert second["seconds_saved"] == pytest.approx(40 * costs[0]["seconds"] / 40, abs=0.06)
    work.run("precompute-ref")
    assert len(store.costs()) == 2 and store.costs(last=1) == costs[1:]
    trained = work.run("train", "train.epochs=3")
    rate = costs[1]["seconds"] / 2  # of the last job, a response
    assert trained["seconds_saved"] == pytest.approx(rate * 2 * trained["pairs"] * 3, abs=0.06)
    evaluated = work.run("eval", "train.epochs=3")
    assert evaluated["seconds_saved"] == pytest.approx(rate * 2 * evaluated["pairs"], abs=0.06)


@pytest.mark.parametrize("content", ["{", "[1]", "7"])
def test_an_account_that_cannot_be_read_is_passed_over(work, caplog, content):
    first = work.run("precompute-ref")
    store = ReferenceStore(LocalStorage(work.root / "store"), first["reference_id"])
    (work.root / "store" / first["reference_id"] / "costs" / "20990101T000000.000000Z-0.json").write_text(content)
    with caplog.at_level("WARNING"):
        assert [cost["pairs"] for cost in store.costs()] == [40]
    assert "cannot be read and is passed over" in caplog.text
