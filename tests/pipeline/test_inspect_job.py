"""`pipeline inspect`: what a model reads of a pair and what is scored, token by token; rejected rows by reason."""

import pytest

from tests.tiny import example_rows, write_jsonl


def inspect(work, **arguments):
    return work.run("inspect", "--dry-run", arguments=arguments)


def test_every_token_is_shown_with_whether_it_is_scored(work):
    document = inspect(work)
    assert document["found"] == 40 and len(document["shown"]) == 3
    first = document["shown"][0]
    assert first["prompt"].startswith("«<|im_start|>»") and first["prompt"].endswith("«↵»")
    assert first["prompt"].count("«") == first["n_prompt"] and "⟦" not in first["prompt"]
    assert first["chosen"].count("⟦") == first["n_chosen"] and first["chosen"].endswith("⟦<|im_end|>⟧")
    assert not (work.root / "pairs").exists()


def test_pairs_are_found_by_key_and_by_length(work):
    every = inspect(work, limit=100)["shown"]
    one = inspect(work, key=every[7]["key"][:16])
    assert one["found"] == 1 and one["shown"] == [every[7]]
    lengths = [each["n_prompt"] + max(each["n_chosen"], each["n_rejected"]) for each in every]
    longer = inspect(work, longer_than=min(lengths), limit=100)
    assert 0 < longer["found"] == sum(length > min(lengths) for length in lengths) < 40


def test_rejected_rows_are_found_also_where_the_data_are_refused(work):
    write_jsonl(work.data, [*example_rows(3), *["{torn"] * 9])
    assert work.run("validate", expect=3)["message"].startswith("9 of 12 rows are rejected")
    document = inspect(work, reason="unreadable_row", limit=2)
    assert document["found"] == 9
    assert [row["location"] for row in document["rejected"]] == [f"{work.data}:4", f"{work.data}:5"]


def test_a_reason_that_nobody_gives_is_refused(work):
    message = work.run("inspect", "--dry-run", arguments={"reason": "ugly"}, expect=2)["message"]
    assert message.startswith("--reason ugly: known are unreadable_row, missing_field")


@pytest.mark.parametrize(
    ("option", "line"), [((), "3 shown of 40 found"), (("--reason", "wrong_type"), "0 shown of 0 found")]
)
def test_what_a_person_sees(work, option, line):
    done = work.command("inspect", "-c", str(work.config), *option)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == line
