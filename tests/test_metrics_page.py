"""docs/metrics.md has every key of metrics.jsonl, and no other."""

import json
import re
from pathlib import Path

from stages.metrics.names import METRIC_NAMES
from stages.training.displacement import NATS
from stages.training.recent import STEPS

PAGE = (Path(__file__).resolve().parent.parent / "docs/metrics.md").read_text()


def test_every_key_of_a_run_is_in_the_table_and_none_else(work):
    settings = ("data.dev_fraction=0.2", "train.eval_every=3")
    work.run("precompute-ref", *settings)
    document = work.run("train", *settings)
    lines = [json.loads(line) for line in Path(document["outputs"]["training_metrics"]).read_text().splitlines()]
    dev = {key for line in lines for key in line if key.startswith("dev/")}
    absent = {f"dev/{name}" for name in METRIC_NAMES} - dev
    assert dev <= {f"dev/{name}" for name in METRIC_NAMES}
    assert all(name.startswith("dev/reward_accuracy_chosen_longer") for name in absent)  # these pairs have none such
    *listed, last = re.findall(r"^\| `(\S+)` \|", PAGE, re.MULTILINE)
    assert last == "dev/..."
    assert [key for key in listed if key != "mfu"] == [key for key in lines[0] if key not in dev]  # mfu: on a GPU
    assert {"first_steps", "last_steps"} <= document.keys()


def test_the_numbers_of_the_page_are_those_of_the_code():
    prose = " ".join(PAGE.split())
    assert f"over the last {STEPS} steps" in prose and f"the first {STEPS} steps with" in prose
    assert NATS == 1.0 and "by a nat or more" in prose
