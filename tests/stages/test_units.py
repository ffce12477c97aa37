"""What is left to score, whose it is, and what a unit's rows hold."""

import numpy as np
import pytest
import torch

from data.schema import Response, TokenPair
from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from data.tokens.token_pairs import TokenPairs
from stages.scoring.scorer import Scorer
from stages.units import ALL, Shard, cut_units, outstanding, pair_table, prefix_sums, response_table
from tests.families import random_responses
from tests.tiny import build_model


@pytest.fixture
def store(tmp_path):
    return ReferenceStore(LocalStorage(tmp_path), "ab" * 32)


@pytest.fixture(scope="module")
def pairs():
    responses = random_responses(60)
    sides = [Response(responses[i - i % 2].prompt_ids, each.ids, each.mask) for i, each in enumerate(responses)]
    return TokenPairs.of(TokenPair(i, f"x:{i}", sides[2 * i], sides[2 * i + 1]) for i in range(30))


def flipped(pairs):
    """The same pairs the other way round."""
    return [TokenPair(p.row, p.location, p.rejected, p.chosen) for p in pairs]


def logps(pairs):
    """Any values."""
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    return {side.key: -np.arange(1, side.n_scored + 1, dtype=np.float32) / 7 for side in sides}


def commit(store, unit):
    values = logps(unit)
    sides = [side for pair in unit for side in (pair.chosen, pair.rejected)]
    store.commit(pair_table(unit, values), {}, response_table(sides, values))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_pair_belongs_to_one_worker_and_a_prompt_to_one(pairs, count):
    owned = [Shard(i, count).of(pairs) for i in range(count)]
    assert sorted(pair.row for share in owned for pair in share) == list(range(30))
    prompts = [{pair.prompt_key for pair in share} for share in owned]
    assert sum(map(len, prompts)) == len(set().union(*prompts))


def test_the_share_of_a_worker_does_not_depend_on_what_is_stored(store, pairs):
    shard = Shard(1, 3)
    before = outstanding(pairs, store, shard, damaged="refuse")
    assert [pair.row for pair in before.missing] == [
        p.row for p in sorted(before.missing, key=lambda p: (p.prompt_key, p.key))
    ]
    others = [pair for pair in pairs if pair.key not in set(shard.of(pairs).keys)]
    commit(store, [*others, *before.missing[:4]])
    after = outstanding(pairs[::-1], store, shard, damaged="refuse")
    assert [pair.row for pair in after.missing] == [pair.row for pair in before.missing[4:]]
    assert after.n_pairs == before.n_pairs and before.known == after.known == {}


def test_what_is_known_of_a_new_pair_is_read_with_its_tokens(store, pairs):
    commit(store, pairs)
    (other,) = flipped(pairs[:1])
    todo = outstanding(TokenPairs.of([*pairs, other]), store, ALL, damaged="refuse")
    assert todo.missing.keys.to_list() == [other.key] and todo.unknown.is_empty()
    expected = logps(pairs[:1])
    assert {key: value.tolist() for key, value in todo.known.items()} == {k: v.tolist() for k, v in expected.items()}


def test_responses_whose_tokens_are_not_there_are_scored_again(store, pairs):
    store.commit(pair_table(pairs, logps(pairs)), {})
    unknown = outstanding(TokenPairs.of(flipped(pairs[:1])), store, ALL, damaged="refuse").unknown
    sides = [pairs[0].rejected, pairs[0].chosen]
    assert unknown.rows() == [(side.key, len(side), side.n_scored) for side in sides]


def test_units_end_at_prompts(pairs):
    twice = sorted([*pairs, *flipped(pairs)], key=lambda p: p.prompt_key)
    units = list(cut_units(twice, 5))
    assert [len(unit) for unit in units] == [6] * 10
    assert [pair for unit in units for pair in unit] == twice


def test_a_unit_is_full_with_as_many_pairs_as_asked_for(pairs):
    assert [len(unit) for unit in cut_units(pairs, 6)] == [6] * 5


def test_units_do_not_depend_on_the_order_of_rows(store, pairs):
    """Also where pairs share a prompt."""
    twice = [*pairs, *flipped(pairs)]
    orders = [outstanding(TokenPairs.of(rows), store, ALL, damaged="refuse").missing for rows in (twice, twice[::-1])]
    assert [pair.key for pair in orders[0]] == [pair.key for pair in orders[1]]


def test_a_row_holds_whole_and_shared_sums(pairs):
    values = logps(pairs)
    for row, pair in zip(pair_table(pairs, values).to_pylist(), pairs, strict=True):
        shared = min(pair.chosen.n_scored, pair.rejected.n_scored)
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            exact = values[side.key].astype(np.float64)
            assert row[f"ref_{name}_logps"] == np.float32(exact.sum())
            assert row[f"ref_{name}_shared_logps"] == np.float32(exact[:shared].sum())
            assert row[f"n_{name}"] == side.n_scored


def test_sums_of_stored_tokens_are_the_scorer_s_bit_for_bit():
    """However long the others of its pack are: a sum may not depend on the width of a table."""
    scorer, responses = Scorer(build_model(), pack_tokens=4096), random_responses(40)
    with torch.no_grad():
        together = scorer.logps(responses)
        table = scorer.token_logps(responses).numpy()
        alone = torch.cat([scorer.logps([response]) for response in responses])
    assert together.tolist() == alone.tolist()
    assert together.tolist() == [prefix_sums(row[: r.n_scored])[-1] for row, r in zip(table, responses, strict=True)]
