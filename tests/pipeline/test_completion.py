"""Completion in a shell, through what shells really ask."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.completion import assignments
from tests.tiny import ROOT

PROGRAM = f"#!{sys.executable}\nfrom pipeline.__main__ import main\nmain()\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The command as pip installs it, under its own name."""
    path = tmp_path / "bin" / "pipeline"
    path.parent.mkdir()
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def ask(command: list[str], program: Path, **environment: str) -> str:
    path = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=os.environ | path | environment, capture_output=True, text=True, cwd=program.parent, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_bash_asks_for_commands_and_zsh_for_keys(program):
    words = {"COMP_WORDS": "pipeline pre", "COMP_CWORD": "1"}
    assert ask([str(program)], program, _PIPELINE_COMPLETE="complete_bash", **words).split() == ["precompute-ref"]
    words = {"_TYPER_COMPLETE_ARGS": "pipeline train --set train.opt"}
    listed = ask([str(program)], program, _PIPELINE_COMPLETE="complete_zsh", **words)
    assert '"train.optim=":"what updates the fp32 masters"' in listed and '"train.optim=adamw_8bit"' in listed


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_takes_the_script_and_completes_keys(program):
    source = ask([str(program)], program, _PIPELINE_COMPLETE="source_bash")
    (program.parent / "completion.sh").write_text(source)
    script = (
        ". ./completion.sh; complete -p pipeline; COMP_WORDS=(pipeline train --set data.max); COMP_CWORD=3; "
        '_pipeline_completion pipeline; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    registered, *offered = ask(["bash", "--norc", "-c", script], program).splitlines()
    assert registered == "complete -o default -F _pipeline_completion pipeline"
    assert offered == ["data.max_length=", "data.max_bad="]


def test_both_options_are_there(capsys):
    from pipeline.cli import app

    with pytest.raises(SystemExit):
        app(["--help"])
    shown = capsys.readouterr().out
    assert "--install-completion" in shown and "--show-completion" in shown


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        ("train.be", ["train.beta=", "train.beta=0.1"]),
        ("train.lr_s", [f"train.lr_scheduler_type={each}" for each in ("", "linear", "cosine", "constant")]),
        ("reference.dtype=b", ["reference.dtype=bfloat16"]),
        ("data.strict=", ["data.strict=", "data.strict=true", "data.strict=false"]),
        ("eval.min_", ["eval.min_overlap=", "eval.min_overlap=0.8"]),
        ("train.lora.r", ["train.lora.r=", "train.lora.r=16"]),
        ("train.f_div", [f"train.f_divergence_type={each}" for each in
                         ("", "reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")]),
        ("reference.model", ["reference.model="]),
        ("nonsense", []),
        ("train.bet=", []),
    ],
)  # fmt: skip
def test_keys_and_their_values_are_offered(begun, offered):
    assert [text for text, _ in assignments(begun)] == offered


def test_every_key_is_offered_with_what_it_is_for():
    from pipeline.config import PipelineConfig
    from pipeline.keys import all_keys

    offered = dict(assignments(""))
    assert offered.keys() == {f"{key}=" for key in all_keys(PipelineConfig)}
    assert offered["train.epochs="] == "visits of each training pair"
    assert [text for text, about in offered.items() if not about or "[" in about] == []
