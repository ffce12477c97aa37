"""The real data sets beside the repository, where they are: every row read, with the counts that are known of them."""

import gzip
import json

import pytest

from tests.tiny import ROOT

FOLDER = ROOT.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the real data sets are not beside the repository")


@pytest.fixture
def read(work):
    """Validate a file; its coverage."""

    def run(name, *settings):
        options = [f"data.train={FOLDER / name}", "data.max_length=8192", "data.max_bad=1", *settings]
        coverage = work.run("validate", *options)["coverage"]
        assert coverage["read"] == coverage["used"] + sum(coverage["rejected"].values())
        return coverage

    return run


@pytest.mark.parametrize(
    ("name", "form"),
    [("politeness_1100.jsonl.gz", "prompt and replies"), ("politeness_1100.original.json.gz", "instruction")],
)
def test_politeness_has_six_pairs_that_say_the_same_twice(read, name, form):
    coverage = read(name)
    assert coverage["forms"] == {str(FOLDER / name): form}
    assert (coverage["read"], coverage["used"], coverage["rejected"]) == (1100, 1094, {"identical_completions": 6})


def test_gsm8k_has_three_rows_twice(read):
    coverage = read("gsm8k_right_wrong.jsonl.gz")
    assert (coverage["read"], coverage["used"], coverage["duplicates"]) == (2429, 2429, 3)


def test_oasst_has_316_rows_of_several_turns(read):
    coverage = read("oasst_en100_pairs.jsonl.gz")
    assert (coverage["read"], coverage["used"], coverage["multi_turn"]) == (732, 732, 316)


def test_oasst_is_split_by_tree(read, work):
    read("oasst_en100_pairs.jsonl.gz", "data.group_by=tree_id", "data.eval_fraction=0.3")
    with gzip.open(FOLDER / "oasst_en100_pairs.jsonl.gz", "rt") as file:
        trees = [json.loads(line)["tree_id"] for line in file]
    prepared = work.prepared()
    sides = [
        {trees[int(pair.location.rpartition(":")[2]) - 1] for pair in prepared.splits[split]}
        for split in ("train", "eval")
    ]
    assert all(sides) and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 95


def test_the_trees_of_oasst_give_their_pairs(read):
    name = "oasst_en100_trees.original.jsonl.gz"
    coverage = read(name, f"data.train={{path: {FOLDER / name}, pairs: all}}")
    assert coverage["rows"] == 100 and coverage["used"] == 754
