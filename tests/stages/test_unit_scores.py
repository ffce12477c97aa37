"""Units are committed whole, once and in order, and on a device that works by itself while it is at the next one."""

import numpy as np
import pytest

from data.errors import Interrupted
from data.schema import unique_responses
from pipeline.control import ProcessControl
from stages.unit_scores import UnitScores
from tests.stages.reference_double import DictionaryScorer, make_pairs, true_logps


class Device(DictionaryScorer):
    """Two responses a batch; every call and every commit is written down."""

    def __init__(self, is_asynchronous):
        super().__init__()
        self.is_asynchronous, self.events = is_asynchronous, []

    def plan(self, groups):
        whole = [group[0] for group in groups]
        return [batch for at in range(0, len(whole), 2) for batch in super(Device, self).plan([whole[at : at + 2]])]

    def token_logps(self, responses):
        self.events.append("score")
        return super().token_logps(responses)


class Bar:
    def __init__(self):
        self.pairs = 0.0

    def advance(self, pairs, tokens):
        self.pairs += pairs


def units_of(numbers=range(12), size=4):
    pairs = make_pairs(numbers, per_prompt=size)
    return [pairs[at : at + size] for at in range(0, len(pairs), size)]


def keys(pairs):
    return [pair.key for pair in pairs]


def scores_of(device, control=None):
    committed, bar = [], Bar()

    def commit(unit):
        device.events.append("commit")
        committed.append(unit)

    return UnitScores(device, control or ProcessControl(quiet=True), bar, commit), committed, bar


@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_every_unit_is_committed_whole_and_in_order(is_asynchronous):
    device = Device(is_asynchronous)
    scores, committed, bar = scores_of(device)
    for unit in units_of():
        scores.add(unit, unique_responses(unit))
    assert len(committed) == (2 if is_asynchronous else 3)
    scores.finish()
    assert [keys(unit.pairs) for unit in committed] == [keys(pairs) for pairs in units_of()]
    for unit in committed:
        assert unit.logps.keys() == {response.key for response in unique_responses(unit.pairs)}
        assert all(np.array_equal(unit.logps[r.key], true_logps(r)) for r in unit.responses) and unit.seconds > 0
    assert bar.pairs == pytest.approx(12)


@pytest.mark.parametrize(("is_asynchronous", "order"), [(False, "sscssc"), (True, "ssscs")])
def test_a_unit_is_written_while_the_next_one_is_scored(is_asynchronous, order):
    """Two units of two batches: s is asked for, c committed."""
    device = Device(is_asynchronous)
    scores, _, _ = scores_of(device)
    for unit in units_of(range(8)):
        scores.add(unit, unique_responses(unit)[:3])
    assert "".join(event[0] for event in device.events) == order


def test_what_was_scored_before_a_signal_is_committed(monkeypatch):
    device = Device(is_asynchronous=True)
    asked = iter(range(100))
    monkeypatch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 3)
    scores, committed, _ = scores_of(device)
    first, second, _ = units_of()
    scores.add(first, unique_responses(first))
    assert not committed
    with pytest.raises(Interrupted):
        scores.add(second, unique_responses(second))
    assert [unit.pairs for unit in committed] == [first]


def test_where_memory_runs_out_the_unit_before_is_written_as_it_was_scored(monkeypatch):
    """Its part says how long packs were, which is another length afterwards."""
    device, real, calls = Device(is_asynchronous=True), Device.token_logps, iter(range(100))

    def scarce(self, responses):
        if next(calls) == 2:
            raise MemoryError
        return real(self, responses)

    monkeypatch.setattr(Device, "token_logps", scarce)
    monkeypatch.setattr(Device, "shrink", lambda self, _: self.events.append("halve") or True, raising=False)
    scores, committed, _ = scores_of(device)
    for unit in units_of(range(8)):
        scores.add(unit, unique_responses(unit)[:3])
    scores.finish()
    assert "".join(event[0] for event in device.events) == "sschssc"
    assert [keys(unit.pairs) for unit in committed] == [keys(pairs) for pairs in units_of(range(8))]
