import re
from pathlib import Path

import pytest

from data.errors import ConfigError, StoreError
from pipeline.config import load_config
from pipeline.control import ProcessControl
from pipeline.inputs import Inputs
from pipeline.models.named import NamedModel, find_model
from stages.reference import tokenizer_owner

POLICY_ID = "0123456789abcdef" * 4


def folder_of(name: str) -> str:
    return NamedModel(name, Path(), POLICY_ID).evaluation


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("HuggingFaceTB/SmolLM2-135M@main", "HuggingFaceTB-SmolLM2-135M-main-01234567"),
        ("/long/way/to/night-3/policy", "night-3-policy-01234567"),
        ("my-run", "my-run-01234567"),
        ("../..", "model-01234567"),
        ("/", "model-01234567"),
        ("x" * 300, "x" * 48 + "-01234567"),
    ],
)
def test_the_folder_of_an_evaluation_reads_as_the_model(name, folder):
    assert folder_of(name) == folder


HOSTILE = [
    *("../../etc/passwd", "..", ".", "a/../../..", ".hidden", "-rf", " ", "$(reboot)", "con:aux", "a\\..\\b"),
    *("\x1b[31mred", "::error::x", "a\nb", "\u202egpj", "名前", "a" * 47 + "/.." * 9),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leaves_the_folder_or_acts(name):
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*-01234567", folder_of(name))


@pytest.fixture
def find(work):
    def find(name: str, *assignments: str):
        config = load_config(work.config, assignments)
        inputs = Inputs(config, ProcessControl(quiet=True))
        owner = tokenizer_owner(config.reference, config.scoring.backend, inputs.workspace.lock, download=False)
        return find_model(inputs, owner, name)

    return find


def test_a_run_comes_before_a_folder_of_the_same_name(find, work, monkeypatch, model_folder):
    monkeypatch.chdir(work.folder)
    (work.folder / "tonight").symlink_to(model_folder)
    assert find("tonight").folder == Path("tonight")
    run = work.root / "runs" / "tonight"
    run.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"^eval.model: tonight is a run in .*runs, and it has no trained policy"):
        find("tonight")
    assert find("./tonight").folder == Path("tonight")
    (run / "policy").symlink_to(model_folder)
    assert find("tonight").folder == run / "policy"
    assert find("../runs/tonight") is None  # a path is no name of a run


def test_what_holds_no_model_is_refused(find, tmp_path):
    with pytest.raises(ConfigError, match=r"is a folder but holds no config\.json"):
        find(str(tmp_path))


def test_a_revision_stands_behind_the_id(find, monkeypatch):
    asked = []
    monkeypatch.setattr("pipeline.models.named.locate", lambda *which, **how: asked.append((*which, how["download"])))
    assert find("owner/name@v2") is None and find("owner/name") is None
    assert asked == [("owner/name", "v2", True), ("owner/name", None, True)]


@pytest.mark.parametrize(
    "names", [["owner/name@v2", "./a: b"], ["[x]", "12e5", "yes", "20261121"], ["'", '"', "名前 #"]]
)
def test_the_option_is_the_key_whatever_the_name(names, monkeypatch, work):
    from typer.testing import CliRunner

    from pipeline.cli import app

    asked = []
    monkeypatch.setattr("pipeline.chain.run_command", lambda job, options: asked.append(options) or 0)
    arguments = [part for name in names for part in ("--model", name)]
    assert CliRunner().invoke(app, ["eval", *arguments]).exit_code == 0
    assert load_config(work.config, asked[0].assignments).eval.model == names


def test_a_model_that_is_named_twice_is_refused(work):
    with pytest.raises(ConfigError, match=r"eval\.model: named twice: a"):
        load_config(work.config, ["eval.model=[a, b, a]"])
