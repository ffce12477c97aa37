"""Log-probs of another program enter under their own name, checked on a sample, and train as any others."""

import json

import pyarrow as pa
import pytest

from data.schema import SourceRow
from data.sources.source import Source
from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from pipeline.ledger import read
from stages.import_rows import read_imported
from tests.tiny import example_rows, save_model, write_jsonl

THEIRS = Source(path="theirs.jsonl")


@pytest.fixture
def scored(work):
    """The rows with the sums that this program gives, as another might write them."""
    document = work.run("precompute-ref")
    store = ReferenceStore(LocalStorage(work.root / "store"), document["reference_id"])
    sums = {row["pair_key"]: row for row in store.rows().to_dicts()}
    pairs = work.prepared().all
    return [(example_rows(40)[int(pair.location.rpartition(":")[2]) - 1], pair, sums[pair.key]) for pair in pairs]


class NoTokenizer:
    """Token ids need none."""

    def tokenize(self, pairs):
        assert list(pairs) == []
        return []


def with_sums(row, sums, shift=0.0):
    return row | {name: sums[name] + shift for name in ("ref_chosen_logps", "ref_rejected_logps")}


def bring_in(work, rows, *settings, name="theirs", expect=0, **more):
    file = write_jsonl(work.folder / "theirs.jsonl", rows)
    return work.run("import", *settings, arguments={"file": file, "name": name} | more, expect=expect)


def test_imported_texts_are_trained_on_and_evaluated_by_name(work, scored):
    document = bring_in(work, [with_sums(row, sums) for row, _, sums in scored])
    assert (document["pairs"], document["rejected"]) == (40, 0) and document["compared"]["max_abs"] < 1e-3
    entry = read(work.root / "jobs" / "ledger.jsonl")[-1]
    assert (entry["job"], entry["status"], entry["reference"]) == ("import", "done", "theirs")
    assert entry["reference_id"] == document["reference_id"]
    settings = ("reference.id=theirs", "train.epochs=1")
    assert work.run("precompute-ref", *settings)["status"] == "nothing_to_do"
    assert work.run("train", *settings)["status"] == "done"
    assert work.run("eval", *settings)["status"] == "done"
    assert len(list((work.root / "store" / document["reference_id"] / "parts").iterdir())) == 5  # 40 pairs, units of 8
    for row in work.stored_rows(document["reference_id"]).iter_rows(named=True):
        for side, other in (("chosen", "rejected"), ("rejected", "chosen")):  # sums over a part of a response: unknown
            known = row[f"ref_{side}_logps"] if row[f"n_{side}"] <= row[f"n_{other}"] else None
            assert row[f"ref_{side}_shared_logps"] == known
    (other,) = work.run("status", "--dry-run")["others"]
    assert other["name"] == "theirs" and other["differs"] == ['engine: "import:theirs" -> "pipeline"']
    assert work.run("verify")["exit_code"] == 0


def test_token_ids_in_an_arrow_file_are_what_was_scored(work, scored):
    """As TRL keeps them in the cache of `datasets`."""
    rows = [
        {"prompt_ids": pair.chosen.prompt_ids.tolist(), "chosen_ids": pair.chosen.ids.tolist()}
        | {"rejected_ids": pair.rejected.ids.tolist()}
        | with_sums({}, sums)
        for _, pair, sums in scored
    ]
    table, path = pa.Table.from_pylist(rows), work.folder / "cache.arrow"
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)
    document = work.run("import", arguments={"file": path, "name": "theirs"})
    assert document["pairs"] == 40
    assert work.run("train", "reference.id=theirs", "train.epochs=1")["status"] == "done"
    assert work.run("import", arguments={"file": path, "name": "theirs"})["status"] == "nothing_to_do"


