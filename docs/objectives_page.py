"""The page of objectives, made from the code of the losses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.objectives.catalogue import OBJECTIVES, Objective, Parameter
from stages.objectives.divergences import divergence_score
from stages.objectives.losses import LOSSES
from stages.objectives.weighting import length_desensitized, wpo_weights

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/objectives.parquet"
OBJECTIVES_PAGE = """# Objectives

Made by `python docs/generate.py` from the code of the losses (stages/objectives).

Per pair, in nats, sums over scored tokens: c = log pi(y+) - log ref(y+), r = log pi(y-) - log ref(y-), D = c - r;
L+ and L- are the numbers of scored tokens, s the logistic function, b `train.beta`, e `train.label_smoothing`, m the
pair's margin. The loss of an optimiser step is the mean over its pairs, whatever batches they go through the model in.
One pass of the reference serves them all: nothing here ever makes `precompute-ref` score again.

| `train.objective` | loss | when | parameters and their defaults | source |
|---|---|---|---|---|
{rows}

Parameters are keys of section `train` (`train.simpo_gamma: 1.0`); e is `train.label_smoothing`. What has no effect is
refused; only beta is always allowed, because rewards are beta times log-ratios (of sums, whatever the objective, as
in TRL).

**Sums.** `objective: {{sigmoid: 0.8, bco_pair: 0.2, sft: 1.0}}` is their weighted sum (MPO, arXiv 2411.10442). A
parameter goes to each of them that takes it.

**Without a reference** ({free}): nothing is scored beforehand, and `precompute-ref` says so. They are comparisons; an
evaluation reports ranking accuracy and loss, no rewards.

**Over the whole step** ({whole}): the step is scored twice, first without gradients, and then each batch adds its share
of the gradient of the whole step's loss. More pairs a step (`train.pairs_per_step`) make it better, not just smoother.

**f-divergences.** `train.f_divergence_type` replaces D by a difference of scores in the objectives that are built on it
({built_on_d}). {divergences}

**LD-DPO.** `train.ld_alpha`. {ld} The store holds what the reference needs for any alpha. `sft` keeps its whole sum.

**WPO.** `train.use_weighting: true` multiplies each pair's loss. {wpo}

**Margins and weights.** A source may name a column of margins (for `sigmoid`) and one of weights that multiply the
losses: [data.md](data.md).

## What they make of the same pairs

SmolLM2-135M-Instruct in fp32 on short instructions with a courteous and a rude answer (*politeness* in
[benchmarks.md](benchmarks.md)), one epoch, 16 pairs a step, one learning rate (2e-5) and one seed for all: a picture of
what each does, not of what each can do at its best. Intervals are of 95 %, over held-out pairs alone.
`python benchmarks/objectives.py` trains them and prints:

{compared}

{findings}

## Where other tools differ

TRL 1.16 has {n_trl} of these; `tests/stages/objectives/test_against_trl.py` runs its own loss beside ours. They agree
but for:

{deviations}
"""
DEVIATIONS = """- `label_smoothing` where the formula has none (`hinge`, `ipo`, ...): ignored there, refused here.
- `exo_pair` without label smoothing: refused there, 1e-3 by default here.
- `sft`: there the mean of batch means where a step has several batches, here the mean over the tokens of the step.
- `sft` under weights of WPO: there torch refuses the product in place, here each pair's part is weighed.
- `aot`, `aot_unpaired`: there over the batch of a device, here over the step. A weight of WPO goes to the pair whose
  margin has the rank here, to the pair that stands in the rank's place there.
- `discopop` far from 0: its exponential overflows there; here both factors are one exponential.
- `ipo` and `sigmoid_norm` under an f-divergence: scores a token there, refused here, because they are not built on D.
- forward KL: the exponent is clamped at 80 here, so that losses stay finite in fp32."""
FINDINGS = """Reward accuracy of an untrained policy is one half by definition. What the table shows:

- Contrast with a reference learns from few pairs: `sigmoid` has 0.740, 0.820 and 0.860 after 60, 120 and 240 of them,
  `sft` on the chosen answers 0.490, 0.495 and 0.625. Losses without a reference move what they are made of, ranking
  accuracy (`simpo` 0.585, `naive` 0.575), and leave the margin over the reference where it was (0.555, 0.535).
- Most losses of log-ratios do the same from these pairs, within their intervals; `robust` without label smoothing is
  `sigmoid`, and comes out the same. `apo_down` lowers both answers, as it is meant to, by more than a nat a token.
- `discopop` goes the wrong way (0.160). That is its formula: at D = 0, where a run begins, its slope is +0.78 b, so
  pairs fall into the optimum on the wrong side unless something carries them over
  (`test_discopop_begins_by_pulling_the_wrong_way`)."""
TRL = set(OBJECTIVES) - {"simpo", "naive", "dpop"}


def objectives_page() -> str:
    """Every objective, with its loss, parameters and source."""
    every = OBJECTIVES.values()
    return OBJECTIVES_PAGE.format(
        rows="\n".join(_row(objective) for objective in every),
        free=_names(o for o in every if o.reference_free),
        whole=_names(o for o in every if o.whole_step),
        built_on_d=_names(o for o in every if "D" in o.reads),
        divergences=_prose(divergence_score),
        ld=_prose(length_desensitized),
        wpo=_prose(wpo_weights),
        n_trl=len(TRL),
        compared=_compared(),
        findings=FINDINGS,
        deviations=DEVIATIONS,
    )


def _compared() -> str:
    """The table of the committed results."""
    command = [sys.executable, "benchmarks/objectives.py", "--out", str(RESULTS)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _row(objective: Objective) -> str:
    formula = _prose(LOSSES[objective.name]).replace("|", "\\|")
    takes = "; ".join(f"`{name}` {_parameter(p)}" for name, p in objective.parameters.items())
    beta = f"; usual b {objective.usual_beta:g}" if objective.usual_beta else ""
    return f"| `{objective.name}` | {formula} | {objective.use} | {takes or '-'}{beta} | {objective.source} |"


def _parameter(parameter: Parameter) -> str:
    default = str(parameter.default).lower() if isinstance(parameter.default, bool) else f"{parameter.default:g}"
    limits = f", {parameter.limits}" if parameter.limits else ""
    return f"{default} ({parameter.meaning}{limits})"


def _names(objectives: Any) -> str:
    return ", ".join(f"`{objective.name}`" for objective in objectives)


def _prose(described: Callable[..., Any]) -> str:
    return " ".join((described.__doc__ or "").split())
