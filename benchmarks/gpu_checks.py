"""Is it right on this device? What the jobs promise of their numbers, looked at where they are computed.

`python benchmarks/gpu.py --checks` prints a table: what was checked, what came out, what is allowed. On a CPU the same
checks run with the back-ends that it has.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

import pipeline  # noqa: F401 - finds our packages
from data.errors import one_line
from data.schema import TokenPair, unique_responses
from gpu_checks_attention import BACKENDS, Check, attention_checks, distance, head_checks
from gpu_lengths import MIXES, random_pairs
from gpu_models import SHAPES, Shape, random_model
from stages.processes import ALONE
from stages.scoring.config import Numerics
from stages.scoring.scorer import Scorer, scorer_of
from stages.training.config import TrainConfig
from stages.training.gradient_checkpointing import checkpoint_layers
from stages.training.lora import LoraSettings
from stages.training.optimizer import MasterAdamW
from stages.training.policy import add_lora
from stages.training.sharding import shard

DTYPE = {"cuda": "bfloat16", "cpu": "float32"}
PACK = {"cuda": 2048, "cpu": 512}
SPREAD = 0.1  # of the weights: so that attention is no mere average
SUMS = {"float32": 1e-3, "bfloat16": 0.4}  # nats by the root of a response's tokens: stages/training/step_zero.py
GRADIENTS = {"float32": 1e-4, "bfloat16": 0.1}


def checks_of(device: str) -> list[dict[str, Any]]:
    """All of them, each with whether it is as it has to be; one that breaks says how."""
    rows = []
    for checks in (attention_checks, head_checks, probe, backends, step_zero, fsdp, lora, eight_bits, compiled):
        rows += [check._asdict() | {"ok": check.ok} for check in guarded(checks, device)]
    return rows


def guarded(checks: Callable[[str], Iterator[Check]], device: str) -> Iterator[Check]:
    """What it yields, and what ended it."""
    try:
        yield from checks(device)
    except Exception as problem:  # the next check has to run, whatever this one came to
        name = getattr(checks, "__name__", "check").replace("_", " ")
        yield Check(name, f"failed: {type(problem).__name__}: {one_line(problem)[:150]}", "to run")


def probe(device: str) -> Iterator[Check]:
    """Which back-end the probe takes where it is free to."""
    for name, shape in (("llama", SHAPES["toy"]), ("qwen3", replace(SHAPES["toy"], family="qwen3"))):
        yield Check(f"probe, {name}", scorer(device, shape).backend, BACKENDS[device][0])


def backends(device: str) -> Iterator[Check]:
    """Whole models, sums and gradients, against rows in the same dtype; with a window also."""
    dtype, pairs = DTYPE[device], some_pairs(device)
    models = [("llama", {}), ("mistral", {"sliding_window": 40})]
    for family, changes in models:
        shape = replace(SHAPES["toy"], family=family)
        rows = scored(scorer(device, shape, "rows", **changes), pairs)
        for backend in BACKENDS[device]:
            sums, gradient = scored(scorer(device, shape, backend, **changes), pairs)
            name = f"{backend} beside rows, {family}{', window' if changes else ''}"
            yield Check(f"{name}: sums (nats by root of tokens)", by_root(sums - rows[0], pairs), SUMS[dtype])
            yield Check(f"{name}: gradient", distance(gradient, rows[1]), GRADIENTS[dtype])


def step_zero(device: str) -> Iterator[Check]:
    """Distances between the two jobs: the same responses, scored, and scored in other packs with gradients."""
    pairs, ours = some_pairs(device), scorer(device)
    responses = unique_responses(pairs)
    with torch.inference_mode():
        stored = sums_of(ours, [[response] for response in responses])
    again = sums_of(ours, [(pair.chosen, pair.rejected) for pair in pairs[::-1]])
    alone = sums_of(ours, [[responses[0]]])
    yield Check("step 0: largest distance between the jobs (nats)", _largest(stored, again), 0.0)
    yield Check("step 0: of a response that is alone in its pack", _largest(stored, alone), 0.0)
    one, two = (scored(ours, pairs)[1] for _ in range(2))
    yield Check("the same gradient twice: distance", distance(one, two), None)
    checkpoint_layers(ours.model)
    yield Check("step 0: with gradient checkpointing", _largest(stored, sums_of(ours, [responses])), 0.0)
    again_gradient = distance(scored(ours, pairs)[1], two)
    yield Check("gradient checkpointing: distance of the gradient", again_gradient, GRADIENTS[DTYPE[device]])


def fsdp(device: str) -> Iterator[Check]:
    """FSDP2 on one process, beside the model that is whole."""
    pairs = some_pairs(device)
    whole, sharded = scorer(device), scorer(device)
    with one_process(device):
        shard(sharded, ALONE)
        (sums, gradient), (parts_sums, parts_gradient) = scored(whole, pairs), scored(sharded, pairs)
    name = "FSDP2 on one process"
    yield Check(f"{name}: largest distance of a sum (nats)", float((sums - parts_sums).abs().max()), 0.0)
    yield Check(f"{name}: distance of the gradient", distance(parts_gradient, gradient), GRADIENTS[DTYPE[device]])


@contextmanager
def one_process(device: str) -> Iterator[None]:
    """A group of this process alone."""
    backend = "nccl" if device == "cuda" else "gloo"
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def lora(device: str) -> Iterator[Check]:
    """A fresh adapter adds nothing, and an update moves it."""
    pairs, ours = some_pairs(device), scorer(device)
    responses = [unique_responses(pairs)]
    with torch.inference_mode():
        before = sums_of(ours, responses)
    model = random_model(SHAPES["toy"], DTYPE[device], device, initializer_range=SPREAD)
    add_lora(model, LoraSettings(), seed=0)
    adapted = scorer_of(model, Numerics(DTYPE[device], "auto", PACK[device]), ())
    after = sums_of(adapted, responses)
    yield Check("LoRA: largest distance that a fresh adapter makes (nats)", _largest(before, after), 0.0)
    moved = update(adapted, pairs, TrainConfig(lora=LoraSettings()))
    yield Check("LoRA: an update moves it", "yes" if moved > 0 else "no", "yes")


def eight_bits(device: str) -> Iterator[Check]:
    """An update with 8-bit moments beside one with fp32 moments: the first one's direction is all but the same."""
    pairs = some_pairs(device)
    moved = [update(scorer(device), pairs, TrainConfig(optim=name)) for name in ("adamw", "adamw_8bit")]
    yield Check("adamw_8bit: first update's length beside adamw's", abs(moved[1] / moved[0] - 1), 0.1)


