"""docs/eval-metrics.md names every metric that an evaluation may give."""

from stages.metrics.names import METRIC_NAMES
from tests.tiny import ROOT

PAGE = (ROOT / "docs/eval-metrics.md").read_text()


def test_every_metric_is_named():
    parts = ("_low", "_high", "_normalized", "_median", "_p10", "_p90")
    for name in METRIC_NAMES:
        plain = name
        for part in parts:
            plain = plain.removesuffix(part)
        told = plain in PAGE or (plain.startswith("ref_") and plain.removeprefix("ref_") in PAGE)
        short = plain.removeprefix("reward_accuracy")
        assert told or (short and f"`{short}`" in PAGE), name


def test_every_key_of_the_document_is_named(work):
    import json

    work.run("run")
    document = json.loads((work.root / "latest/eval/metrics.json").read_text())
    unnamed = {"schema_version", "identity", "judged_by", "policy", "measure", "objective", "beta", "compared_with"}
    unnamed |= {"reference", "seed_sd", "looks", "metrics_version"}
    assert [key for key in document if key not in unnamed and f"`{key}`" not in PAGE] == []
