"""Whether the memory that training is estimated to take is there, before there are any pairs.

They are taken to be as long as data.max_length allows, half of it prompt; `pipeline train --dry-run` estimates by the
pairs themselves.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data.errors import one_line
from data.schema import Response, TokenPair
from data.tokens.token_pairs import TokenPairs
from pipeline.config import PipelineConfig
from pipeline.doctor.findings import Finding, ok, problem, warning
from pipeline.doctor.machine import gib
from stages.adapter_files import is_adapter
from stages.scoring.config import Numerics
from stages.training.memory_estimate import MemoryEstimate, estimate_peak

_OF_ANY_DATA = ("weights", "fp32 masters", "optimiser states")
_SUBJECT = "memory of training"


def memory_fits(config: PipelineConfig, folder: Path, memory: int, *, on_gpu: bool) -> Finding | None:
    """Training the model in `folder` held against the bytes of the device; None where its sizes cannot be told."""
    if is_adapter(folder):
        return None
    scoring, reference = config.scoring, config.reference
    numerics = Numerics(reference.dtype, scoring.backend, scoring.pack_tokens, None, reference.quantization)
    try:
        estimate = estimate_peak(folder, numerics, config.train, _longest_pairs(config), on_gpu=on_gpu)
    except (OSError, ValueError, KeyError) as error:
        return warning(_SUBJECT, f"cannot be estimated: {one_line(error)}", f"see whether {folder} is whole")
    return None if estimate is None else _compared(estimate, memory, sharded=config.train.fsdp)


def _compared(estimate: MemoryEstimate, memory: int, *, sharded: bool) -> Finding:
    device = f"the device has {gib(memory)}"
    if estimate.total <= memory:
        return ok(_SUBJECT, f"at most about {gib(estimate.total)} (pairs of data.max_length); {device}")
    fixed = sum(estimate.parts[name] for name in _OF_ANY_DATA)
    if fixed > memory and not sharded:
        what = f"about {gib(fixed)} for weights and optimiser alone; {device}"
        return problem(_SUBJECT, what, _advice(estimate, _OF_ANY_DATA))
    return warning(
        _SUBJECT,
        f"up to about {gib(estimate.total)} with pairs of data.max_length; {device}",
        f"pipeline train --dry-run estimates it by the pairs; {_advice(estimate, estimate.remedies)}",
    )


def _advice(estimate: MemoryEstimate, parts: Iterable[str]) -> str:
    largest = max(parts, key=estimate.parts.__getitem__)
    return f"most of what a key can lower is {largest}: {estimate.remedies[largest]} (docs/memory.md)"


def _longest_pairs(config: PipelineConfig) -> TokenPairs:
    """More steps than there are between checkpoints, of pairs of the full length."""
    prompt = np.zeros(config.data.max_length // 2, dtype=np.int32)
    ids = np.zeros(config.data.max_length - len(prompt), dtype=np.int32)
    response = Response(prompt, ids, np.ones(len(ids), dtype=np.bool_))
    steps = config.train.checkpoint_every + 1
    one = TokenPairs.of([TokenPair(0, "", response, response)])
    return one.take(np.zeros(steps * config.train.pairs_per_step, dtype=np.int64))
