"""Commands of others: real processes, what they print, how they end, and what becomes of their children."""

import json
import logging
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from data.errors import ConfigError, Interrupted
from pipeline.config import load_config
from pipeline.console import set_up_logging
from stages.evaluation import subprocesses
from stages.evaluation.external import ExternalCommand, Places, external_entry, known_metrics, prefixed, run_external
from stages.evaluation.generation import GenerateConfig
from stages.evaluation.printed_numbers import NoNumbers, printed_numbers
from tests.tiny import unchanged_process


class Hands:
    """A Control that asks to stop once `when()` holds."""

    def __init__(self, when=lambda: False):
        self.stop_requested = when


def python(code: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def run(command, tmp_path, control=None, generations=None, timeout=30.0):
    places = Places(tmp_path / "policy", tmp_path / "pairs.parquet", generations)
    return run_external("judge", ExternalCommand(command=command, timeout=timeout), places, control or Hands())


def refused(command, tmp_path, **more) -> str:
    with pytest.raises(ConfigError) as error:
        run(command, tmp_path, **more)
    message = str(error.value)
    assert message.startswith("The command of eval.external.judge ") and "\n" not in message
    return message


def gone(process: int, seconds: float = 5.0) -> bool:
    """Whether the process ends within this time (a zombie has ended)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_the_numbers_of_nested_objects_become_metrics(tmp_path):
    document = {"win_rate": 0.6, "n": 12, "passed": True, "failed": False, "model": "x", "list": [1, 2], "none": None,
                "results": {"task a": {"acc,none": 0.25, "alias": "a"}, "b": {"c": {"d": -1}}}}  # fmt: skip
    found = run(python(f"print({json.dumps(json.dumps(document))})"), tmp_path)
    assert found == {
        "win_rate": 0.6, "n": 12.0, "passed": 1.0, "failed": 0.0,
        "results/task a/acc,none": 0.25, "results/b/c/d": -1.0,
    }  # fmt: skip
    assert prefixed("judge", {"win_rate": 0.6}) == {"judge/win_rate": 0.6}


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('loading\n{"a": 1}\n\n', {"a": 1}),
        ('{"step": 1, "loss": NaN}\n{"a": 2}', {"a": 2}),  # of several the last
        ('step {3}\n{\n  "a": {\n    "b": 3\n  }\n}', {"a/b": 3}),
        ('{"a": {"b": 1},\n"c": 2}', {"a/b": 1, "c": 2}),
        ('{"a": 1e300}', {"a": 1e300}),
    ],
)
def test_the_object_may_stand_behind_other_output(printed, found):
    assert printed_numbers(printed) == found


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("", "printed nothing."),
        ("0.6", "printed no JSON object at its end."),
        ("[1, 2]", "printed no JSON object at its end."),
        ('{"a": 1}\ndone', "printed no JSON object at its end."),  # what stands behind it may be a second thought
        ('{"a": 1', "printed no JSON object at its end."),
        ('{"a": "x", "b": [1]}', "printed a JSON object without a number."),
        ('{"a": NaN}', "printed for a what is no finite number"),
        ('{"a": -Infinity}', "printed for a what is no finite number"),
        ('{"a": 1e999}', "printed for a what is no finite number"),
        (f'{{"a": 1{"0" * 400}}}', "printed for a what is no finite number"),
        ('{"a": {"b": 1}, "a/b": 2}', "printed two numbers under the name a/b."),
        ('{"\\u001b[31m": 1}', "which is no name"),
        ('{" ": 1}', "which is no name"),
        ("{" + ",".join(f'"{i}": 1' for i in range(10_001)) + "}", "printed more than 10000 numbers."),
        ('{"a":' * 100_000, "printed no JSON object at its end."),
        ('{"a":\n' * 5_000, "printed no JSON object at its end."),
    ],
)
def test_what_cannot_be_judged_is_refused(printed, words):
    started = time.monotonic()
    with pytest.raises(NoNumbers) as error:
        printed_numbers(printed)
    assert words in str(error.value) and "\x1b" not in str(error.value)
    assert time.monotonic() - started < 5


def test_a_command_is_told_where_things_are_and_inherits_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "1234")
    monkeypatch.setenv("PIPELINE_GENERATIONS", "of an outer evaluation")
    monkeypatch.chdir(tmp_path)
    show = python(
        "import os, sys; print({k: v for k, v in os.environ.items() if k[:5] in ('PIPEL', 'JUDGE')}, file=sys.stderr);"
        "print('{\"a\": 1}'); open('seen', 'w').write(repr(dict(os.environ)))"
    )
    places = Places(tmp_path.relative_to(tmp_path) / "policy", tmp_path / "pairs.parquet")
    run_external("judge", ExternalCommand(command=show), places, Hands())
    seen = eval((tmp_path / "seen").read_text())
    assert seen["PIPELINE_POLICY"] == str(tmp_path / "policy") and seen["JUDGE_KEY"] == "1234"
    assert seen["PIPELINE_PAIRS"] == str(tmp_path / "pairs.parquet") and "PIPELINE_GENERATIONS" not in seen
    run(show, tmp_path, generations=tmp_path / "generations.parquet")
    assert eval((tmp_path / "seen").read_text())["PIPELINE_GENERATIONS"] == str(tmp_path / "generations.parquet")


def test_a_failure_is_one_paragraph_with_the_last_words_and_without_the_command(tmp_path):
    failing = python("import sys\nfor i in range(9): print('line', i, file=sys.stderr)\nsys.exit(3) # token=hunter2")
    message = refused(failing, tmp_path)
    assert "failed (exit code 3), so its metrics are not known and nothing was judged." in message
    assert message.endswith("The last that it said: line 4 / line 5 / line 6 / line 7 / line 8")
    assert "hunter2" not in message
    assert "failed (signal 9)" in refused("kill -9 $$", tmp_path)
    assert "failed (exit code 127)" in refused("no-such-judge --key hunter2", tmp_path)


def test_without_numbers_the_message_says_what_is_wanted(tmp_path):
    message = refused("echo done", tmp_path)
    assert "printed no JSON object at its end. It has to print one JSON object such as" in message
    assert "printed nothing." in refused("true", tmp_path)


def test_the_command_may_take_its_time_and_no_longer(tmp_path):
    started = time.monotonic()
    message = refused("sleep 60 & sleep 60", tmp_path, timeout=0.3)
    assert "was stopped after 0.3 s without an end. Give it more time" in message
    assert time.monotonic() - started < 5


def test_a_signal_stops_the_command_and_its_children(tmp_path, monkeypatch):
    """One child ignores SIGTERM; both are gone, and nobody waits for the minute that they wanted."""
    monkeypatch.setattr(subprocesses, "_GRACE_SECONDS", 0.5)
    pids = tmp_path / "pids"
    child = python(
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
    )
    started = time.monotonic()
    with pytest.raises(Interrupted, match="it was stopped, too, and gave nothing"):
        run(
            f"{child} & sleep 60; echo '{{\"a\": 1}}'",
            tmp_path,
            Hands(lambda: pids.exists() and pids.read_text().endswith("\n")),
        )
    assert time.monotonic() - started < 20
    assert gone(int(pids.read_text()))


def test_what_a_command_leaves_running_is_ended_and_not_waited_for(tmp_path):
    started = time.monotonic()
    found = run(f"sleep 60 & echo $! > {tmp_path / 'pid'}; echo '{{\"a\": 1}}'", tmp_path)
    assert found == {"a": 1.0} and time.monotonic() - started < 8
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_has_left_the_group_holds_nothing_up(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocesses, "_GRACE_SECONDS", 0.5)
    pid = shlex.quote(str(tmp_path / "pid"))
    leaving = f"setsid sh -c 'echo $$ > {pid}; exec sleep 30'"
    command = f"{leaving} & while [ ! -s {pid} ]; do sleep 0.05; done; echo '{{\"a\": 1}}'"
    started = time.monotonic()
    try:
        assert run(command, tmp_path) == {"a": 1.0}
        assert time.monotonic() - started < 15
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_standard_error_reaches_the_log_as_harmless_text(tmp_path, capsys):
    hostile = python(
        "import sys; print('{\"a\": 1}');"
        "sys.stderr.buffer.write(b'\\x1b[31mred\\x1b[0m \\xff\\n::error::no\\nbar 1\\rbar 2\\n')"
    )
    with unchanged_process():
        set_up_logging(0)
        run(hostile, tmp_path)
    shown = capsys.readouterr().err
    assert "judge: \ufffd[31mred\ufffd[0m" in shown and "\x1b" not in shown
    assert "judge: ::error::no" in shown and "\n::" not in shown and "judge: bar 2" in shown and "bar 1" not in shown


def test_megabytes_are_taken_in_and_dropped(tmp_path, caplog):
    """Neither pipe fills up and stops the program; what is kept of either has a limit."""
    flood = python(
        "import sys\nfor i in range(3000): print('x' * 2000, file=sys.stderr)\n"
        "sys.stdout.write('y' * 4_000_000 + '\\n{\"a\": 1}\\n')"
    )
    with caplog.at_level(logging.INFO, logger="stages"):
        assert run(flood, tmp_path) == {"a": 1.0}
    assert 1000 <= len(caplog.records) <= 1005
    endless = python("import sys\nwhile True: sys.stdout.write('y' * 65536)")
    assert "printed more than 16 MiB on standard output and was stopped." in refused(endless, tmp_path)
    assert len(refused(python("import sys; sys.exit('z' * 1_000_000)"), tmp_path)) < 3000


def test_the_same_command_for_the_same_policy_is_not_run_again():
    judge = ExternalCommand(command="python judge.py --key hunter2")
    entry = external_entry(judge, "p1", {"win_rate": 0.6})
    assert "hunter2" not in json.dumps(entry)
    document = json.loads(json.dumps({"judge": entry}))
    assert known_metrics(document, "judge", judge, "p1") == {"win_rate": 0.6}
    assert known_metrics(document, "judge", ExternalCommand(command=judge.command, timeout=5), "p1") is not None
    assert known_metrics(document, "judge", ExternalCommand(command="python judge.py"), "p1") is None
    assert known_metrics(document, "judge", judge, "p2") is None
    assert known_metrics(document, "lm", judge, "p1") is None
    assert known_metrics(document, "judge", judge, "p1", GenerateConfig()) is None  # it has more to judge now
    shown = {"judge": external_entry(judge, "p1", {"win_rate": 0.6}, GenerateConfig())}
    assert known_metrics(shown, "judge", judge, "p1", GenerateConfig()) == {"win_rate": 0.6}
    assert known_metrics(shown, "judge", judge, "p1", GenerateConfig(prompts=65)) is None
    assert known_metrics({}, "judge", judge, "p1") is None


def test_a_bare_text_is_the_command(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(
        "reference: {model: x}\ndata: {train: y}\n"
        "eval:\n  external:\n    judge: python judge.py\n    lm: {command: lm, timeout: 7}\n"
    )
    external = load_config(tmp_path / "pipeline.yaml", environment={}).eval.external
    assert external["judge"] == ExternalCommand(command="python judge.py", timeout=3600.0)
    assert external["lm"].timeout == 7.0
    assert ExternalCommand.model_validate(external["judge"].model_dump()) == external["judge"]
    for command in ("", "  ", "a\0b"):
        with pytest.raises(ValueError, match="a command is wanted"):
            ExternalCommand(command=command)
