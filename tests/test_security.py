"""What no file of the code does; docs/security.md says what each is for."""

import ast
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for package in ("pipeline", "stages", "data")
    for path in sorted((ROOT / package).rglob("*.py"))
}
STREAMS = {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "print", "os.write", "traceback.print_exc"}
STREAMS |= {"typer.echo", "typer.secho", "Console", "logging.StreamHandler", "logging.basicConfig", "warnings.warn"}
WRITERS = {
    "pipeline/chain.py": "documents and summaries",
    "pipeline/cli.py": "the version",
    "pipeline/console.py": "the log, errors, tracebacks",
    "pipeline/control.py": "which signal arrived",
    "pipeline/doctor/broken.py": "what doctor finds where the rest cannot be imported",
    "pipeline/json_log.py": "the log as JSON",
    "pipeline/ledger.py": "nothing: it appends to a file",
    "pipeline/progress.py": "labels of our own, and numbers",
    "stages/processes.py": "what torch's own code says where processes meet",
    "stages/training/trackers.py": "what a tracker prints, away from standard output",
}
OF_OUR_OWN = ("pipeline/control.py", "pipeline/json_log.py", "pipeline/progress.py", "stages/processes.py")
"""Writers whose words are none of the data's (json_log: JSON in ASCII, a line an object)."""
CONSOLE = "pipeline/console.py"  # what it writes is compared in tests/pipeline/test_console.py and test_failures.py


def found(tree, names):
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)} & names


def calls(tree, *functions):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(functions):
            yield node


def test_only_these_files_write_to_a_terminal():
    assert {name for name, tree in SOURCES.items() if found(tree, STREAMS)} <= set(WRITERS)


def test_what_they_write_went_through_one_function_or_is_json():
    for name in set(WRITERS) - {CONSOLE, *OF_OUR_OWN}:
        written = [ast.unparse(call) for call in calls(SOURCES[name], "print", "stdout.write", "stderr.write")]
        assert [text for text in written if "printable" not in text and "json.dumps(" not in text] == []


def test_whatever_loads_a_model_says_that_its_code_is_not_run():
    loading = [(name, call) for name, tree in SOURCES.items() for call in calls(tree, "from_pretrained", "from_config")]
    of_transformers = [(name, call) for name, call in loading if ast.unparse(call.func).startswith("Auto")]
    assert {name for name, _ in loading} == {*(name for name, _ in of_transformers), "stages/scoring/adapter.py"}
    assert len(of_transformers) >= 2
    for name, call in of_transformers:
        safe = any(keyword.arg == "trust_remote_code" for keyword in call.keywords)
        assert safe or '"trust_remote_code": False' in (ROOT / name).read_text()
    everything = "".join(map(ast.unparse, SOURCES.values()))
    assert not any(text in everything for text in ("trust_remote_code=True", "'trust_remote_code': True"))


def test_nothing_is_evaluated_and_only_commands_of_the_configuration_see_a_shell():
    evaluating = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
    called = {name: {ast.unparse(call.func) for call in calls(tree, "")} for name, tree in SOURCES.items()}
    assert {name: functions & evaluating for name, functions in called.items() if functions & evaluating} == {}
    shells = {
        name
        for name, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "shell"
    }
    assert shells == {"stages/evaluation/subprocesses.py"}  # eval.external


@pytest.mark.parametrize("name", ["pipeline/report/page.py"])
def test_html_is_escaped_by_default(name):
    (environment,) = calls(SOURCES[name], "Environment")
    assert "autoescape=True" in ast.unparse(environment)


def test_the_hub_is_told_nothing_about_this_machine():
    assert constants.HF_HUB_DISABLE_TELEMETRY


def test_the_jobs_connect_to_nothing(work, monkeypatch):
    """Models and data are folders here; HF_HUB_OFFLINE=1 is set for all tests."""
    reached = []
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda _, *where: reached.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: reached.append(where))
    work.run("run", "train.epochs=1")
    work.run("report")
    assert reached == []
