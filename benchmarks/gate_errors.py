"""How often gates are wrong: false alarms in a year of nights without a drop, and drops that are seen.

    python benchmarks/gate_errors.py                 all tables (minutes)
    python benchmarks/gate_errors.py --times 100     a quick look

Verdicts are computed for many years at once, by the formula of stages/metrics/paired.py; before anything is printed, it
is held against the product's own verdicts on a sample of nights. The world: each held-out pair has a margin that all
runs share, drawn once a year; a run adds noise of its own to each pair (`flips`) and to all of them (the seed).
Both are given in what a person can measure: the share of pairs on whose winner two runs of one recipe differ, and the
standard deviation of the accuracy from seed to seed beyond that. A drop moves the margins of all runs from a night on.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit
from scipy.stats import norm

from stages.metrics.gates import Change, judge_change
from stages.metrics.paired import paired_difference

PAIRS, ACCURACY, NIGHTS = 1000, 0.75, 365
Wins = npt.NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """What nights are like."""

    flips: float
    """Share of pairs that two runs of one recipe order differently."""
    seed_sd: float
    """Standard deviation of the accuracy from seed to seed, beyond what flips of single pairs explain."""

    @property
    def own_noise(self) -> float:
        """Of a run, for each pair, in standard deviations of what all runs share: the noise with these flips."""
        low, high = 0.0, 2.0
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (middle, high) if _flips(middle) < self.flips else (low, middle)
        return low


def _flips(noise: float) -> float:
    """Share of pairs on which two runs differ, by quadrature over the shared margin."""
    shared = np.linspace(-8, 8, 4001) + norm.ppf(ACCURACY) * math.sqrt(1 + noise**2)
    density = norm.pdf(np.linspace(-8, 8, 4001))
    right = norm.cdf(shared / noise) if noise else (shared > 0).astype(float)
    return float((2 * right * (1 - right) * density).sum() / density.sum())


class Years:
    """Held-out sets, one a year, and runs on them: (Y, PAIRS) of wins a night."""

    def __init__(self, world: World, n_years: int, generator: np.random.Generator) -> None:
        self._noise, self._generator = np.float32(world.own_noise), generator
        self._spread = math.sqrt(1 + float(self._noise) ** 2)
        self._shared = self._normal(n_years, PAIRS) + np.float32(norm.ppf(ACCURACY) * self._spread)
        self._seed_shift = np.float32(world.seed_sd / norm.pdf(norm.ppf(ACCURACY)) * self._spread)

    def run(self, drop: float = 0.0) -> Wins:
        """Which pairs a new run has right in each year, after a drop of the expected accuracy."""
        shift = np.float32((norm.ppf(ACCURACY - drop) - norm.ppf(ACCURACY)) * self._spread)
        seed = self._seed_shift * self._normal(len(self._shared), 1)
        own = self._noise * self._normal(*self._shared.shape)
        wins: Wins = (self._shared + (shift + seed) + own > 0).astype(np.float32)
        return wins

    def keep(self, years: npt.NDArray[np.bool_]) -> None:
        """Go on with these years only."""
        self._shared = self._shared[years]

    def _normal(self, *shape: int) -> Wins:
        return self._generator.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True)
class Gate:
    """Settings of section eval: max_drop {reward_accuracy: 0} against the runs that passed, and an anchor."""

    looks: int = NIGHTS
    baseline_runs: int = 1
    anchor_runs: int = 1
    seed_sd: float = 0.0

    @property
    def level(self) -> float:
        """Of the intervals, as EvalConfig has it."""
        return 1 - 2 * min(0.025, 0.05 / (self.looks * (2 if self.anchor_runs else 1)))

    def fails(self, before: Wins, after: Wins, n_before: int) -> npt.NDArray[np.bool_]:
        """(Y,) whether a comparison fails: its interval of the drop lies above 0."""
        low, _ = _interval(before, after, self.level, self.seed_sd, n_before)
        return low > 0


def _interval(
    before: Wins, after: Wins, level: float, seed_sd: float, n_before: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of the drop: PairedDifference.interval of pairs with a prompt each, for many years at once."""
    lost = (before - after).astype(np.float64)
    drop = lost.mean(axis=1)
    variance = (np.square(lost).sum(axis=1) - PAIRS * drop**2) / PAIRS**2 * PAIRS / (PAIRS - 1)
    error = np.sqrt((variance * PAIRS**2 + 1) / (PAIRS + 2) ** 2 + seed_sd**2 * (1 + 1 / n_before))
    half = stdtrit(PAIRS - 1, (1 + level) / 2) * error
    return drop - half, drop + half


def check_against_the_product(generator: np.random.Generator) -> int:
    """Hold `Gate.fails` against the verdicts of stages/metrics on random nights; returns how many they were."""
    years, checked = Years(World(0.05, 0.004), 100, generator), 0
    prompts = [f"prompt {i}" for i in range(PAIRS)]
    for n_before, drop in ((1, 0.0), (1, 0.02), (3, 0.02), (7, 0.04)):
        gate = Gate(looks=30, seed_sd=0.004)
        before, after = np.mean([years.run() for _ in range(n_before)], axis=0), years.run(drop)
        ours = gate.fails(before, after, n_before)
        for i, verdict in enumerate(ours):
            found = paired_difference(before[i].astype(np.float64), after[i].astype(np.float64), prompts, share=True)
            change = Change("baseline", "", found, gate.level, gate.seed_sd, n_before)
            assert (judge_change("reward_accuracy", "max_drop", 0.0, change).verdict == "failed") == verdict
            checked += 1
    return checked


