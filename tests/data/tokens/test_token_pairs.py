"""Pairs say the same whether they were made in this process or lie in files."""

import pytest

from data.schema import TokenPair
from data.tokens.token_pairs import TokenPairs
from tests.tiny import example_rows

COLUMNS = ("pair_key", "margin", "pair_weight")


@pytest.fixture
def mapped(prepare_rows):
    """Seven pairs in a file, each with numbers of its own."""
    rows = [row | {"gap": i / 3 - 1, "sure": 0.7**i} for i, row in enumerate(example_rows(7))]
    return prepare_rows(*rows, source={"columns": {"margin": "gap", "pair_weight": "sure"}}).all


@pytest.mark.parametrize("places", [range(7), [6, 0, 3, 3]], ids=["whole", "taken"])
def test_numbers_of_pairs_are_columns_and_fields_in_files_and_in_memory(mapped, places):
    for pairs in (mapped.take(places), TokenPairs.of(mapped).take(places)):
        found = pairs.select(*COLUMNS)
        assert found["margin"].to_list() == [i / 3 - 1 for i in places]
        assert found["pair_weight"].to_list() == [0.7**i for i in places]
        assert found.rows() == [(pair.key, pair.margin, pair.weight) for pair in pairs]
        assert {type(number) for pair in pairs for number in (pair.margin, pair.weight)} == {float}


def test_pairs_without_numbers_have_no_margin_and_weigh_the_same(mapped, prepare_rows):
    plain = prepare_rows(*example_rows(7)).all
    for pairs in (plain, TokenPairs.of(TokenPair(0, "x:1", pair.chosen, pair.rejected) for pair in plain)):
        assert pairs.select(*COLUMNS).rows() == [(pair.key, 0.0, 1.0) for pair in mapped]
        assert {(pair.margin, pair.weight) for pair in pairs} == {(0.0, 1.0)}
