"""An evaluation as the jobs leave it, made up: its document, its pairs, a run, jobs, responses; harmless or hostile."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.parquet import parquet_bytes
from pipeline.report.material import Material, WrongPair
from stages.metrics.calibration import reliability
from stages.metrics.lengths import length_strata
from stages.metrics.preference import preference_metrics

HOSTILE = (
    '<script>window.pwned = 1</script>"><img src=x onerror=window.pwned=1> ]]> </style></title></pre> ${{ secrets.X }} '
    "\u202eabc\u2066 \x00\x1b[31m | `code` ``` [link](https://example.com) ![i](http://example.com/a.png) @somebody "
    "#1 https://example.com/x <a href=javascript:window.pwned=1>a</a> &lt; $x^2$ {{ 7*7 }} {% raw %}"
    "\n::set-output name=a::b\n::error::c\n# heading\n- item\n\u2028\u200b" + "\ud800"
)


def pairs_frame(n: int = 77, seed: int = 0) -> pl.DataFrame:
    """Pairs as pairs.parquet has them, each of two with its prompt in common."""
    draw = np.random.default_rng(seed)
    reference = -draw.gamma(9.0, 6.0, (n, 2))
    moved = draw.normal((1.4, -2.4), 3.0, (n, 2))
    reward = 0.1 * moved
    return pl.DataFrame(
        {
            "pair_key": [f"{i:04x}" + "0" * 60 for i in range(n)],
            "row": list(range(n)),
            "policy_chosen_logps": reference[:, 0] + moved[:, 0],
            "policy_rejected_logps": reference[:, 1] + moved[:, 1],
            "ref_chosen_logps": reference[:, 0],
            "ref_rejected_logps": reference[:, 1],
            "chosen_reward": reward[:, 0],
            "rejected_reward": reward[:, 1],
            "margin": reward[:, 0] - reward[:, 1],
            "n_chosen": draw.integers(5, 60, n),
            "n_rejected": draw.integers(5, 60, n),
            "loss": np.log1p(np.exp(reward[:, 1] - reward[:, 0])),
            "prompt_key": [f"{i // 2:04x}" for i in range(n)],
        }
    )


def document(pairs: pl.DataFrame | None = None, name: str = "night-7", text: str | None = None) -> dict[str, Any]:
    """metrics.json; `text` stands wherever somebody else's words may stand."""
    pairs = pairs_frame() if pairs is None else pairs

    def said(usual: str) -> str:
        return usual if text is None else text

    metrics = preference_metrics(pairs) | {f"{said('judge')}/win/rate": 0.6, **generated()}
    n = pairs.height
    return {
        "schema_version": 2,
        "identity": "fb" * 32,
        "policy": {"name": said(name), "id": "ab" * 32},
        "reference": {"name": said("SmolLM2-135M-Instruct-float32"), "id": "cd" * 32},
        "objective": said("sigmoid"),
        "beta": 0.1,
        "metrics": metrics,
        "n_pairs": n,
        "n_prompts": (n + 1) // 2,
        "coverage": coverage(said("prefs.jsonl"), said("prompt_too_long"), n),
        "leakage": {"pairs": 0, "prompts": 3, "first_turns": 5},
        "slices": {
            said("source"): [slice_of(said("a.jsonl"), 50, 0.92), slice_of(said("b.jsonl"), 27, 0.74)],
            "turns": [slice_of(1, 70, 0.9), slice_of(3, 7, 0.57, small=True)],
        },
        "reliability": reliability(pairs["margin"].to_numpy()),
        "length_strata": length_strata(pairs),
        "reference_report": {
            "n_pairs": n,
            "chosen_nll": 1.9,
            "end_probability": 0.02,
            "warnings": [said("Looks like a base model: see `pipeline inspect`.")],
        },
        "external": {said("judge"): {"command_id": "1", "metrics": {said("win/rate"): 0.6}}},
        "comparisons": [
            comparison("reference", said("reference"), "ranking_accuracy", 0.65, 0.74, 0.02, 0.16),
            comparison("baseline", said("night-6"), "reward_accuracy", 0.91, 0.87, -0.09, 0.01),
            comparison("baseline", said("night-6"), "reward_margin", 0.35, 0.39, -0.02, 0.1),
        ],
        "seed_sd": {},
        "gates": [
            gate("reward_accuracy", "min", 0.6, "passed", metrics["reward_accuracy"], value=0.81),
            gate("reward_accuracy", "max_drop", 0.01, "inconclusive", 0.04, -0.01, 0.09, "baseline", said("night-6")),
            gate("drift", "max", 0.05, "failed", 0.13),
        ],
        "verdict": "failed",
    }


def generated() -> dict[str, float]:
    found = {"generation_length": 61.2, "ref_generation_length": 74.0}
    for name, value in (("ended", 0.9), ("repetition", 0.05), ("empty", 0.0)):
        for side in ("", "ref_"):
            found |= {f"{side}generation_{name}{end}": value for end in ("", "_low", "_high")}
    return found


def coverage(source: str, reason: str, held_out: int) -> dict[str, Any]:
    return {
        "rows": 210,
        "read": 210,
        "used": 200,
        "rejected": {reason: 8, "empty_prompt": 2},
        "forms": {source: source},
        "multi_turn": 12,
        "tokens": 12361,
        "truncated": 3,
        "truncated_tokens": 120,
        "seams_split": 0,
        "splits": {"train": 200 - held_out, "dev": 0, "eval": held_out},
        "visits": {},
        "overlap": 0,
        "duplicates": 4,
        "contradictions": 1,
        "chosen_longer": 80,
        "several_messages": 0,
    }


