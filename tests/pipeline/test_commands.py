"""The commands as processes: one document on standard output, exit codes, and no confusion with a user's packages."""

import json
import sys

import pytest

from tests.tiny import ROOT, write_jsonl

BLOCK_TORCH = "import sys; sys.modules['torch'] = None; from pipeline.__main__ import main; main()"


def document(process):
    assert process.stdout.count("\n") == 1, process.stdout + process.stderr
    return json.loads(process.stdout)


def test_three_commands_in_three_processes(work):
    first = document(work.command("precompute-ref", "-c", str(work.config), "--json", fresh=True))
    second = document(work.command("train", "-c", str(work.config), "--json"))
    third = document(work.command("eval", "-c", str(work.config), "--json"))
    for each, job in ((first, "precompute-ref"), (second, "train"), (third, "eval")):
        assert each["job"] == job and each["status"] == "done" and each["exit_code"] == 0
        assert {"run", "pairs", "pairs_scored", "responses_scored", "pairs_stored_before", "tokens", "seconds",
                "seconds_total", "outputs"} <= each.keys()  # fmt: skip
        assert each["tokens"] > 0 and 0 < each["seconds"] < each["seconds_total"]
    assert second["run"] == third["run"]
    assert document(work.command("run", "-c", str(work.config), "--json"))["status"] == "nothing_to_do"


def test_a_finished_rerun_needs_no_torch(work):
    work.run("run")
    one_by_one = (
        f"from contextlib import suppress; {BLOCK_TORCH.removesuffix('main()')}\n"
        "for job in ('precompute-ref', 'train', 'eval', 'run'):\n"
        "    sys.argv[1] = job\n"
        "    with suppress(SystemExit):\n"
        "        main()\n"
    )
    process = work.command("", "-c", str(work.config), "--json", module=one_by_one)
    documents = [json.loads(line) for line in process.stdout.splitlines()]
    assert [each["status"] for each in documents] == ["nothing_to_do"] * 4, process.stderr


def test_people_get_a_table_and_their_files(work):
    process = work.command("run", "-c", str(work.config))
    assert process.returncode == 0, process.stderr
    for text in ("6 held-out pairs", "ranking accuracy of the reference", "reward accuracy of the policy",
                 "reward margin", "95 % interval", "metrics: "):  # fmt: skip
        assert text in process.stdout
    assert "reference: 40/40 pairs" in process.stderr and "training: 68/68 pairs" in process.stderr
    assert "Loading weights" not in process.stderr


def test_quiet_is_quiet(work):
    process = work.command("precompute-ref", "-c", str(work.config), "-q")
    assert (process.stdout, process.returncode) == ("", 0)
    # of the random model it does warn
    assert all(line.startswith("warning: The ") for line in process.stderr.splitlines())
    process = work.command("precompute-ref", "-c", str(work.config), "-q")
    assert (process.stdout, process.stderr, process.returncode) == ("", "", 0)


def test_a_user_error_is_one_paragraph_without_a_traceback(work):
    process = work.command("train", "-c", str(work.config))
    assert process.returncode == 4 and process.stdout == ""
    assert process.stderr.splitlines()[-1].startswith("error: 34 of 34 pairs have no reference log-probs")
    assert "Traceback" not in process.stderr
    assert "Traceback" in work.command("train", "-c", str(work.config), "-vv").stderr


def test_a_failure_is_still_one_document(work):
    process = work.command("train", "-c", str(work.config), "--json", "--set", "train.betta=1")
    assert process.returncode == 2
    found = document(process)
    assert found["status"] == "failed" and found["exit_code"] == 2 and "did you mean beta?" in found["message"]


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--nonsense"], ["train", "--config"]])
def test_usage_errors_exit_with_2(work, arguments):
    assert work.command(*arguments).returncode == 2


def test_a_users_own_packages_do_not_get_in_the_way(work):
    work.run("validate")  # the tokens, which take longer
    for package in ("data", "stages"):
        (work.folder / package).mkdir(exist_ok=True)
        (work.folder / package / "__init__.py").write_text("raise RuntimeError('the package of the user')")
    path = {"PYTHONPATH": f"{work.folder}:{ROOT}"}
    assert work.command("validate", "-c", str(work.config), env=path, cwd=work.folder).returncode == 0


