"""What a person reads when something outside the configuration goes wrong; each as the one document of the job."""

import errno
import shutil

import pytest

from tests.tiny import example_rows, save_model, write_jsonl


def message(work, job, *settings, code):
    return work.run(job, *settings, expect=code)["message"]


def test_no_such_model(work):
    text = message(work, "precompute-ref", "reference.model=./nowhere", code=2)
    assert text.startswith("reference.model: ./nowhere is neither a folder on this machine nor a model that the Hub")
    assert text.endswith("and run the same command again.")


def test_no_such_data(work):
    text = message(work, "precompute-ref", "data.train=missing.jsonl", code=3)
    assert text == "The preference data missing.jsonl do not exist. Correct `data.train` or `data.eval`, or create it."


def test_data_that_are_an_empty_folder(work):
    (work.folder / "empty").mkdir()
    text = message(work, "precompute-ref", f"data.train={work.folder / 'empty'}", code=3)
    assert text.endswith("Correct `data.train` or `data.eval`, or put the files there.")


def test_every_row_too_long(work):
    text = message(work, "precompute-ref", "data.max_length=20", "data.max_bad=1", code=3)
    assert text.startswith("No training pairs are left of 40 rows read (40 prompt_too_long).")
    assert "Check data.train, data.eval_fraction and data.max_length. The first rejected: " in text
    assert "(the prompt alone has " in text


def test_a_model_folder_without_a_tokenizer(work):
    from tests.tiny import build_model

    build_model().save_pretrained(work.folder / "bare")
    text = message(work, "precompute-ref", f"reference.model={work.folder / 'bare'}", code=2)
    assert "has no tokenizer that loads" in text and "Put the model's tokenizer files beside its weights." in text


def test_a_tokenizer_that_is_not_the_models(work):
    save_model(work.folder / "small", vocab_size=300)
    text = message(work, "precompute-ref", f"reference.model={work.folder / 'small'}", code=3)
    assert "and the model has embeddings for 300 tokens. The tokenizer is not this model's" in text


def test_weights_that_lack_a_tensor(work):
    from safetensors.torch import load_file, save_file

    shutil.copytree(work.model, work.folder / "torn")
    file = work.folder / "torn" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    text = message(work, "precompute-ref", f"reference.model={work.folder / 'torn'}", code=2)
    assert "1 tensors are missing (model.layers.1.mlp.up_proj.weight)" in text and "copy the folder again" in text


def test_weights_that_are_cut_off(work):
    shutil.copytree(work.model, work.folder / "cut")
    file = work.folder / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    text = message(work, "precompute-ref", f"reference.model={work.folder / 'cut'}", code=2)
    assert "cannot be loaded: " in text and "\n" not in text


def test_an_architecture_that_is_not_known(work):
    shutil.copytree(work.model, work.folder / "odd")
    config = work.folder / "odd" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type": "no_such_thing"'))
    text = message(work, "precompute-ref", f"reference.model={work.folder / 'odd'}", code=2)
    assert "no_such_thing" in text and "\n" not in text


def test_a_lock_that_is_no_json(work):
    work.run("precompute-ref")
    (work.root / "reference.lock").write_text("{")
    text = message(work, "train", code=4)
    assert "reference.lock is not JSON" in text and "Delete it and run `pipeline precompute-ref`." in text


def test_a_run_folder_that_is_no_json(work):
    work.run("precompute-ref")
    document = work.run("train")
    (work.root / "runs" / document["run"] / "run.json").write_text("{")
    assert "cannot be told which run this folder holds" in message(work, "train", code=4)


def test_what_the_chain_has_done_before_a_job_failed_is_told(work):
    done = work.run("run")
    (work.root / "runs" / done["run"] / "run.json").write_text("{")
    document = work.run("run", expect=4)
    assert [(job["job"], job["status"]) for job in document["jobs"]] == [
        ("precompute-ref", "nothing_to_do"),
        ("train", "failed"),
    ]
    assert document["status"] == "failed" and document["message"] == document["jobs"][1]["message"]


def test_a_damaged_part_stops_training_with_its_name(work):
    work.run("precompute-ref")
    part = sorted((work.root / "store").glob("*/parts/*"))[0]
    part.write_bytes(part.read_bytes()[:-1])
    text = message(work, "train", code=4)
    assert text.startswith(f"The part {part} is damaged") and "Run `pipeline precompute-ref`" in text


def test_a_work_folder_that_is_a_file(work):
    (work.folder / "work").write_text("")
    assert f"workdir: {work.root} is a file, not a folder" in message(work, "precompute-ref", code=2)


@pytest.mark.parametrize("raised", [OSError(errno.ENOSPC, "No space left on device"), MemoryError("9 GB")])
def test_disk_and_memory_are_the_machines_fault(work, monkeypatch, raised):
    def fail(inputs):
        raise raised

    monkeypatch.setitem(__import__("pipeline.chain").chain.JOBS, "train", fail)
    text = message(work, "train", code=6)
    assert text.startswith(("The disk is full: ", "Memory ran out: "))


def test_a_bug_of_ours_says_so_and_keeps_its_traceback(work, monkeypatch, capsys):
    def fail(inputs):
        raise ZeroDivisionError("of ours\n::error::\x1b[31m")

    monkeypatch.setitem(__import__("pipeline.chain").chain.JOBS, "train", fail)
    assert message(work, "train", code=1).startswith(
        "This is a bug of the program, not yours: ZeroDivisionError: of ours"
    )
    said = capsys.readouterr().err
    assert "Traceback" in said and "\x1b" not in said and "\n: :error::" in said


def test_a_loss_that_is_not_finite_stops_training_and_names_the_rows(work):
    """A learning rate that blows the weights up: the update is not applied, and the last checkpoint is still there."""
    work.run("precompute-ref")
    document = work.run("train", "train.learning_rate=1e30", "train.checkpoint_every=1", expect=1)
    assert "Training stopped at step " in document["message"] and "The rows of this step: " in document["message"]
    assert list(work.root.glob("runs/*/checkpoints/step-*/state.safetensors"))
    assert not list(work.root.glob("runs/*/policy"))


def test_hostile_rows_reach_the_terminal_as_text(work):
    row = example_rows(1)[0]
    write_jsonl(work.data, [*example_rows(40), {**row, "\x1b[31m::error::": 1, "prompt": None}])
    process = work.command("validate", "-c", str(work.config))
    assert process.returncode == 0 and "\x1b" not in process.stderr + process.stdout