def slice_of(value: Any, n: int, accuracy: float, *, small: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"value": value, "n": n, "n_prompts": n - 1, "small": small}
    for i, name in enumerate(("reward_accuracy", "ranking_accuracy", "ref_ranking_accuracy")):
        middle = accuracy - 0.1 * i
        found |= {name: middle, f"{name}_low": middle - 0.08, f"{name}_high": min(1.0, middle + 0.06)}
    return found


def comparison(
    against: str, name: str, metric: str, before: float, after: float, low: float | None, high: float | None
) -> dict[str, Any]:
    return {
        "against": against,
        "name": name,
        "metric": metric,
        "n": 77,
        "n_prompts": 39,
        "overlap": 0.96,
        "before": before,
        "after": after,
        "difference": after - before,
        "standard_error": 0.03,
        "low": low,
        "high": high,
        "gained": 9,
        "lost": 4,
        "mcnemar_p": 0.2668,
        "verdict": "inconclusive",
        "detectable": 0.085,
    }


def gate(
    metric: str,
    kind: str,
    limit: float,
    verdict: str,
    point: float | None,
    low: float | None = None,
    high: float | None = None,
    against: str | None = None,
    name: str | None = None,
    value: float | None = None,
) -> dict[str, Any]:
    measured = f"{metric}_gate_low" if value is not None else metric
    return {
        "metric": metric,
        "kind": kind,
        "limit": limit,
        "verdict": verdict,
        "passed": verdict != "failed",
        "measured_on": measured,
        "value": point if value is None else value,
        "point": point,
        "against": against,
        "name": name,
        "level": 0.95,
        "low": low,
        "high": high,
    }


def steps(n: int = 40) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl, with dev pairs every tenth."""
    lines = []
    for step in range(1, n + 1):
        far = 1 - np.exp(-step / n * 2)
        line = {
            "step": step,
            "epoch": step / n,
            "loss": 0.693 - 0.2 * far,
            "grad_norm": 6.7 - far,
            "learning_rate": 1e-5,
            "rewards/accuracies": 0.5 + 0.4 * far,
            "rewards/margins": 0.6 * far,
            "rewards/chosen": 0.1 * far,
            "logps/chosen": -50 - far,
            "logps/rejected": -52 - 6 * far,
            "num_tokens": 1000 * step,
        }
        if step % 10 == 0:
            line |= {
                "dev/loss": 0.69 - 0.15 * far,
                "dev/reward_accuracy": 0.5 + 0.35 * far,
                "dev/reward_margin": 0.4 * far,
            }
        lines.append(line)
    return lines


def jobs(text: str | None = None) -> dict[str, dict[str, Any]]:
    device = "cpu AVX512" if text is None else text
    common = {"pairs_stored_before": 0, "device": device, "responses_scored": 400, "status": "done"}
    return {
        "precompute-ref": {**common, "pairs": 200, "pairs_scored": 200, "tokens": 17663, "seconds": 38.31},
        "train": {**common, "pairs": 123, "pairs_scored": 0, "tokens": 10926, "seconds": 187.5, "seconds_saved": 23.6},
        "eval": {**common, "pairs": 77, "pairs_scored": 77, "tokens": 6737, "seconds": 10.2, "seconds_saved": 14.7},
    }


def generations(text: str | None = None) -> pl.DataFrame:
    shown = None if text is None else text.replace("\ud800", "")
    return pl.DataFrame(
        {
            "location": [shown or f"prefs.jsonl:{i}" for i in (3, 5)],
            "prompt": [shown or "<|im_start|>user\nHow many times?<|im_end|>\n"] * 2,
            "policy": [shown or "Seven times, over the dog."] * 2,
            "reference": [shown, None] if shown else ["Nobody knows why.", "It jumps."],
        }
    )


def material(text: str | None = None, **changes: Any) -> Material:
    """Everything that a report may be made of; `text` stands wherever somebody else's words may stand."""
    pairs = pairs_frame()
    said = text or "It jumps over the dog."
    everything: dict[str, Any] = {
        "document": document(pairs, text=text),
        "pairs": pairs,
        "generations": generations(text),
        "steps": steps(),
        "configuration": json.dumps(
            {"workdir": text or "work", "run": text, "store": {"url": "s3://me:hunter2@bucket"}}
        ),
        "jobs": jobs(text),
        "costs": {"jobs": 2, "seconds": 40.1, "pairs": 200, "last_share": 0.2},
        "settings": {
            "show_pairs": 2,
            "external": {text or "judge": {"command": f"API_KEY=hunter2 ./judge {text or ''}"}},
        },
        "stack": {"torch": text or "2.13.0", "device": "cpu"},
        "wrong": [WrongPair(text or "prefs.jsonl:7", "0001" * 16, -0.41, said, said, said)] * 2,
    }
    return Material(**everything | changes)


def write_evaluation(folder: Path, found: dict[str, Any] | None = None, pairs: pl.DataFrame | None = None) -> Path:
    """The two files that every evaluation has."""
    pairs = pairs_frame() if pairs is None else pairs
    folder.mkdir(parents=True, exist_ok=True)
    found = document(pairs) if found is None else found
    (folder / "metrics.json").write_text(json.dumps(found))
    write_pairs(folder, pairs, found["identity"])
    return folder


def write_pairs(folder: Path, pairs: pl.DataFrame, identity: str) -> None:
    """pairs.parquet, which says of which evaluation it is."""
    table = pairs.to_arrow().replace_schema_metadata({"evaluation": identity})
    (folder / "pairs.parquet").write_bytes(parquet_bytes(table))
