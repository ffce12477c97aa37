"""How often gates are wrong, by simulation: fewer runs of benchmarks/gate_errors.py (its tables: docs/gating.md)."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gate_errors import (
    RULES,
    Gate,
    World,
    Years,
    check_against_the_product,
    first_failures,
)
from stages.evaluation.config import EvalConfig
from tests.tiny import ROOT


@pytest.fixture
def generator():
    return np.random.default_rng(20261127)


def test_the_simulated_verdicts_are_those_of_the_product(generator):
    assert check_against_the_product(generator) == 400
    settings = {"baseline": "passed", "anchor": "a", "max_drop": {"reward_accuracy": 0.0}}
    assert Gate().level == EvalConfig(**settings, looks=365).level
    assert Gate(looks=1, anchor_runs=0).level == EvalConfig(baseline="passed", max_drop={"reward_accuracy": 0.0}).level


@pytest.mark.parametrize("world", [World(0.04, 0.0), World(0.06, 0.0), World(0.04, 0.003)])
def test_a_drop_of_two_and_a_half_points_on_a_thousand_pairs_fails_in_four_of_five_cases(generator, world):
    gate, years = Gate(looks=1, anchor_runs=0, seed_sd=world.seed_sd), Years(world, 1000, generator)
    assert gate.fails(years.run(), years.run(0.025), 1).mean() >= 0.8
    assert gate.fails(years.run(), years.run(), 1).mean() <= 0.025 + 2.6 * math.sqrt(0.025 / 1000)


@pytest.mark.parametrize("rule", [gate for _, gate in RULES[1:]], ids=[said for said, _ in RULES[1:]])
def test_a_quiet_year_raises_an_alarm_in_at_most_one_of_twenty(generator, rule):
    world, n_years = World(0.04, 0.003), 100
    gate = replace(rule, seed_sd=world.seed_sd)
    alarms = len(first_failures(gate, Years(world, n_years, generator), 365, 0, 0.0))
    assert alarms / n_years <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / n_years)


def test_without_a_share_for_each_night_nearly_every_year_has_an_alarm(generator):
    """What keeps the test above from passing whatever gates do."""
    gate = replace(RULES[0][1], seed_sd=0.003)
    assert len(first_failures(gate, Years(World(0.04, 0.003), 30, generator), 365, 0, 0.0)) > 20


def test_the_page_has_the_tables_of_the_benchmark():
    page = (ROOT / "docs/gating.md").read_text()
    for said, _ in RULES:
        assert re.search(rf"^\| {re.escape(said)} \| [\d.]+% ± [\d.]+% \|", page, re.MULTILINE), said
