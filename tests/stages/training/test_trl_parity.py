"""A policy that TRL trains on the same pairs in the same steps ends where ours does; skipped where there is no TRL.

benchmarks/trl_parity.py does the same with a real model (docs/benchmarks.md).
"""

import logging

import polars as pl
import pytest

from tests.tiny import example_rows, unchanged_process, write_jsonl

pytest.importorskip("trl.trainer.dpo_trainer", reason="the extra `bench` is not installed")

from benchmarks.trl_parity import check_tokens, largest_differences, parity


@pytest.mark.filterwarnings("ignore")  # of TRL
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_losses_gradients_rates_and_weights_are_those_of_trl(tmp_path, model_folder, schedule):
    """46 pairs, four a step: the last step has two, and its mean is of two."""
    rows = write_jsonl(tmp_path / "rows.jsonl", example_rows(46))
    with unchanged_process():
        found = parity(model_folder, rows, tmp_path, learning_rate=3e-4, lr_scheduler_type=schedule)
    logging.captureWarnings(False)
    trained, frozen = (largest_differences(found.filter(pl.col("padding") == each)) for each in ("trained", "frozen"))
    assert found["loss"].min() < 0.3 and len(found) == 2 * 12
    assert trained["loss"] < 1e-5 and trained["grad_norm"] < 1e-4 and trained["weights"] < 1e-4
    assert trained["learning_rate"] < 1e-12
    assert frozen["loss"] > 1e-3  # what freezing the embedding of the padding token, the end token here, comes to


def test_other_tokens_are_not_compared(work):
    work.run("precompute-ref")
    pairs = list(work.prepared().splits["train"])
    rows = [
        {
            "prompt_ids": p.chosen.prompt_ids.tolist(),
            "chosen_ids": p.chosen.ids.tolist(),
            "rejected_ids": p.rejected.ids.tolist(),
        }
        for p in pairs
    ]
    check_tokens(rows, pairs)
    rows[3]["chosen_ids"].append(2)
    with pytest.raises(SystemExit, match="TRL made other tokens"):
        check_tokens(rows, pairs)
