"""Which metrics there are: the names that metrics.json has and that gates take."""

from stages.metrics.values import PAIR_VALUES

_SHARES = tuple(name for name, value in PAIR_VALUES.items() if value.share)
_LENGTH_SHARES = (
    "reward_accuracy_chosen_longer",
    "reward_accuracy_chosen_shorter",
    "reward_accuracy_equal_length",
    "reward_accuracy_length_matched",
)
METRIC_NAMES = (
    *PAIR_VALUES,
    *(f"{name}{end}" for name in _SHARES for end in ("_low", "_high")),
    "reward_accuracy_gate_low",
    "reward_accuracy_gate_high",
    "ties",
    "reward_margin_median",
    "reward_margin_p10",
    "reward_margin_p90",
    *(f"ranking_accuracy_gain{end}" for end in ("", "_low", "_high")),
    "ece",
    *(f"{name}{end}" for name in _LENGTH_SHARES for end in ("", "_low", "_high")),
    "length_baseline",
    "margin_length_correlation",
)
"""What the pairs alone give. Those of lengths are absent where the data have no such pairs."""

RANKING_NAMES = tuple(
    name
    for name in METRIC_NAMES
    if name == "length_baseline"
    or any(name.removesuffix(end) in PAIR_VALUES and not PAIR_VALUES[name.removesuffix(end)].reference
           for end in ("", "_low", "_high"))
)  # fmt: skip
"""What there is without a reference."""

GENERATION_NAMES = tuple(
    f"{model}generation_{figure}"
    for model in ("", "ref_")
    for figure in (
        "length",
        *(f"{share}{end}" for share in ("ended", "repetition", "empty") for end in ("", "_low", "_high")),
    )
)
"""What `eval.generate` gives."""

LEAKAGE_NAMES = ("leaked_pairs", "leaked_prompts", "leaked_first_turns")
"""Held-out pairs that stand among the training pairs, or whose prompt or first user turn does: counts, for limits."""

LOWER_IS_BETTER = (
    *(name for name, value in PAIR_VALUES.items() if value.better == "lower"),
    "ties",
    "drift",
    "ece",
)
