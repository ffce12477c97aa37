"""Several processes make the parts that one would have made, and none outlives its work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.config import DataConfig
from data.errors import DataError, Interrupted
from data.identity import file_digest
from data.pairs import pair_parts, part_maker
from data.pairs.part_maker import PartMaker, TokenizerRecipe
from data.pairs.preparation import prepare
from data.tokens.tokenization import load_tokenizer
from tests.tiny import ROOT, example_rows, write_jsonl

N = 1200  # rows: more parts than are made without other processes


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of about two hundred lines."""
    for name, value in (("FEWEST", 100), ("USUAL", 200), ("MOST", 300)):
        monkeypatch.setattr(pair_parts, name, value)


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A model's folder, as far as the data step reads it."""
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path


def run(folder, rows, workers, name="parts", advance=lambda _: None):
    config = DataConfig(train=str(write_jsonl(folder / "rows.jsonl", rows)), eval_fraction=0, max_length=128)
    maker = PartMaker(TokenizerRecipe(folder / "model", (2, 0), 128), [folder / name], workers, file_digest)
    return prepare(config, maker, {"max_length": 128}, advance)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_any_number_of_processes_makes_the_same_files(folder):
    rows = [*example_rows(N // 2), "torn", *example_rows(N // 2, N)]
    alone, several = (run(folder, rows, workers, f"by-{workers}") for workers in (1, 2))
    assert contents(folder / "by-1") == contents(folder / "by-2") and len(contents(folder / "by-1")) > 2
    assert alone.coverage == several.coverage and alone.rejections == several.rejections
    assert [pair.location for pair in several.all] == [
        f"{folder / 'rows.jsonl'}:{i + 1}" for i in range(N + 1) if i != N // 2
    ]


def test_the_tokenizer_is_loaded_while_other_processes_make_the_first_parts(folder, monkeypatch):
    loaded, advanced = [], []
    monkeypatch.setattr(part_maker, "load_tokenizer", lambda path: loaded.append(path) or load_tokenizer(path))
    run(folder, example_rows(N), 2, advance=lambda rows: advanced.append(len(loaded)))
    assert loaded == [folder / "model"] and advanced[0] == 1


@pytest.mark.parametrize("template", [True, False])
def test_a_tokenizer_that_made_parts_is_saved_as_it_was_loaded(folder, tokenizer, template):
    if not template:
        tokenizer = load_tokenizer(folder / "model")
        tokenizer.chat_template = None
        (folder / "model" / "chat_template.jinja").unlink()
        tokenizer.save_pretrained(folder / "model")
    config = DataConfig(
        train=str(write_jsonl(folder / "rows.jsonl", example_rows(50))), eval_fraction=0, max_length=128
    )
    maker = PartMaker(TokenizerRecipe(folder / "model", (2, 0), 128), [folder / "parts"], 1, file_digest)
    prepare(config, maker, {"max_length": 128}, lambda _: None)
    load_tokenizer(folder / "model").save_pretrained(folder / "loaded")
    maker.tokenizer.tokenizer.save_pretrained(folder / "used")
    assert contents(folder / "loaded") == contents(folder / "used")


def template(folder, text):
    (folder / "model" / "chat_template.jinja").write_text(text)


def test_a_row_whose_template_fills_the_memory_is_named(folder):
    template(folder, "{% if 'Question 821:' in messages[0].content %}{{ 'x' * 3000000000 }}{% endif %}{{ messages }}")
    with pytest.raises(DataError, match=r"wanted over 512 MB for .*rows\.jsonl:822 and was stopped"):
        run(folder, example_rows(N), 2)


def test_a_process_that_no_signal_reaches_is_ended(folder, monkeypatch):
    """A single operation that takes hours: Python looks at signals between operations."""
    monkeypatch.setattr(part_maker, "WATCHDOG", 3.0)
    template(folder, "{% if 'Question 10:' in messages[0].content %}{{ 7 ** (10 ** 9) }}{% endif %}{{ messages }}")
    with pytest.raises(DataError) as caught:
        run(folder, example_rows(N), 2)
    assert f"A process that was making tokens of {folder / 'rows.jsonl'}:1 to " in str(caught.value)
    assert "memory ran out, or the chat template did not stop" in str(caught.value)
    assert "Set data.workers: 1 and run the same command again to see which row it is." in str(caught.value)


def test_a_signal_keeps_what_was_made(folder):
    def stop(_):
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        run(folder, example_rows(N), 2, advance=stop)
    made = contents(folder / "parts")
    assert made and not any(name.startswith(".tmp") for name in made)
    whole = run(folder, example_rows(N), 2)
    assert made.items() <= contents(folder / "parts").items() and whole.coverage.used == N


CODE = """
import sys
from pathlib import Path
from tests.data.pairs.test_part_maker import example_rows, run
if __name__ == "__main__":
    run(Path(sys.argv[1]), example_rows(30_000), 2, advance=lambda _: print("part", flush=True))
"""


def descendants(pid):
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found[1:]


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_process_outlives_the_one_that_was_killed(folder):
    script = folder / "job.py"
    script.write_text(CODE)
    command = [sys.executable, str(script), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == b"part\n"
    others = descendants(process.pid)
    assert len(others) >= 3  # the server of forks and two workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while any(map(is_running, others)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, others))
