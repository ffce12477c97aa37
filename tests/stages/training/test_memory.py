"""Peak memory: what is held for a moment counts, and the line at the end says it beside the estimate."""

import logging

import torch

from stages.training.memory import log_peak_memory, peak_memory_bytes
from stages.training.memory_estimate import MemoryEstimate


def test_what_was_freed_again_counts():
    before = peak_memory_bytes()
    torch.ones(before // 4 + 64_000_000)  # as many bytes as were the most so far, and 256 MB; gone at once
    assert peak_memory_bytes() > before + 128_000_000


def test_the_line_at_the_end_of_training(caplog):
    with caplog.at_level(logging.INFO):
        log_peak_memory(MemoryEstimate({"weights": 2_000_000_000, "logits": 345_000_000}, {}, rough=False))
        log_peak_memory(None)
    took = f"peak memory {peak_memory_bytes() / 1e9:.2f} GB"
    assert caplog.messages == [f"{took} (estimated 2.35 GB)", took]