def compiled(device: str) -> Iterator[Check]:
    """The compiled model beside the plain one."""
    pairs, plain = some_pairs(device), scorer(device)
    fast = scorer_of(
        random_model(SHAPES["toy"], DTYPE[device], device, initializer_range=SPREAD),
        Numerics(DTYPE[device], "auto", PACK[device], compile=True),
        (),
    )
    (sums, gradient), (fast_sums, fast_gradient) = scored(plain, pairs), scored(fast, pairs)
    yield Check("compiled: sums (nats by root of tokens)", by_root(sums - fast_sums, pairs), SUMS[DTYPE[device]])
    yield Check("compiled: gradient", distance(fast_gradient, gradient), GRADIENTS[DTYPE[device]])


def scorer(device: str, shape: Shape = SHAPES["toy"], backend: Any = "auto", **changes: Any) -> Scorer:
    """Behind a small model whose weights are the same every time."""
    model = random_model(shape, DTYPE[device], device, initializer_range=SPREAD, **changes)
    return scorer_of(model, Numerics(DTYPE[device], backend, PACK[device]), ())


def some_pairs(device: str) -> list[TokenPair]:
    """Pairs that make up several packs."""
    return random_pairs(MIXES["hh"], 16, SHAPES["toy"].vocabulary, 512 if device == "cuda" else 128)


def sums_of(ours: Scorer, groups: Sequence[Any]) -> dict[str, float]:
    """Sums by response, as the plan's batches give them."""
    sums: dict[str, float] = {}
    for batch in ours.plan(groups):
        keys = [response.key for response in batch.responses]
        sums |= zip(keys, ours.logps(batch.responses).tolist(), strict=True)
    return sums


def scored(ours: Scorer, pairs: Sequence[TokenPair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of the responses (N,), and the gradient of their mean as one vector, both on the CPU."""
    sums: dict[str, float] = {}
    ours.model.zero_grad(set_to_none=True)
    for batch in ours.plan([(pair.chosen, pair.rejected) for pair in pairs]):
        logps = ours.logps(batch.responses)
        (logps.sum() / (2 * len(pairs))).backward()  # type: ignore[no-untyped-call]
        sums |= zip((response.key for response in batch.responses), logps.tolist(), strict=True)
    gradients = [p.grad for p in ours.model.parameters() if p.grad is not None]
    whole = [g.full_tensor() if hasattr(g, "full_tensor") else g for g in gradients]
    return (
        torch.tensor([sums[response.key] for response in unique_responses(pairs)]),
        torch.cat([g.detach().float().flatten().cpu() for g in whole]),
    )


def update(ours: Scorer, pairs: Sequence[TokenPair], config: TrainConfig) -> float:
    """Length of one update of the masters."""
    optimizer = MasterAdamW(ours.model, config.weight_decay, config.optim)
    before = {name: master.detach().clone() for name, master in optimizer.masters.items()}
    for batch in ours.plan([(pair.chosen, pair.rejected) for pair in pairs]):
        ours.logps(batch.responses).mean().backward()  # type: ignore[no-untyped-call]
    optimizer.step(1e-3, 0.0)
    return math.hypot(*(float((master.detach() - before[name]).norm()) for name, master in optimizer.masters.items()))


def by_root(differences: torch.Tensor, pairs: Sequence[TokenPair]) -> float:
    """The largest distance of a sum, by the root of the number of its tokens."""
    counts = torch.tensor([response.n_scored for response in unique_responses(pairs)])
    return float((differences / counts.sqrt()).abs().max())


def _largest(one: dict[str, float], other: dict[str, float]) -> float:
    """Of the distances between sums that both have."""
    return max(abs(one[key] - other[key]) for key in one.keys() & other.keys())
