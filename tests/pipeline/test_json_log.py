"""`--log-format json`: whatever is said on standard error is one object a line."""

import json
import logging
import signal
import sys
import threading
import warnings

import pytest

from pipeline.chain import JOBS, Options, run_command
from pipeline.command import logs_as
from pipeline.control import ProcessControl
from pipeline.progress import progress_bar
from tests.tiny import unchanged_process


def run(work, job, capfd, *settings, quiet=False):
    """The lines of a job that runs in this process."""
    with unchanged_process(), logs_as("json"):
        code = run_command(job, Options(work.config, settings, True, False, quiet, 0))
    return code, lines(capfd)


def lines(capfd):
    found = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    for line in found:
        assert list(line)[:4] == ["time", "level", "logger", "job"] and isinstance(line["message"], str), line
    return found


def test_each_line_of_a_chain_is_an_object_with_its_job_and_its_progress(work, capfd):
    code, found = run(work, "run", capfd)
    assert code == 0 and {line["job"] for line in found} == {"precompute-ref", "train", "eval", "run"}
    bars = [line for line in found if line["logger"] == "pipeline.progress"]
    ends = [(line["label"], line["pairs_done"], line["pairs_total"]) for line in bars]
    assert ends == [
        *(("reference", 0, 40), ("reference", 40, 40), ("training", 0, 68), ("training", 68, 68)),
        *(("evaluating", 0, 6), ("evaluating", 6, 6)),
    ]
    trained = bars[3]
    assert trained["job"] == "train" and trained["tokens"] > 0 and trained["tokens_per_second"] > 0
    assert isinstance(trained["figures"]["loss"], float) and trained["seconds_left"] == 0
    assert [line["job"] for line in found if line["level"] == "warning"] == ["precompute-ref"] * 2
    last = found[-1]
    assert (last["job"], last["status"], last["exit_code"]) == ("run", "done", 0) and last["seconds"] > 0
    assert run(work, "run", capfd, quiet=True) == (0, [])


def test_an_error_has_its_exit_code_and_a_bug_its_traceback(work, capfd, monkeypatch):
    code, found = run(work, "train", capfd)
    assert code == 4 and (found[-1]["level"], found[-1]["exit_code"], found[-1]["job"]) == ("error", 4, "train")
    assert "have no reference log-probs" in found[-1]["message"] and "traceback" not in found[-1]

    def fail(inputs):
        warnings.warn("of another library", stacklevel=1)
        print("no\rlines\nhalf a line", file=sys.stderr, end="")  # noqa: T201
        raise ZeroDivisionError("of ours\n::error::")

    monkeypatch.setitem(JOBS, "train", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, found = run(work, "train", capfd)
    warned, printed, bug, told, half = found
    assert code == 1 and warned["logger"] == "py.warnings" and "of another library" in warned["message"]
    assert (printed["message"], half["message"]) == ("lines", "half a line")
    assert "ZeroDivisionError" in bug["message"] and bug["traceback"].startswith("Traceback")
    assert "in fail" in bug["traceback"] and "\n::" not in bug["traceback"] and told["exit_code"] == 1


def test_a_signal_leaves_its_note(capfd):
    control = ProcessControl(quiet=True)
    with unchanged_process(), logs_as("json"):
        control.listen()
        signal.raise_signal(signal.SIGTERM)
    (note,) = lines(capfd)
    assert control.stop_requested() and note["message"].startswith("SIGTERM: saving and stopping")


def test_lines_of_threads_do_not_mix_and_secrets_and_control_characters_stay_out(capfd):
    def talk():
        for i in range(50):
            logging.getLogger("pipeline").info("s3://key:hunter2@bucket \x1b[2J %s", i)
            print("HF_TOKEN=hunter2", file=sys.stderr)  # noqa: T201

    with unchanged_process(), logs_as("json"):
        from pipeline.console import set_up_logging

        set_up_logging(0)
        threads = [threading.Thread(target=talk) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = lines(capfd)
    assert sum("s3://[redacted]@bucket" in line["message"] for line in found) == 200
    assert not any("hunter2" in line["message"] or "\x1b" in line["message"] for line in found)


def test_of_several_processes_each_names_itself(capfd, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with logs_as("json"), progress_bar("reference 1/2", 4, 0, quiet=False) as bar:
        bar.show({"loss": "0.6931", "margin": "+1,000.5", "mean": "nan", "memory": "1.0 GB"})
        bar.advance(4, 100)
    begin, end = lines(capfd)
    assert begin["rank"] == end["rank"] == 1 and begin["figures"] == {}
    assert end["figures"] == {"loss": 0.6931, "margin": 1000.5, "mean": "nan", "memory": "1.0 GB"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--nonsense"], "No such option: --nonsense"),
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train", "-c", "pipeline.yaml", "--set", "train.betta=1"], "did you mean beta?"),
    ],
)
def test_what_is_wrong_with_the_usage_is_an_object_too(work, capfd, monkeypatch, arguments, said):
    from pipeline.__main__ import main

    monkeypatch.chdir(work.folder)
    monkeypatch.setenv("PIPELINE_LOG_FORMAT", "json")
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    with unchanged_process(), pytest.raises(SystemExit) as ended:
        main()
    (line,) = lines(capfd)
    assert ended.value.code == line["exit_code"] == 2 and said in line["message"]
