"""How often gates are wrong: false alarms in a year of nights without a drop, and drops that are seen.

    python benchmarks/gate_errors.py                 all tables (about a quarter of an hour on one core)
    python benchmarks/gate_errors.py --years 100     a quick look

Every verdict is the product's own (stages/metrics). The world: each held-out pair has a margin that all runs share,
drawn once a year; a run adds noise of its own to each pair (`flips`) and to all of them (the training seed). Both are
given in what a person can measure: the share of pairs on whose winner two runs of one recipe differ, and the standard
deviation of the accuracy from seed to seed beyond that. A drop moves the margins of all runs from a night on.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from stages.metrics.gates import Change, judge_change
from stages.metrics.paired import paired_difference

PAIRS, ACCURACY, NIGHTS = 1000, 0.75, 365
Wins = npt.NDArray[np.float64]


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


class Year:
    """A held-out set, and runs on it."""

    def __init__(self, world: World, generator: np.random.Generator) -> None:
        self._noise, self._generator = world.own_noise, generator
        self._spread = math.sqrt(1 + self._noise**2)
        self._shared = generator.normal(size=PAIRS) + norm.ppf(ACCURACY) * self._spread
        self._seed_shift = world.seed_sd / norm.pdf(norm.ppf(ACCURACY)) * self._spread

    def run(self, drop: float = 0.0) -> Wins:
        """Which pairs a new run has right, after a drop of the expected accuracy."""
        shift = (norm.ppf(ACCURACY - drop) - norm.ppf(ACCURACY)) * self._spread
        seed = self._seed_shift * self._generator.normal()
        margins = self._shared + shift + seed + self._noise * self._generator.normal(size=PAIRS)
        wins: Wins = (margins > 0).astype(np.float64)
        return wins


@dataclass(frozen=True)
class Gate:
    """Settings of section eval: max_drop {reward_accuracy: 0} against the runs that passed, and an anchor."""

    looks: int = NIGHTS
    baseline_runs: int = 1
    anchor_runs: int = 1
    seed_sd: float = 0.0

    def fails(self, tonight: Wins, passed: Sequence[Wins], anchor: Sequence[Wins]) -> bool:
        """The verdict on a night's run."""
        comparisons = [runs for runs in (passed[-self.baseline_runs :], anchor) if len(runs)]
        level = 1 - 0.05 / (self.looks * 2)
        return any(self._fails(tonight, runs, level) for runs in comparisons)

    def _fails(self, tonight: Wins, runs: Sequence[Wins], level: float) -> bool:
        before = runs[0] if len(runs) == 1 else np.mean(runs, axis=0)
        found = paired_difference(before, tonight, PROMPTS, share=True)
        change = Change("baseline", "", found, level, self.seed_sd, len(runs))
        return judge_change("reward_accuracy", "max_drop", 0.0, change).verdict == "failed"


PROMPTS = np.arange(PAIRS)


def first_failure(gate: Gate, year: Year, nights: int, quiet: int, drop: float) -> int | None:
    """The first night that fails, counted from the drop, which comes after `quiet` nights; None: none does."""
    anchor = [year.run() for _ in range(gate.anchor_runs)]
    passed: list[Wins] = anchor[:1]
    for night in range(-quiet, nights):
        tonight = year.run(drop if night >= 0 else 0.0)
        if gate.fails(tonight, passed, anchor):
            return night
        passed = [*passed[-gate.baseline_runs + 1 :], tonight] if gate.baseline_runs > 1 else [tonight]
    return None


def first_alarm_of_a_sum(year: Year, nights: int) -> int | None:
    """What a test for independent nights makes of them: drops from one anchor are added up, night by night.

    Robbins' normal mixture (Howard et al. 2021, arXiv 1810.08240, proposition 5), valid at any time if nights were
    independent. They are not: the anchor's luck is in every one of them.
    """
    anchor, total, variance = year.run(), 0.0, 0.0
    for night in range(nights):
        found = paired_difference(anchor, year.run(), PROMPTS, share=True)
        total, variance = total - found.difference, variance + found.standard_error**2
        mixture = 10 * found.standard_error**2  # a boundary that is tightest after ten nights
        evidence = total**2 / (2 * (variance + mixture)) - math.log1p(variance / mixture) / 2
        if total > 0 and evidence > math.log(1 / 0.05):
            return night
    return None


