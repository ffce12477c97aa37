"""`pipeline inspect --step` and `--worst`: the rows behind a spike, while a run goes on and after it."""

import json
import math

import pytest

from data.durable import write_json
from pipeline.summary import summary
from stages.metrics.pairwise import PairScores
from stages.training.visits import VisitLog
from tests.tiny import example_rows, write_jsonl

STEPS, PAIRS_PER_STEP = 5, 4


def inspect(work, *settings, expect=0, **arguments):
    return work.run("inspect", "--dry-run", *settings, arguments=arguments, expect=expect)


@pytest.fixture
def recorded(work):
    """A run of which five steps are recorded; the loss of a pair is its row's number, that of row 7 once a thousand."""
    work.run("validate")
    run = work.root / "runs" / work.run("train", "--dry-run")["run"]
    log, pairs = VisitLog(run, 0.1), list(work.prepared().splits["train"])
    for step in range(1, STEPS + 1):
        visited = [pairs[(step * PAIRS_PER_STEP + i) % len(pairs)] for i in range(PAIRS_PER_STEP)]
        losses = [1000.0 if step == 3 and i == 1 else float(pair.row) for i, pair in enumerate(visited)]
        log.add(
            step, visited, [PairScores(-30.0, -20.0, -25.0, -25.0)] * PAIRS_PER_STEP, losses, [0.1] * PAIRS_PER_STEP
        )
    log.flush()
    write_json(run / "run.json", {})
    work.recorded, work.spike = run, pairs[3 * PAIRS_PER_STEP + 1]
    return work


def test_a_step_shows_its_pairs_and_their_text_with_the_largest_loss_first(recorded):
    document = inspect(recorded, step=3, limit=2)
    assert document["run"] == recorded.recorded.name and document["found"] == PAIRS_PER_STEP
    assert document["recorded"] == {"first": 1, "last": STEPS, "visits": STEPS * PAIRS_PER_STEP}
    assert document["step"]["pairs"] == PAIRS_PER_STEP and document["step"]["most"] == 1000
    first, second = document["shown"]
    assert first["location"] == recorded.spike.location and first["key"] == recorded.spike.key
    assert first["visit"]["loss"] == 1000 > second["visit"]["loss"]
    assert first["visit"]["margin"] == pytest.approx(-1.0) and first["visit"]["weight"] == pytest.approx(0.1)
    same = inspect(recorded, key=first["key"])["shown"][0]
    assert {name: first[name] for name in same} == same


def test_the_worst_of_a_run(recorded):
    document = inspect(recorded, worst=True, limit=1)
    assert document["found"] == STEPS * PAIRS_PER_STEP and "step" not in document
    assert document["shown"][0]["key"] == recorded.spike.key and document["shown"][0]["visit"]["visits"] == 1


def test_what_a_person_sees(recorded):
    lines = summary(inspect(recorded, step=3, limit=1)).splitlines()
    assert lines[0] == f"run {recorded.recorded.name}: 20 visits, steps 1 to 5"
    assert lines[1].startswith("step 3: 4 pairs, loss 2") and lines[1].endswith(" to 1000")
    assert lines[2].startswith(f"{recorded.spike.location} (train, key {recorded.spike.key[:12]}): ")
    assert lines[3].startswith("  step 3: loss 1000 (excess +7") and lines[3].endswith(", margin -1, weight 0.1")
    assert lines[4].startswith("  prompt   «<|im_start|>»") and lines[-1] == "1 shown of 4 found"
    done = recorded.command("inspect", "-c", str(recorded.config), "--worst", "--limit", "1")
    assert (
        done.stdout.splitlines()[2].startswith("  excess +7") and " over 1 visits; step 3: loss 1000, " in done.stdout
    )


def test_without_a_reference_there_is_no_margin_and_a_loss_that_is_not_finite_says_so(recorded):
    log = VisitLog(recorded.recorded, 0.1)
    log.add(6, [recorded.spike], [PairScores(-1.0, -2.0)], [math.nan], [math.nan])
    log.flush()
    document = inspect(recorded, step=6)
    assert "  step 6: loss not finite (excess not finite), weight not finite" in summary(document).splitlines()
    assert document["shown"][0]["visit"]["loss"] is None and json.dumps(document, allow_nan=False)


def test_a_step_that_is_not_recorded_is_refused_with_those_that_are(recorded):
    message = inspect(recorded, step=312, expect=2)["message"]
    assert message.startswith(f"--step 312: the visits of run {recorded.recorded.name} are those of steps 1 to 5.")
    assert "writes its visits once a minute and with each checkpoint" in message
    write_json(recorded.recorded / "policy" / "config.json", {})
    assert inspect(recorded, step=312, expect=2)["message"].endswith("The run is complete.")


def test_what_is_recorded_is_found_without_torch(recorded):
    """Only the tokenizer's library brings it, for the text of a pair."""
    code = "import sys\nfrom pipeline.__main__ import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = recorded.command("inspect", "-c", str(recorded.config), "--step", "312", module=code)
    assert done.returncode == 2 and done.stdout == "False\n"


def test_a_run_without_visits_names_those_that_have_some(recorded):
    message = inspect(recorded, "train.beta=0.7", worst=True, expect=4)["message"]
    assert message.startswith("No visits are recorded in ")
    assert f"the youngest first: {recorded.recorded.name}; --set run=NAME looks at one of them." in message
    document = inspect(recorded, "train.beta=0.7", f"run={recorded.recorded.name}", worst=True)
    assert document["run"] == recorded.recorded.name


def test_where_nothing_was_trained_it_is_said_who_writes_visits(work):
    message = inspect(work, step=1, expect=4)["message"]
    assert message.endswith(
        "`pipeline train` writes them, the first within a minute; runs of earlier versions have none."
    )


def test_rows_that_were_taken_out_since_are_shown_without_their_text(recorded):
    rows = example_rows(40)
    del rows[recorded.spike.row]
    write_jsonl(recorded.data, rows)
    document = inspect(recorded, f"run={recorded.recorded.name}", step=3, limit=1)
    (shown,) = document["shown"]
    assert shown.keys() == {"location", "split", "key", "visit"} and shown["location"] == recorded.spike.location
    assert "no longer among the prepared pairs, so its text is not shown" in summary(document)


def test_text_is_shown_also_where_the_held_out_split_has_been_cut_otherwise_since(recorded):
    settings = (f"run={recorded.recorded.name}", "data.eval_fraction=0.9")
    (shown,) = inspect(recorded, *settings, step=3, limit=1)["shown"]
    assert shown["location"] == recorded.spike.location and shown["prompt"].startswith("«<|im_start|>»")


def test_what_asks_for_different_rows_is_refused(work):
    message = inspect(work, step=1, worst=True, key="ab", expect=2)["message"]
    assert message == "--key and --step and --worst ask for different rows; give one of them."
