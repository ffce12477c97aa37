"""Nothing is scored twice, and nothing old is served for what has changed."""

import gzip
import json
import os
import shutil

import pytest
import torch

from tests.tiny import example_rows, save_model, write_jsonl


@pytest.mark.parametrize(
    "change",
    ["train.beta=0.5", "train.learning_rate=1e-5", "train.seed=3", "scoring.pack_tokens=100", "train.pairs_per_step=2",
     "data.eval_fraction=0.5", "data.dev_fraction=0.2", "store.unit_pairs=3", "run=other"],
)  # fmt: skip
def test_what_cannot_change_a_logp_scores_nothing(work, change):
    work.run("precompute-ref")
    assert work.run("precompute-ref", change)["status"] == "nothing_to_do"


def test_row_order_and_another_file_format_score_nothing(work):
    work.run("precompute-ref")
    moved = work.folder / "elsewhere.json.gz"
    with gzip.open(moved, "wt") as file:
        json.dump(example_rows(40)[::-1], file)
    assert work.run("precompute-ref", f"data.train={moved}")["status"] == "nothing_to_do"


def test_the_model_under_another_path_scores_nothing(work):
    work.run("precompute-ref")
    shutil.copytree(work.model, work.folder / "copy")
    assert work.run("precompute-ref", f"reference.model={work.folder / 'copy'}")["status"] == "nothing_to_do"


@pytest.mark.parametrize("change", ["reference.dtype=bfloat16", "reference.model={other}"])
def test_what_changes_a_logp_is_another_reference(work, change):
    first = work.run("precompute-ref")
    save_model(work.folder / "other", seed=1)
    second = work.run("precompute-ref", change.format(other=work.folder / "other"))
    assert second["pairs_scored"] == 40
    assert second["reference_id"] != first["reference_id"]


def test_one_weight_changed_by_one_ulp_is_another_reference(work):
    from safetensors.torch import load_file, save_file

    shutil.copytree(work.model, work.folder / "copy")
    change = f"reference.model={work.folder / 'copy'}"
    first = work.run("precompute-ref", change)
    file = work.folder / "copy" / "model.safetensors"
    tensors = load_file(file)
    weight = tensors["model.norm.weight"]
    weight[0] = torch.nextafter(weight[0], torch.tensor(2.0))
    save_file(tensors, file, metadata={"format": "pt"})
    assert work.run("precompute-ref", change)["reference_id"] != first["reference_id"]


def test_five_rows_appended_score_five_pairs(work):
    work.run("precompute-ref")
    write_jsonl(work.data, example_rows(45))
    document = work.run("precompute-ref")
    assert (document["pairs_scored"], document["responses_scored"]) == (5, 10)
    assert document["pairs_stored_before"] == 40


def test_a_flipped_label_and_a_new_pair_of_known_responses_score_no_response(work):
    rows = example_rows(10)
    rows.append({**rows[0], "rejected": "Many."})
    write_jsonl(work.data, rows)
    work.run("precompute-ref")
    flipped = {**rows[1], "chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]}
    between = {"prompt": rows[0]["prompt"], "chosen": rows[0]["rejected"], "rejected": "Many."}
    write_jsonl(work.data, [*rows, flipped, between])
    document = work.run("precompute-ref")
    assert (document["pairs_scored"], document["responses_scored"]) == (2, 0)
    assert len(work.stored_rows()) == 13


def test_a_fifth_answer_scores_one_response_and_gives_the_rows_of_scoring_all(make_work):
    """Also where the new answer is the shortest, so that the shared sums of all others are over other tokens."""
    work, golden = make_work(), make_work()
    answers = ["One, two, three, four.", "Two times.", "Three times over.", "Four, they say.", "No."]

    def rows(n):
        pairs = [(one, two) for i, one in enumerate(answers[:n]) for two in answers[i + 1 : n]]
        return [{"prompt": "How many?", "chosen": one, "rejected": two} for one, two in pairs]

    write_jsonl(work.data, [*rows(4), *example_rows(4)])
    work.run("precompute-ref", "data.eval_fraction=0")
    for each in (work, golden):
        write_jsonl(each.data, [*rows(5), *example_rows(4)])
    document = work.run("precompute-ref", "data.eval_fraction=0")
    assert (document["pairs_scored"], document["responses_scored"]) == (4, 1)
    golden.run("precompute-ref", "data.eval_fraction=0")
    assert work.stored_rows().equals(golden.stored_rows())


def test_four_answers_and_six_pairs_cost_four_passes(work):
    answers = ["One.", "Two times.", "Three times over.", "Four, they say."]
    rows = [
        {"prompt": "How many?", "chosen": chosen, "rejected": rejected}
        for i, chosen in enumerate(answers)
        for rejected in answers[i + 1 :]
    ]
    write_jsonl(work.data, [*rows, *example_rows(4)])
    assert work.run("precompute-ref")["responses_scored"] == 4 + 8


def test_the_same_pairs_in_any_order_are_stored_as_the_same_bytes(make_work):
    works = [make_work(), make_work()]
    write_jsonl(works[1].data, example_rows(40)[::-1])
    for work in works:
        work.run("precompute-ref")
    names = [sorted(path.name for path in (work.root / "store").glob("*/*/*.parquet")) for work in works]
    assert names[0] == names[1] and len(names[0]) == 10


@pytest.mark.parametrize(
    "surroundings",
    [
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
        {"LC_ALL": "C", "PYTHONHASHSEED": "7"},
    ],
    ids=str,
)
def test_the_surroundings_of_a_job_change_no_byte(make_work, surroundings):
    """Time zone, locale, hash seed, umask and another user's home, in a process of its own."""
    golden, work = make_work(), make_work()
    golden.run("precompute-ref")
    home = work.folder / "home"
    home.mkdir()
    umask = os.umask(0o077)
    try:
        done = work.command("precompute-ref", "-c", str(work.config), env={"HOME": str(home), **surroundings})
    finally:
        os.umask(umask)
    assert done.returncode == 0, done.stderr
    names = [sorted(path.name for path in (each.root / "store").glob("*/*/*.parquet")) for each in (work, golden)]
    assert names[0] == names[1] and len(names[0]) == 10
