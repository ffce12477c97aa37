"""Any sequence of what may happen to a store, in any order; the model is a dictionary (hypothesis)."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from data.errors import StoreError
from data.store.compaction import find_merges
from stages.units import Shard, prefix_sums
from tests.crash import Stopped, stopping_disk
from tests.stages.reference_double import (
    IDENTITY,
    DictionaryScorer,
    make_pairs,
    make_store,
    precompute,
    true_logps,
)


class StoreMachine(RuleBasedStateMachine):
    """Appends, orders, kills, flips, deletes, copies, merges, several writers, reruns."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.store = make_store(self.folder)
        self.other = make_store(self.folder, IDENTITY | {"weights": ["another"]})
        self.numbers = [0, 1, 2]

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def parts(self, folder="parts"):
        return sorted((self.folder / self.store.reference_id / folder).glob("*.parquet"))

    @rule(numbers=st.lists(st.integers(0, 19), max_size=6))
    def append(self, numbers):
        self.numbers += numbers

    @rule(order=st.permutations(range(20)))
    def reorder(self, order):
        self.numbers = [number for number in order if number in self.numbers]

    @rule(stop=st.integers(0, 40), unit_pairs=st.integers(1, 5))
    def killed(self, stop, unit_pairs):
        try:
            with stopping_disk(stop):
                precompute(make_pairs(self.numbers), self.store, unit_pairs=unit_pairs)
        except Stopped:
            pass

    @rule(count=st.integers(2, 3), unit_pairs=st.integers(1, 5))
    def some_of_several_writers(self, count, unit_pairs):
        for index in range(count - 1):
            precompute(make_pairs(self.numbers), self.store, unit_pairs=unit_pairs, shard=Shard(index, count))

    @rule(
        which=st.integers(0, 50),
        at=st.floats(0, 0.999),
        bit=st.integers(0, 7),
        folder=st.sampled_from(["parts", "tokens"]),
    )
    def flip(self, which, at, bit, folder):
        if parts := self.parts(folder):
            path = parts[which % len(parts)]
            content = bytearray(path.read_bytes())
            if content:
                content[int(at * len(content))] ^= 1 << bit
                path.write_bytes(content)

    @rule(which=st.integers(0, 50), folder=st.sampled_from(["parts", "tokens"]))
    def delete(self, which, folder):
        if parts := self.parts(folder):
            parts[which % len(parts)].unlink()

    @rule(which=st.integers(0, 50))
    def copy_to_another_reference(self, which):
        if parts := self.parts():
            part = parts[which % len(parts)]
            target = self.folder / self.other.reference_id / "parts" / part.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(part, target)
            assert self.other.rows(damaged="skip").height == 0

    @rule()
    def merge(self):
        try:
            for merge in list(find_merges(self.store)):
                self.store.replace(merge.folder, merge.names, merge.table, merge.stack)
        except StoreError:
            pass  # a damaged part: nothing is merged before it is repaired

    @rule(unit_pairs=st.integers(1, 5))
    def rerun(self, unit_pairs):
        pairs, scorer = make_pairs(self.numbers), DictionaryScorer()
        stored = set(self.store.rows(damaged="skip")["pair_key"])
        report = precompute(pairs, self.store, scorer, unit_pairs=unit_pairs)
        wanted = {pair.key for pair in pairs}
        assert report.pairs_scored == len(wanted - stored)
        assert wanted <= set(self.store.rows()["pair_key"])
        again = DictionaryScorer()
        assert precompute(pairs, self.store, again).status == "nothing_to_do"
        assert again.scored == []

    @invariant()
    def nothing_but_the_truth_is_ever_served(self):
        """I1, I4, I5: one value a key, and it is the reference's."""
        rows = self.store.rows(damaged="skip")
        assert rows["pair_key"].is_unique().all()
        by_key = {pair.key: pair for pair in make_pairs(range(20))}
        for row in rows.to_dicts():
            pair = by_key[row["pair_key"]]
            for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
                sums = prefix_sums(true_logps(side))
                assert row[f"ref_{name}_logps"] == sums[-1]
                shared = min(pair.chosen.n_scored, pair.rejected.n_scored)
                assert row[f"ref_{name}_shared_logps"] == sums[shared - 1]


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
