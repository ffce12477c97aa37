"""What a document of the work folder names lies where it belongs, whoever has edited the document."""

import json
import shutil

import pytest

from tests.tiny import Work

SETTINGS = ("train.model=passed", "train.epochs=1", "eval.baseline=passed", "run=one")
OUTSIDE = "../../elsewhere"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model_folder):
    """A run that was begun with `passed`, and evaluated; beside the work folder lies another that it must not use."""
    work = Work(tmp_path_factory.mktemp("paths"), model_folder)
    work.run("run", *SETTINGS)
    shutil.copytree(work.root / "runs/one", work.folder / "elsewhere")
    return work


@pytest.fixture
def work(finished):
    """That work folder, as it was again afterwards."""
    kept = shutil.copytree(finished.root, finished.folder / "kept", symlinks=True)
    yield finished
    shutil.rmtree(finished.root)
    kept.rename(finished.root)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("named", [OUTSIDE.removeprefix("../"), "/etc", "runs/../../elsewhere"])
def test_the_start_of_a_run_is_a_run(work, named):
    edit(work.root / "runs/one/start.json", run=named)
    message = work.run("train", *SETTINGS, expect=4)["message"]
    assert message.startswith(f"train.model: passed: {work.root / 'runs/one/start.json'} leads to ")
    assert f"which is no run of {work.root / 'runs'}. Let it lead to one of these; a model elsewhere" in message


def test_passed_leads_to_a_run(work):
    (work.root / "passed").unlink()
    (work.root / "passed").symlink_to(work.folder / "elsewhere")
    message = work.run("train", *SETTINGS[:2], "run=two", "train.seed=1", expect=4)["message"]
    assert (
        f"passed: the link {work.root / 'passed'} leads to {work.folder / 'elsewhere'}, which is no run of" in message
    )


def test_runs_may_lie_on_another_disk(work):
    runs = (work.root / "runs").rename(work.folder / "disk")
    (work.root / "runs").symlink_to(runs)
    assert work.run("run", *SETTINGS)["status"] == "nothing_to_do"
    assert work.run("train", *SETTINGS[:2], "run=two", "train.seed=1")["status"] == "done"
    assert json.loads((runs / "two/start.json").read_text())["run"].endswith("disk/one")
    assert work.run("train", *SETTINGS[:2], "run=two", "train.seed=1")["status"] == "nothing_to_do"
    shutil.rmtree(runs)


def test_a_baseline_is_a_run(work):
    edit(work.root / "runs/one/eval/baseline.json", runs=[OUTSIDE])
    message = work.run("eval", *SETTINGS, expect=4)["message"]
    assert f"eval/baseline.json is damaged (ValueError: {OUTSIDE} is no name of a run), so it cannot be told" in message


def test_the_reference_of_a_lock_is_what_its_identity_says(work):
    edit(work.root / "reference.lock", reference_id=OUTSIDE)
    message = work.run("train", *SETTINGS, expect=4)["message"]
    assert message.startswith(
        f"{work.root / 'reference.lock'} is damaged: its reference_id is not that of the identity"
    )


def test_prepared_pairs_are_read_from_their_folder_alone(work):
    document = work.root / "pairs/pairs.json"
    stated = json.loads(document.read_text())
    ((part, *rest),) = stated["parts"]
    shutil.copy(work.root / "pairs/parts" / part, work.folder / part)
    shutil.copytree(work.root / "pairs/tokenizer", work.root / "tokenizer")
    tokenizer = {f"../{name}" if "/" in name else name: digest for name, digest in stated["files"].items()}
    for changes in ({"parts": [[f"../../../{part}", *rest]]}, {"files": tokenizer}):
        edit(document, **stated | changes)
        assert work.prepared() is None
    edit(document, **stated)
    assert work.prepared() is not None
