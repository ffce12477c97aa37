"""Records of pairs do not depend on when the tables of a device are read."""

import pytest

from data.tokens.token_pairs import TokenPairs
from stages.reference_rows import ReferenceLogps
from stages.response_scores import score_pairs
from stages.scoring.scorer import Scorer
from stages.training.config import TrainConfig
from tests.stages.reference_double import make_pairs
from tests.tiny import build_model


@pytest.mark.parametrize("settings", [{}, {"use_weighting": True}, {"ld_alpha": 0.3}], ids=str)
def test_records_are_the_same_whether_tables_are_read_at_once_or_later(monkeypatch, settings):
    pairs, scorer = TokenPairs.of(make_pairs(range(12))), Scorer(build_model(), 24)
    reference = {pair.key: ReferenceLogps(-3.0, -4.0, chosen_shared=-1.0, rejected_shared=-2.0) for pair in pairs}
    found = []
    for is_asynchronous in (False, True):
        monkeypatch.setattr(Scorer, "is_asynchronous", is_asynchronous)
        batches, tokens = [], {}
        records = score_pairs(pairs, reference, scorer, TrainConfig(**settings), batches.append, keep=tokens.update)
        keys = [response.key for batch in batches for response in batch.responses]
        assert len(batches) > 2 and sorted(keys) == sorted(tokens)
        found.append((records, keys))
    assert found[0] == found[1]
