"""The split depends on the first user turn alone, and its fractions only ever let a split grow."""

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest

from data.pairs.splits import SPLITS, group_number, normalised
from data.pairs.splits import split_of as splits_of
from data.schema import Message, PreferencePair

TEXTS = [f"Question {i}: what does the fox do?" for i in range(10_000)]
NUMBERS = np.array([group_number(text) for text in TEXTS], np.uint64)


def split_of(text, eval_fraction, dev_fraction):
    """The split of one text."""
    return SPLITS[splits_of(np.array([group_number(text)], np.uint64), eval_fraction, dev_fraction)[0]]


def members(split, eval_fraction, dev_fraction):
    found = splits_of(NUMBERS, eval_fraction, dev_fraction)
    return {text for text, place in zip(TEXTS, found, strict=True) if SPLITS[place] == split}


@pytest.mark.parametrize(("eval_fraction", "dev_fraction"), [(0.1, 0.05), (0.5, 0.3), (0.01, 0.0), (0.0, 0.2)])
def test_shares_are_the_fractions(eval_fraction, dev_fraction):
    for split, share in (("eval", eval_fraction), ("dev", dev_fraction), ("train", 1 - eval_fraction - dev_fraction)):
        n, spread = len(members(split, eval_fraction, dev_fraction)), sqrt(share * (1 - share) / len(TEXTS))
        assert abs(n / len(TEXTS) - share) <= 4 * spread


def test_larger_fraction_keeps_what_was_held_out():
    for split, fractions in (("eval", lambda x: (x, 0.2)), ("dev", lambda x: (0.2, x))):
        grown = [members(split, *fractions(x)) for x in (0.0, 0.01, 0.1, 0.11, 0.5, 0.79)]
        assert all(small < large for small, large in pairwise(grown))


def test_dev_and_eval_take_from_train_and_never_from_each_other():
    assert members("eval", 0.3, 0.6) == members("eval", 0.3, 0.0)
    assert members("dev", 0.3, 0.6) == members("dev", 0.0, 0.6)
    assert not members("eval", 0.3, 0.0) & members("dev", 0.0, 0.6)


def test_split_of_known_texts_is_the_one_it_always_was():
    assert [i for i in range(40) if split_of(TEXTS[i], 0.1, 0.1) == "eval"] == [1, 13, 25]
    assert [i for i in range(40) if split_of(TEXTS[i], 0.1, 0.1) == "dev"] == [4, 20, 22, 27, 34, 38]


@pytest.mark.parametrize("change", [" {}", "{}\n", "\t{}\r\n ", "\u00a0{}\u3000"], ids=ascii)
def test_white_space_does_not_matter(change):
    for text in TEXTS[:200]:
        assert split_of(change.format(text.replace(" ", "  \n")), 0.5, 0.2) == split_of(text, 0.5, 0.2)
        assert normalised(change.format(text)) == text


def test_words_case_and_joints_matter():
    assert len({normalised(text) for text in ("a b", "ab", "A b", "a b.")}) == 4


@pytest.mark.parametrize(
    ("turns", "first"),
    [
        (["user Why?"], "Why?"),
        (["system Be brief.", "user Why?"], "Why?"),
        (["user Why?", "assistant Because.", "user And then?"], "Why?"),
        (["system Be brief."], "Be brief."),
    ],
)
def test_pairs_are_split_by_their_first_user_turn(turns, first):
    prompt = tuple(Message(*turn.split(" ", 1)) for turn in turns)
    assert PreferencePair(0, "rows.jsonl:1", prompt, (), ()).group == first
