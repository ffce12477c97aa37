"""Sketches say how near two responses are: exactly for short ones, without bias and within known bounds for others."""

from itertools import pairwise

import numpy as np
import pytest

from data.tokens.sketches import SKETCH_BYTES, SKETCH_VALUES, _sketches, similarity, sketch, sketches
from tests.planted import reworded, words

UNUSED = 0xFFFFFFFF


def values(*sketches):
    return np.frombuffer(b"".join(sketches), "<u4").reshape(-1, SKETCH_VALUES)


def ids_of(*tokens):
    return np.array(tokens, np.int32)


def members(ids):
    """The set that is sketched, plainly."""
    tokens = ids.tolist()
    return {*((token,) for token in tokens), *pairwise(tokens)}


def jaccard(a, b):
    union = members(a) | members(b)
    return len(members(a) & members(b)) / len(union) if union else 1.0


def estimated(couples):
    return similarity(values(*(sketch(a) for a, _ in couples)), values(*(sketch(b) for _, b in couples)))


@pytest.mark.parametrize("n", [0, 1, 2, 8, 9, 200])
def test_a_sketch_is_the_smallest_hashes_in_ascending_order(n):
    ids = np.arange(1000, 1000 + n, dtype=np.int32)
    found, expected = sketch(ids), min(len(members(ids)), SKETCH_VALUES)
    assert len(found) == SKETCH_BYTES == 64
    used = values(found)[0][:expected].astype(np.int64)
    assert (np.diff(used) > 0).all()
    assert (used < UNUSED).all()
    assert (values(found)[0][expected:] == UNUSED).all()


def test_a_longer_response_has_the_smaller_hashes_of_its_parts():
    a, b = ids_of(*range(50, 100)), ids_of(*range(99, 180))
    both = ids_of(*range(50, 180))
    assert sketch(both) == np.unique(values(sketch(a), sketch(b)))[:SKETCH_VALUES].astype("<u4").tobytes()


def test_the_sketch_of_known_tokens_is_the_one_it_always_was():
    """Snapshots outlive versions of this program; another hash would make every pair look replaced."""
    assert sketch(ids_of(7)).hex() == "5c87b746" + "ff" * 60
    assert sketch(ids_of(0, 2**31 - 1, 5, 5)).hex() == "a5aa110c593f910f6115c37fbb87de92530727aeb655edeb" + "ff" * 40


def test_no_token_is_likelier_than_another_to_stand_in_a_sketch():
    """Neighbouring ids, and the bigrams of each with its neighbour, fall evenly into 16 parts of the range."""
    found = values(*(sketch(ids_of(n, n + 1)) for n in range(0, 8000, 2)))
    counts = np.bincount(found[found < UNUSED] >> 28, minlength=16)
    assert counts.sum() == 3 * 4000
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 45  # chi-squared, 15 degrees of freedom: p = 0.0001
    assert sketch(ids_of(0))[:4] != bytes(4)


def test_a_response_has_the_same_sketch_in_any_company():
    responses = [words(np.random.default_rng(n), n) for n in (0, 5, 1, 300, 0, 17, 8, 9, 0)]
    assert sketches(responses) == [sketch(ids) for ids in responses]
    assert sketches([]) == []


def test_of_any_response_all_hashes_are_looked_at_that_may_be_among_the_smallest():
    """Few words said often, many said once: as if every hash were sorted."""
    rng = np.random.default_rng(1)
    lengths = [*range(40), *rng.integers(40, 3000, 160).tolist()]
    responses = [rng.integers(0, 2 ** (i % 17), n).astype(np.int32) for i, n in enumerate(lengths)]
    assert sketches(responses) == _sketches(responses, 2 * max(lengths))


def test_what_is_repeated_counts_once():
    assert sketch(ids_of(5, 5)) == sketch(ids_of(*[5] * 1000))
    assert sketch(ids_of(5, 6, 5, 6, 5)) == sketch(ids_of(6, 5, 6))


def test_order_and_direction_matter():
    assert len({sketch(ids_of(*some)) for some in ((1, 2, 3), (3, 2, 1), (1, 3, 2), (2, 1, 3))}) == 4
    assert jaccard(ids_of(1, 2), ids_of(2, 1)) == 0.5 == estimated([(ids_of(1, 2), ids_of(2, 1))])[0]


def test_short_responses_are_compared_exactly():
    """Up to 8 tokens, so at most 15 members: everything is known."""
    rng = np.random.default_rng(0)
    couples = [tuple(rng.integers(0, 6, rng.integers(0, 9)).astype(np.int32) for _ in range(2)) for _ in range(1000)]
    exact = [jaccard(a, b) for a, b in couples]
    assert len(set(exact)) > 50
    assert estimated(couples).tolist() == exact


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.8, 0.95])
def test_long_responses_are_compared_without_bias_and_within_bounds(kept):
    """At least 15 values drawn from the union without replacement: their share varies less than a binomial's."""
    rng = np.random.default_rng(int(100 * kept))
    couples = []
    for _ in range(400):
        a, b = (rng.integers(0, 2**31 - 1, 150).astype(np.int32) for _ in range(2))
        couples.append((a, np.concatenate([a[: int(150 * kept)], b[int(150 * kept) :]])))
    exact = np.array([jaccard(a, b) for a, b in couples])
    errors = estimated(couples) - exact
    spread = np.sqrt(exact.mean() * (1 - exact.mean()) / (SKETCH_VALUES - 1))
    assert abs(errors.mean()) <= 4 * spread / np.sqrt(len(couples))
    assert errors.std() <= 1.1 * spread
    assert np.abs(errors).max() <= 5 * spread


def test_a_short_response_beside_a_long_one_is_compared_without_bias():
    rng = np.random.default_rng(0)
    long = [rng.integers(0, 2**31 - 1, 30).astype(np.int32) for _ in range(400)]
    couples = [(ids, ids[:8]) for ids in long]
    errors = estimated(couples) - np.array([jaccard(a, b) for a, b in couples])
    assert abs(errors.mean()) <= 4 * errors.std() / np.sqrt(len(couples))


def test_a_reworded_response_is_near_and_another_answer_is_far():
    rng = np.random.default_rng(0)
    answers = [words(rng, int(n)) for n in rng.integers(40, 300, 300)]
    assert estimated([(ids, reworded(ids, rng)) for ids in answers]).min() > 0.5
    assert estimated(list(pairwise(answers))).max() < 0.5


def test_a_response_is_itself_and_similarity_has_no_direction():
    rng = np.random.default_rng(0)
    responses = [words(rng, n) for n in (0, 1, 7, 8, 30, 500)]
    assert estimated([(ids, ids) for ids in responses]).tolist() == [1.0] * 6
    couples = [(a, b) for a in responses for b in responses]
    assert estimated(couples).tolist() == estimated([(b, a) for a, b in couples]).tolist()


def test_nothing_is_like_nothing_and_unlike_something():
    empty, some = ids_of(), ids_of(*range(100))
    assert estimated([(empty, empty), (empty, some), (some, empty)]).tolist() == [1.0, 0.0, 0.0]
    assert similarity(values(), values()).shape == (0,)
