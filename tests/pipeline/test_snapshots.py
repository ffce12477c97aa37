"""A night is told what became of the data since they were scored last, before it spends anything."""

import shutil

import pytest

from tests.tiny import example_rows, write_jsonl

CALM = "It jumps over the lazy dog, and nobody knows why it would ever do such a thing again today"


@pytest.fixture
def scored(work):
    """Forty pairs that were scored, of which two have long answers."""
    rows = example_rows(40)
    for i in (20, 21):
        rows[i]["chosen"] = f"{i}: {CALM}."
    write_jsonl(work.data, rows)
    work.run("precompute-ref")
    return work, rows


@pytest.mark.parametrize("job", [("validate",), ("precompute-ref", "--dry-run")], ids=["validate", "dry run"])
def test_every_kind_of_edit_is_counted(scored, job):
    work, rows = scored
    rows[3]["chosen"], rows[3]["rejected"] = rows[3]["rejected"], rows[3]["chosen"]
    rows[20]["chosen"] = rows[20]["chosen"].replace("today", "tomorrow")
    changed = [*rows[:10], *rows[13:], *example_rows(2, 900)]
    write_jsonl(work.data, changed)
    found = work.run(*job)["changes"]
    counts = {name: found[name] for name in ("unchanged", "added", "removed", "flipped", "reworded", "retokenised")}
    assert counts == {"unchanged": 35, "added": 2, "removed": 3, "flipped": 1, "reworded": 1, "retokenised": 0}
    assert (found["before"], found["after"], found["to_score"]) == (40, 39, 5)
    plan = work.run("precompute-ref", "--dry-run")
    assert (plan["responses_scored"], plan["tokens"]) == (found["to_score"], found["tokens_to_score"])
    assert found["seconds_to_score"] >= 0
    assert work.run(*job)["changes"] == found  # looking changes nothing
    work.run("precompute-ref")
    assert work.run(*job)["changes"]["unchanged"] == 39


def test_texts_in_other_tokens_are_told_from_other_texts(scored):
    work, _ = scored
    other = work.folder / "other"
    shutil.copytree(work.model, other)
    template = other / "chat_template.jinja"
    template.write_text("<|im_start|>system\nBe kind.<|im_end|>\n" + template.read_text())
    found = work.run("precompute-ref", "--dry-run", f"reference.model={other}")["changes"]
    assert (found["retokenised"], found["unchanged"], found["added"], found["to_score"]) == (40, 0, 0, 80)


def test_people_are_told_in_a_sentence(scored):
    work, rows = scored
    write_jsonl(work.data, [*rows[1:], *example_rows(3, 900)])
    for command in (("validate",), ("precompute-ref", "--dry-run")):
        lines = work.command(*command, "-c", str(work.config)).stdout.splitlines()
        (line,) = [line for line in lines if line.startswith("since precompute-ref at 20")]
        assert line.endswith(": 39 pairs unchanged, 3 added, 1 removed")
        following = lines[lines.index(line) + 1]
        assert following.startswith("  6 responses of ") and "tokens are new, about " in following


def test_without_an_earlier_pass_there_is_nothing_to_compare(work):
    assert "changes" not in work.run("validate")
    assert "changes" not in work.run("precompute-ref", "--dry-run")
    work.run("precompute-ref")
    (work.root / "scored.parquet").write_bytes(b"torn")
    assert "changes" not in work.run("validate")
    work.run("precompute-ref")
    assert work.run("validate")["changes"]["unchanged"] == 40


def test_a_night_without_news_writes_no_snapshot(work):
    work.run("precompute-ref")
    before = (work.root / "scored.parquet").stat().st_mtime_ns
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    assert (work.root / "scored.parquet").stat().st_mtime_ns == before


def test_a_dry_run_leaves_nothing_behind(work):
    """Its token pairs lie in a temporary folder as long as it runs."""
    aside = work.folder / "aside"
    aside.mkdir()
    done = work.command("precompute-ref", "--dry-run", "-c", str(work.config), env={"TMPDIR": str(aside)})
    assert done.returncode == 0 and "40 are missing" in done.stdout
    assert list(aside.iterdir()) == [] and not (work.root / "pairs").exists()
