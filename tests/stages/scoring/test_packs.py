"""The planner over many random sets of groups, and a pack laid out token by token."""

import numpy as np
import pytest
import torch

from stages.scoring.attention.contract import Segment
from stages.scoring.packs import lay_out_pack, plan_packs
from tests.families import make_response

CPU = torch.device("cpu")


def random_groups(seed: int, n_prompts: int, longest: int = 40, most_groups: int = 4):
    """Pairs out of a few responses to each prompt, so that pairs share responses."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(n_prompts):
        prompt = rng.integers(0, 1000, rng.integers(1, longest))
        pool = [make_response(prompt, rng.integers(0, 1000, rng.integers(1, longest))) for _ in range(4)]
        for _ in range(rng.integers(1, most_groups + 1)):
            one, other = rng.choice(4, 2, replace=False)
            groups.append((pool[one], pool[other]))
    return [groups[i] for i in rng.permutation(len(groups))]


def tokens_of(groups) -> int:
    """Tokens of a pack: each prompt once, each response once."""
    prompts = {r.prompt_ids.tobytes(): len(r.prompt_ids) for group in groups for r in group}
    responses = {r.key: len(r.ids) for group in groups for r in group}
    return sum(prompts.values()) + sum(responses.values())


def prompt_of(group) -> bytes:
    return group[0].prompt_ids.tobytes()


def sets_of(plan, groups):
    """A plan as sets of pairs, whatever the order of the packs and the numbers of the groups."""
    return {frozenset(tuple(r.key for r in groups[i]) for i in pack) for pack in plan}


@pytest.mark.parametrize("budget", [1, 60, 100, 250, 1000, 100_000])
@pytest.mark.parametrize("seed", range(5))
def test_every_group_stands_in_one_pack_and_packs_keep_to_the_budget(seed, budget):
    groups = random_groups(seed, n_prompts=25)
    plan = plan_packs(groups, budget)
    assert sorted(index for pack in plan for index in pack) == list(range(len(groups)))
    for pack in plan:
        assert len(pack) == 1 or tokens_of([groups[i] for i in pack]) <= budget
    assert budget < 100_000 or len(plan) == 1
    assert budget > 1 or len(plan) == len(groups)


@pytest.mark.parametrize("budget", [100, 250])
@pytest.mark.parametrize("seed", range(5))
def test_groups_of_one_prompt_stay_together_where_they_fit(seed, budget):
    groups = random_groups(seed, n_prompts=25)
    plan = plan_packs(groups, budget)
    together = split = 0
    for prompt in {prompt_of(group) for group in groups}:
        members = {i for i, group in enumerate(groups) if prompt_of(group) == prompt}
        if tokens_of([groups[i] for i in members]) <= budget:
            together += 1
            assert any(members <= set(pack) for pack in plan)
        else:
            split += 1
    assert together > 0 and (split > 0 or budget == 250)


def test_six_pairs_of_four_answers_cost_each_answer_once():
    rng = np.random.default_rng(0)
    groups, expected = [], 0
    for n_prompt in (10, 20):
        prompt = rng.integers(0, 100, n_prompt)
        answers = [make_response(prompt, rng.integers(0, 100, n)) for n in (5, 6, 7, 8)]
        groups += [(answers[i], answers[j]) for i in range(4) for j in range(i)]
        expected += n_prompt + 5 + 6 + 7 + 8
    assert expected == 82
    assert len(plan_packs(groups, 82)) == 1
    assert len(plan_packs(groups, 81)) == 2


def test_groups_with_unlike_prompts_inside_are_counted_whole():
    one, other = make_response(range(10), range(5)), make_response(range(20), range(5))
    assert len(plan_packs([(one, other), (one, one)], 40)) == 1
    assert len(plan_packs([(one, other), (one, one)], 39)) == 2


@pytest.mark.parametrize("seed", range(10))
def test_no_two_packs_would_fit_into_one(seed):
    groups = random_groups(seed, n_prompts=60)
    budget = 400  # no prompt is split: what two packs hold is then the sum of what each holds
    loads = [tokens_of([groups[i] for i in pack]) for pack in plan_packs(groups, budget)]
    assert all(one + other > budget for k, one in enumerate(loads) for other in loads[:k])
    assert len(loads) > 5 and sum(loads) > 0.95 * budget * (len(loads) - 1)


def test_a_pack_with_the_least_room_that_suffices_is_filled_first():
    """Trees of 60, 50, 40 and 10 tokens, budget 100: 40 fits behind 60 and behind 50, and goes to 60."""
    groups = [(make_response([n], range(n - 1)),) for n in (40, 60, 10, 50)]
    assert sorted(sorted(pack) for pack in plan_packs(groups, 100)) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_depends_on_the_groups_alone(seed):
    """The same groups give the same plan; in another order, trees of unlike sizes give the same packs."""
    unlike, sizes = [], set()
    for group in random_groups(seed, n_prompts=60, most_groups=1):
        if tokens_of([group]) not in sizes:
            unlike.append(group)
            sizes.add(tokens_of([group]))
    assert plan_packs(unlike, 200) == plan_packs(unlike, 200)
    shuffled = [unlike[i] for i in np.random.default_rng(seed).permutation(len(unlike))]
    assert shuffled != unlike
    assert sets_of(plan_packs(shuffled, 200), shuffled) == sets_of(plan_packs(unlike, 200), unlike)


@pytest.mark.parametrize("seed", range(5))
def test_another_order_fills_packs_equally(seed):
    """Trees of one size may change places, and do no more."""
    groups = random_groups(seed, n_prompts=60)
    shuffled = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    loads = [
        sorted(tokens_of([some[i] for i in pack]) for pack in plan_packs(some, 400)) for some in (groups, shuffled)
    ]
    assert loads[0] == loads[1]


def test_no_groups_make_no_packs():
    assert plan_packs([], 100) == []


def test_the_longest_tree_comes_first():
    groups = [(make_response([n], range(n - 1)),) for n in (10, 30, 20)]
    assert plan_packs(groups, 30)[0] == [1]


def test_a_pack_token_by_token():
    """Three responses to two prompts.

    token       7 8 | 1 2 3 | 4 | 9 | 5 6 | padding
    place       0 1 | 2 3 4 | 5 | 6 | 7 8 | 9 to 15
    position    0 1 | 2 3 4 | 2 | 0 | 1 2 | 0
    """
    seen = {}

    def attention(segments, n_tokens, device):
        seen.update(segments=segments, n_tokens=n_tokens, device=device)
        return "attention"

    responses = [
        make_response([7, 8], [1, 2, 3], [1, 0, 1]),
        make_response([9], [5, 6]),
        make_response([7, 8], [4]),
    ]
    layout = lay_out_pack(responses, attention, CPU, multiple=16)
    assert layout.input_ids.tolist() == [[7, 8, 1, 2, 3, 4, 9, 5, 6] + [0] * 7]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 0, 1, 2] + [0] * 7]
    assert layout.input_ids.dtype == layout.position_ids.dtype == torch.int64
    assert layout.attention == "attention"
    assert seen == {
        "segments": [
            Segment(0, 2, 0, 0),
            Segment(2, 5, 0, 2),
            Segment(5, 6, 0, 2),
            Segment(6, 7, 6, 6),
            Segment(7, 9, 6, 7),
        ],
        "n_tokens": 16,
        "device": CPU,
    }
    # Scored: 1 and 3 of the first response, 5 and 6 of the second, 4 of the third, each read where its predecessor is.
    assert layout.targets[:5].tolist() == [1, 3, 5, 6, 4]
    assert layout.positions[:5].tolist() == [1, 3, 6, 7, 1]
    assert layout.owners.tolist() == [0, 0, 1, 1, 2]
    assert layout.places.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("tokens", "wanted", "length"),
    [
        (15, None, 16),
        (16, None, 32),
        (17, None, 32),
        (15, 64, 64),
        (15, 50, 50),
        (49, 50, 50),
        (50, 50, 64),
        (64, 64, 80),
    ],
)
def test_there_is_always_padding(tokens, wanted, length):
    one = make_response([1] * 5, [2] * (tokens - 5))
    layout = lay_out_pack([one], lambda *_: None, CPU, 16, wanted)
    assert layout.input_ids.shape == layout.position_ids.shape == (1, length)
    assert layout.input_ids.count_nonzero() == tokens < length
