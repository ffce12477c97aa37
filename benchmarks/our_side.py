"""Our scorer and trainer, measured."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import pipeline  # noqa: F401 - finds our packages
from data.pairs.folder import PairsFolder
from data.schema import TokenPair, unique_responses
from data.tokens.token_pairs import TokenPairs
from measurement import TRAIN, WARM_UP, Pairs, Spec, longest_rows, measured
from pipeline.control import ProcessControl
from stages.reference_rows import ReferenceLogps, SplitPairs
from stages.run_folder import RunFolder
from stages.scoring.config import Numerics, ScoringConfig
from stages.scoring.model import device_name, load_model
from stages.scoring.scorer import Scorer
from stages.training.flops import Utilisation
from stages.training.job import StartPolicy, Training
from stages.training.loop import Trainer


def our_scoring(spec: Spec, pairs: Pairs) -> dict[str, Any]:
    """Every unique response once, as `precompute-ref` does it."""
    scorer = our_scorer(spec)
    with torch.inference_mode():
        score(scorer, pairs.tokens[:WARM_UP])
        with measured(scorer.model, spec, pairs) as report:
            sums = score(scorer, pairs.tokens)
    logps = [sums[side.key] for pair in pairs.tokens for side in (pair.chosen, pair.rejected)]
    return report | our_account(scorer, pairs) | {"mean_logps": sum(logps) / len(logps)}


def score(scorer: Scorer, pairs: Sequence[TokenPair]) -> dict[str, float]:
    """Sums by response."""
    sums: dict[str, float] = {}
    for batch in scorer.plan([[response] for response in unique_responses(pairs)]):
        keys = [response.key for response in batch.responses]
        sums |= zip(keys, scorer.logps(batch.responses).tolist(), strict=True)
    return sums


def our_training(spec: Spec, pairs: Pairs) -> dict[str, Any]:
    """One epoch of the real loop after a step on its longest pairs; what the reference says costs no time."""
    scorer = our_scorer(spec)
    reference = {pair.key: ReferenceLogps(0.0, 0.0) for pair in pairs.tokens}
    with tempfile.TemporaryDirectory() as folder:
        split, numerics = SplitPairs(TokenPairs.of(pairs.tokens), reference), Numerics(spec.dtype, "auto", 0)
        start, run = StartPolicy(Path(spec.model), True, (spec.model, None)), RunFolder(Path(folder))
        job = Training(split, None, start, run, TRAIN, numerics, PairsFolder(Path(folder)))
        utilisation = Utilisation(scorer.model, device_name(), spec.dtype, 1)
        trainer = Trainer(job, scorer, ProcessControl(quiet=True), utilisation)
        longest = [pairs.tokens[row] for row in longest_rows(pairs.tokens)]
        for batch in scorer.plan([(pair.chosen, pair.rejected) for pair in longest]):
            scorer.logps(batch.responses).mean().backward()  # type: ignore[no-untyped-call]
        trainer._optimizer.step(TRAIN.learning_rate, TRAIN.max_grad_norm)
        with measured(scorer.model, spec, pairs) as report:
            trainer.run()
            report["seconds"] = trainer.seconds
    return report | our_account(scorer, pairs)


def our_scorer(spec: Spec) -> Scorer:
    """The model behind our scorer."""
    return Scorer(load_model(Path(spec.model), spec.dtype), spec.pack_tokens or ScoringConfig().pack_tokens)


def our_account(scorer: Scorer, pairs: Pairs) -> dict[str, Any]:
    """How it was configured, and the scored tokens of each side of each pair."""
    scored = sum(side.n_scored for pair in pairs.tokens for side in (pair.chosen, pair.rejected))
    return {"configuration": scorer.stack(), "scored_tokens": scored}
