"""What was aimed at on a GPU of 141 GB, and whether the figures of a file reach it."""

from collections.abc import Iterator

from gpu_results import Result, Results, is_default_trl, is_ours, is_tuned_trl

MIX = "ultrafeedback"
SHARES = {
    ("scoring", "8b"): 0.60,
    ("scoring", "1.7b"): 0.50,
    ("scoring", "0.5b"): 0.30,
    ("training", "8b"): 0.50,
    ("training", "1.7b"): 0.40,
    ("training", "0.5b"): 0.25,
}
"""Of the measured matrix rate in bf16."""
DEFAULTS, BEST = 3.0, 1.5
"""Times as fast as TRL."""
CARD = 141e9
MILLION = 1_000_000
NEW = 0.01  # share of the pairs that a night has to score
TARGET_COLUMNS = ("target", "reached", "with", "met")
HOURS_COLUMNS = ("model", "mix", "scoring all", "training on all", "full pass", "a night, 1 % new")


def target_rows(results: Results) -> Iterator[list[str]]:
    """A row a target."""
    for (task, model), share in SHARES.items():
        row = (task, model, MIX)
        ours = max((r for r in results.of_row(row) if is_ours(r.contender)), key=lambda r: r.share, default=None)
        yield _row(f"{task} {model}: {share:.0%} of the matrix rate", ours, ours and ours.share, share, "{:.0%}")
        faster = results.fastest(row, is_ours)
        for name, least, theirs in (
            (
                "TRL's defaults",
                DEFAULTS,
                results.fastest(row, is_default_trl),
            ),
            ("TRL at its best", BEST, results.fastest(row, is_tuned_trl)),
        ):
            times = faster and theirs and faster.pairs_per_second / theirs.pairs_per_second
            beside = "" if theirs is None else f" / {theirs.contender}"
            yield _row(f"{task} {model}: {least}x {name}", faster, times, least, "{:.2f}x", beside)
    whole = [r for r in results.of_row(("training", "8b", MIX)) if is_ours(r.contender)]
    smallest = min(whole, key=lambda result: result.peak, default=None)
    target = "all of 8b is trained on 141 GB"
    if smallest is None:
        yield [target, "", "", "not measured"]
    else:
        met = "yes" if smallest.peak <= CARD else "no"
        yield [target, f"{smallest.peak / 1e9:.0f} GB", smallest.contender, met]


def _row(
    target: str, ours: Result | None, reached: float | None, least: float, form: str, beside: str = ""
) -> list[str]:
    if ours is None or reached is None:
        return [target, "", "", "not measured"]
    return [target, form.format(reached), f"{ours.contender}{beside}", "yes" if reached >= least else "no"]


def hours_rows(results: Results) -> Iterator[list[str]]:
    """Device-hours for a million pairs: one pass of scoring and an epoch; and a night that scores only what is new."""
    for task, model, mix in results.rows():
        scoring = results.fastest(("scoring", model, mix), is_ours)
        training = results.fastest(("training", model, mix), is_ours)
        if task == "training" and scoring is not None and training is not None:
            score, train = (MILLION / result.pairs_per_second / 3600 for result in (scoring, training))
            hours = (score, train, score + train, NEW * score + train)
            yield [model, mix, *(f"{value:.2f}" for value in hours)]