def test_validate_counts_every_row_and_loads_no_model(work):
    lines = work.data.read_text().splitlines()
    rows = [*lines, "{torn", json.dumps({"prompt": "p", "chosen": "same", "rejected": "same"}), lines[0]]
    work.data.write_text("\n".join(rows) + "\n")
    process = work.command("validate", "-c", str(work.config), "--json", module=BLOCK_TORCH)
    coverage = document(process)["coverage"]
    assert coverage["read"] == 43 and coverage["used"] == 41
    assert coverage["rejected"] == {"identical_completions": 1, "unreadable_row": 1}
    assert (
        f"{work.data}:41 unreadable_row" in process.stderr and f"{work.data}:42 identical_completions" in process.stderr
    )


def test_validate_shows_how_the_rows_are_read_and_a_pair_as_the_model_reads_it(work):
    lines = work.command("validate", "-c", str(work.config)).stdout.splitlines()
    assert lines[0] == f"{work.data}: read as prompt and replies"
    assert lines[1] == "read 40 rows, used 40, rejected 0"
    at = lines.index("--- prompt")
    assert lines[at - 1].startswith(f"as the model reads {work.data}:") and "<|im_start|>user" in lines[at + 1]
    assert lines[lines.index("--- chosen") + 1].startswith("\u27e6It jumps") and lines[-1].endswith("<|im_end|>\u27e7")


def test_the_second_time_nothing_is_tokenised_and_the_same_is_shown(work):
    first = work.run("validate")
    without = BLOCK_TORCH.replace("torch", "transformers")
    again = document(work.command("validate", "-c", str(work.config), "--json", module=without))
    assert again["exit_code"] == 0 and again["example"] == first["example"] and first["example"]["prompt"]


@pytest.mark.parametrize("job", ["validate", "precompute-ref"])
def test_strict_stops_where_one_row_is_rejected(work, job):
    work.data.write_text(work.data.read_text() + "{torn\n")
    done = work.command(job, "-c", str(work.config), "--strict")
    assert (
        done.returncode == 3 and "1 of 41 rows are rejected" in done.stderr and "data.strict allows none" in done.stderr
    )


def test_how_a_source_is_read_is_part_of_what_the_pairs_are_made_from(work):
    answers = [{"text": "Three.", "rank": 0}, {"text": "Four.", "rank": 1}, {"text": "Five.", "rank": 2}]
    rows = [{"prompt": f"Question {i}?", "old": f"Asked {i}?", "answers": answers} for i in range(8)]
    write_jsonl(work.data, rows)
    assert work.run("validate")["pairs"] == 8
    source = f"data.train={{path: {work.data}, pairs: all}}"
    assert work.run("validate", source)["pairs"] == 24
    source = f"data.train={{path: {work.data}, pairs: all, columns: {{prompt: old}}}}"
    assert "Asked" in work.run("validate", source)["example"]["prompt"]


def test_hostile_text_in_the_example_does_nothing_to_a_terminal(work):
    write_jsonl(work.data, [{"prompt": "\x1b[2J\n::error::", "chosen": "a" * 5000, "rejected": "\u202eb"}])
    settings = ["--set", "data.eval_fraction=0", "--set", "data.max_length=9000"]
    shown = work.command("validate", "-c", str(work.config), *settings)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout and "\u202e" not in shown.stdout and "\n::error" not in shown.stdout
    assert " characters) ... " in shown.stdout and len(shown.stdout) < 4000


def test_rejected_rows_lie_in_rejects_parquet_even_where_the_data_are_refused(work):
    import polars as pl

    work.data.write_text(work.data.read_text() + '{"prompt": "p", "chosen": "", "rejected": "b"}\n' * 6)
    message = work.run("precompute-ref", expect=3)["message"]
    assert "6 of 46 rows are rejected (6 empty_completion), more than data.max_bad = 0.01 allows" in message
    assert f"{work.data}:41 empty_completion (chosen is empty)" in message and "raise data.max_bad" in message
    rejects = pl.read_parquet(work.root / "pairs" / "rejects.parquet")
    assert rejects["location"].to_list() == [f"{work.data}:{line}" for line in range(41, 47)]
    assert work.run("precompute-ref", "data.max_bad=0.2")["pairs"] == 40


def test_help_imports_nothing_heavy():
    import subprocess

    heavy = ("torch", "transformers", "pyarrow", "polars", "pydantic", "rich")
    code = f"import sys; import pipeline.cli; print([m for m in {heavy} if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert process.stdout.strip() == "[]"