def test_sums_that_the_model_does_not_give_are_refused_unless_accepted(work, scored):
    rows = [with_sums(row, sums, shift=-0.5) for row, _, sums in scored]
    message = bring_in(work, rows, expect=4)["message"]
    assert message.startswith(
        f"What is to be imported is not what {work.model} gives here for 80 of its responses: up to"
    )
    assert "up to 0.5 nats apart" in message and "Nothing was stored" in message and "--accept-drift" in message
    assert len(list((work.root / "store").iterdir())) == 1
    assert bring_in(work, rows, accept_drift=True)["compared"]["max_abs"] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("sums", [{}, {"ref_chosen_logps": -1.0}, {"ref_chosen_logps": 1.0, "ref_rejected_logps": -1.0},
                                  {"ref_chosen_logps": "-1", "ref_rejected_logps": -1.0}])  # fmt: skip
def test_rows_without_sums_are_refused_with_their_line(work, scored, sums):
    rows = [with_sums(row, known) for row, _, known in scored]
    rows[2] = example_rows(40)[2] | sums
    message = bring_in(work, rows, expect=3)["message"]
    assert f"1 of 40 rows of {work.folder / 'theirs.jsonl'} cannot be imported" in message
    assert "theirs.jsonl:3 " in message and "Nothing was stored" in message
    assert bring_in(work, rows, "data.max_bad=0.1")["rejected"] == 1


def test_pairs_that_were_not_imported_cannot_be_scored_under_that_name(work, scored):
    bring_in(work, [with_sums(row, sums) for row, _, sums in scored[:30]])
    message = work.run("train", "reference.id=theirs", expect=4)["message"]
    assert "pairs have no reference log-probs under reference theirs" in message
    message = work.run("precompute-ref", "reference.id=theirs", expect=4)["message"]
    assert "responses have no log-probs under the reference theirs" in message and "pipeline import" in message


def test_a_dry_run_stores_nothing(work, scored):
    rows = [with_sums(row, sums) for row, _, sums in scored]
    document = bring_in(work, rows, "--dry-run")
    assert document["status"] == "dry_run" and len(list((work.root / "store").iterdir())) == 1


def test_imported_rows_are_another_reference_than_those_of_another_model(work, scored):
    rows = [with_sums(row, sums) for row, _, sums in scored]
    one = bring_in(work, rows)["reference_id"]
    save_model(work.folder / "other", seed=4)
    setting = f"reference.model={work.folder / 'other'}"
    two = bring_in(work, rows, setting, accept_drift=True)["reference_id"]
    assert one != two
    message = work.run("train", "reference.id=theirs", expect=4)["message"]
    assert "has 2 references of the name or id theirs" in message
    assert work.run("train", f"reference.id={one}", "train.epochs=1")["status"] == "done"
    assert json.loads((work.root / "store" / two / "reference.json").read_text())["name"] == "theirs"


def test_texts_of_any_form_are_imported(work, scored):
    """As of other pairs: the question has its own column here, and the chosen side another name."""
    rows = [{"question": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]} for row, _, _ in scored]
    document = bring_in(work, [with_sums(row, sums) for row, (_, _, sums) in zip(rows, scored, strict=True)])
    assert (document["pairs"], document["rejected"]) == (40, 0)


def test_rated_answers_have_no_two_sums(work):
    answers = [{"text": "a", "rank": 0}, {"text": "b", "rank": 1}]
    row = {"prompt": "Which?", "answers": answers, "ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0}
    document = bring_in(work, [row], expect=3)
    assert "are of the form `rated answers`: a row gives several pairs" in document["message"]
    assert "Write a row for each pair, with prompt, chosen and rejected." in document["message"]


def test_token_ids_are_cut_to_max_length_as_trl_cuts_them():
    content = {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9, 10], "rejected_ids": [11]}
    row = SourceRow(1, "cache:1", content | {"ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0})
    (cut,) = read_imported(THEIRS, [row], NoTokenizer(), 5)
    assert cut.pair.chosen.ids.tolist() == [8, 9] and cut.pair.chosen.mask.all()
    assert cut.pair.rejected.ids.tolist() == [11]
    (rejected,) = read_imported(THEIRS, [row], NoTokenizer(), 3)
    assert rejected.reason == "prompt_too_long"