def first_failures(gate: Gate, years: Years, nights: int, quiet: int, drop: float) -> list[int]:
    """Of each year that has one, the first night that fails, counted from the drop, which comes after `quiet`
    nights.
    """
    anchors = np.mean([years.run() for _ in range(gate.anchor_runs)], axis=0)
    passed = [years.run()]
    found: list[int] = []
    for night in range(-quiet, nights):
        tonight = years.run(drop if night >= 0 else 0.0)
        pool = passed[-gate.baseline_runs :]
        failed = gate.fails(np.mean(pool, axis=0), tonight, len(pool)) | gate.fails(anchors, tonight, gate.anchor_runs)
        found += [night] * int(failed.sum())
        years.keep(~failed)
        anchors, passed = anchors[~failed], [runs[~failed] for runs in (*pool, tonight)]
    return found


def alarms_of_a_sum(years: Years, n_years: int) -> int:
    """What a test for independent nights makes of them: drops from one anchor are added up, night by night.

    Robbins' normal mixture (Howard et al. 2021, arXiv 1810.08240), valid at any time if nights were independent. They
    are not: the anchor's luck is in every one of them.
    """
    anchor, alarmed = years.run(), np.zeros(n_years, dtype=np.bool_)
    total, variance, mixture = np.zeros(n_years), np.zeros(n_years), 10 * 0.04 / PAIRS  # tightest after ten nights
    for _ in range(NIGHTS):
        low, high = _interval(anchor, years.run(), 0.95, 0.0, 1)
        total, variance = total + (low + high) / 2, variance + ((high - low) / 2 / 1.962) ** 2
        evidence = total**2 / (2 * (variance + mixture)) - np.log1p(variance / mixture) / 2
        alarmed |= (total > 0) & (evidence > math.log(1 / 0.05))
    return int(alarmed.sum())


def share(hits: int, n: int) -> str:
    """A share with its Monte Carlo error."""
    return f"{hits / n:.1%} \u00b1 {1.96 * math.sqrt(max(hits, 1) * max(n - hits, 1) / n**3):.1%}"


def single_looks(times: int, generator: np.random.Generator) -> Iterator[str]:
    """One comparison of two runs: false alarms, and drops that fail at once."""
    yield "| one comparison (looks: 1); flips | seed sd | no drop | drop 0.010 | drop 0.025 | drop 0.050 |"
    yield "|---|---|---|---|---|---|"
    for world in (World(0.02, 0.0), World(0.04, 0.0), World(0.06, 0.0), World(0.04, 0.003), World(0.04, 0.006)):
        cells = []
        for drop in (0.0, 0.01, 0.025, 0.05):
            years = Years(world, times, generator)
            gate = Gate(looks=1, anchor_runs=0, seed_sd=world.seed_sd)
            cells.append(share(int(gate.fails(years.run(), years.run(drop), 1).sum()), times))
        yield f"| {world.flips:g} | {world.seed_sd:g} | {' | '.join(cells)} |"


RULES = (
    ("`looks: 1`, each night by itself", Gate(looks=1)),
    ("`looks: 365`", Gate()),
    ("`looks: 365`, `baseline_runs: 7`", Gate(baseline_runs=7)),
    ("`looks: 365`, `baseline_runs: 7`, an anchor of 3 runs", Gate(baseline_runs=7, anchor_runs=3)),
)
WORLDS = (World(0.04, 0.0), World(0.04, 0.003), World(0.04, 0.006))


def quiet_years(times: int, generator: np.random.Generator) -> Iterator[str]:
    """A year of nights without a drop, under rules that a person might choose."""
    yield f"| years with a false alarm | {' | '.join(f'seed sd {world.seed_sd:g}' for world in WORLDS)} |"
    yield "|---|---|---|---|"
    rules = [(said, gate, True) for said, gate in RULES] + [("`looks: 365`, but no `seed_sd`", Gate(), False)]
    for said, gate, told in rules:
        cells = []
        for world in WORLDS:
            known = replace(gate, seed_sd=world.seed_sd if told else 0.0)
            cells.append(share(len(first_failures(known, Years(world, times, generator), NIGHTS, 0, 0.0)), times))
        yield f"| {said} | {' | '.join(cells)} |"
    cells = [share(alarms_of_a_sum(Years(world, times, generator), times), times) for world in WORLDS]
    yield f"| not ours: nights added up as if independent | {' | '.join(cells)} |"


def drops(times: int, generator: np.random.Generator) -> Iterator[str]:
    """A drop that comes after 30 quiet nights and stays: when a nightly gate fails."""
    yield "| a drop that stays | drop | first night | within 3 nights | within 7 | within 30 |"
    yield "|---|---|---|---|---|---|"
    world = World(0.04, 0.003)
    for said, gate in RULES[1:]:
        for drop in (0.01, 0.025, 0.05):
            known = replace(gate, seed_sd=world.seed_sd)
            found = first_failures(known, Years(world, times, generator), 30, 30, drop)
            cells = [share(sum(0 <= night < within for night in found), times) for within in (1, 3, 7, 30)]
            yield f"| {said} | {drop:g} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=1000, help="simulated years, and simulations of anything else")
    parser.add_argument("--seed", type=int, default=20261127)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    print(f"{check_against_the_product(generator)} verdicts are those of stages/metrics")
    print(
        f"{PAIRS} pairs, accuracy {ACCURACY:g}, flips 0.04 unless said otherwise, limit 0; {arguments.times} "
        "simulations a cell, with their 95 % Monte Carlo error\n"
    )
    for table in (single_looks, quiet_years, drops):
        print("\n".join(table(arguments.times, generator)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