def share(hits: int, n: int) -> str:
    """A share with its Monte Carlo error."""
    return f"{hits / n:.1%} ± {1.96 * math.sqrt(max(hits, 1) * max(n - hits, 1) / n**3):.1%}"


def single_looks(times: int, generator: np.random.Generator) -> Iterator[str]:
    """One comparison of two runs: false alarms, and drops that fail at once."""
    yield "| flips | seed sd | drop 0 | drop 0.010 | drop 0.025 | drop 0.050 |"
    yield "|---|---|---|---|---|---|"
    for world in (World(0.02, 0.0), World(0.04, 0.0), World(0.06, 0.0), World(0.04, 0.003), World(0.04, 0.006)):
        cells = []
        for drop in (0.0, 0.01, 0.025, 0.05):
            gate = Gate(looks=1, anchor_runs=0, seed_sd=world.seed_sd)
            hits = sum(_one_look(gate, Year(world, generator), drop) for _ in range(times))
            cells.append(share(hits, times))
        yield f"| {world.flips:g} | {world.seed_sd:g} | {' | '.join(cells)} |"


def _one_look(gate: Gate, year: Year, drop: float) -> bool:
    return gate._fails(year.run(drop), [year.run()], 0.95)


def years(n_years: int, generator: np.random.Generator) -> Iterator[str]:
    """A year of nights without a drop, under rules that a person might choose."""
    rules: list[tuple[str, Callable[[World], Gate]]] = [
        ("each night by itself (looks: 1)", lambda world: Gate(looks=1, seed_sd=world.seed_sd)),
        ("looks: 365, seed_sd not given", lambda _: Gate()),
        ("looks: 365", lambda world: Gate(seed_sd=world.seed_sd)),
        ("looks: 365, baseline_runs: 7", lambda world: Gate(seed_sd=world.seed_sd, baseline_runs=7)),
        ("... and an anchor of 3 runs", lambda world: Gate(seed_sd=world.seed_sd, baseline_runs=7, anchor_runs=3)),
    ]
    yield "| years with a false alarm | flips 0.04, seed sd 0 | seed sd 0.003 | seed sd 0.006 |"
    yield "|---|---|---|---|"
    for said, rule in rules:
        cells = []
        for world in (World(0.04, 0.0), World(0.04, 0.003), World(0.04, 0.006)):
            found = (first_failure(rule(world), Year(world, generator), NIGHTS, 0, 0.0) for _ in range(n_years))
            cells.append(share(sum(night is not None for night in found), n_years))
        yield f"| {said} | {' | '.join(cells)} |"
    cells = []
    for world in (World(0.04, 0.0), World(0.04, 0.003), World(0.04, 0.006)):
        nights = [first_alarm_of_a_sum(Year(world, generator), NIGHTS) for _ in range(n_years)]
        cells.append(share(sum(night is not None for night in nights), n_years))
    yield f"| no rule of ours: drops from an anchor added up | {' | '.join(cells)} |"


def drops(times: int, generator: np.random.Generator) -> Iterator[str]:
    """A drop that comes after 30 quiet nights and stays: when a nightly gate fails."""
    yield "| looks: 365 and | drop | first night | within 3 nights | within 7 nights | within 30 nights |"
    yield "|---|---|---|---|---|---|"
    world = World(0.04, 0.003)
    for said, runs, anchors in (("one run each", 1, 1), ("baseline_runs: 7", 7, 1), ("... an anchor of 3", 7, 3)):
        for drop in (0.01, 0.025, 0.05):
            gate = Gate(seed_sd=world.seed_sd, baseline_runs=runs, anchor_runs=anchors)
            found = [first_failure(gate, Year(world, generator), 30, 30, drop) for _ in range(times)]
            nights = [night for night in found if night is not None and night >= 0]
            cells = [share(sum(night < within for night in nights), times) for within in (1, 3, 7, 30)]
            yield f"| {said} | {drop:g} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=1000, help="simulated years, and simulations of anything else")
    parser.add_argument("--seed", type=int, default=20261127)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    print(
        f"{PAIRS} pairs, accuracy {ACCURACY:g}, limit 0; {arguments.years} simulations a cell, 95 % Monte Carlo error\n"
    )
    for table in (single_looks, years, drops):
        print("\n".join(table(arguments.years, generator)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
