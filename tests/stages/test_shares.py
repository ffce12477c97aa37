"""Shares of a step: nothing twice, nothing left out, and about as much for each."""

from hypothesis import given
from hypothesis import strategies as st

from stages.processes import Processes
from stages.scoring.scorer import Scorer
from stages.shares import deal, response_shares, rounds, step_shares
from tests.families import random_responses
from tests.stages.training.test_step_losses import make_pairs
from tests.tiny import build_model


@given(st.lists(st.integers(1, 4096), max_size=60), st.integers(1, 9))
def test_every_place_is_in_one_share_and_no_share_has_much_more_than_another(lengths, n):
    shares = deal(lengths, n)
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    assert all(share == sorted(share) for share in shares)
    sizes = [sum(lengths[place] for place in share) for share in shares]
    assert max(sizes) - min(sizes) <= max(lengths, default=0)


def test_one_share_is_all_in_order():
    assert deal([3, 9, 1], 1) == [[0, 1, 2]]


def test_the_batches_of_a_step_hold_each_pair_once_by_its_place_in_the_step():
    pairs, scorer = make_pairs(10), Scorer(build_model(), 120)
    for n in (1, 3, 16):
        plans = step_shares(pairs, scorer, n)
        assert len(plans) == n
        assert sorted(place for plan in plans for batch in plan for place in batch.groups) == list(range(10))
        for batch in (batch for plan in plans for batch in plan):
            sides = {key for place in batch.groups for key in (pairs[place].chosen.key, pairs[place].rejected.key)}
            assert {response.key for response in batch.responses} == sides


def test_answers_to_one_prompt_are_scored_together():
    responses, scorer = random_responses(12, siblings=4), Scorer(build_model(), 4000)
    plans = response_shares(responses, scorer, 3)
    found = [[response for batch in plan for response in batch.responses] for plan in plans]
    assert sorted(r.key for share in found for r in share) == sorted(r.key for r in responses)
    prompts = [{response.prompt_ids.tobytes() for response in share} for share in found]
    assert sum(map(len, prompts)) == len(set().union(*prompts)) == 3


def test_every_process_goes_as_many_rounds_as_the_longest_plan():
    pairs, scorer = make_pairs(4), Scorer(build_model(), 120)
    plans = step_shares(pairs, scorer, 5)
    most = max(map(len, plans))
    for rank, plan in enumerate(plans):
        turns = list(rounds(plans, Processes(rank, 5)))
        assert len(turns) == most
        assert [batch for batch, own in turns if own] == plan
