"""What the benchmark of a GPU measures: shapes, lengths, cells, and the file that keeps what is measured."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from gpu import measure, parse_arguments
from gpu_lengths import MIXES, best_spread, draw_lengths, once_ratio, padded_ratio, random_pairs, with_own_prompts
from gpu_models import SHAPES, random_model
from gpu_plan import plan
from gpu_record import Record, run_program
from gpu_results import is_default_trl, is_ours, is_tuned_trl
from gpu_targets import SHARES
from stages.training.flops import model_cost

FACTS = {"device": "card", "python": "3", "torch": "2", "transformers": "5", "trl": "1", "vllm": "0"}
PUBLISHED = {"135m": 134_515_008, "3b": 3_212_749_824, "8b": 8_030_261_248}
"""Parameters as the pages of these models give them; Qwen's have biases and norms of heads besides."""


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_shapes_have_the_published_number_of_parameters(name, size):
    assert sum(math.prod(shape) for _, shape in SHAPES[name].weights()) == size


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_shape_knows_the_matrices_of_its_model(family):
    shape = replace(SHAPES["toy"], family=family)
    cost = model_cost(random_model(shape, "bfloat16", "cpu"))
    assert (cost.body, cost.head) == (shape.body, shape.head_size)


@pytest.mark.parametrize(("name", "padded", "once"), [("ultrafeedback", 1.63, 1.23), ("hh", 2.24, 1.53)])
def test_the_mixes_have_the_ratios_that_the_page_gives(name, padded, once):
    """1.84 is out of reach: with these medians, lengths that are cut at 1,024 tokens are never padded so far."""
    mix = MIXES[name]
    lengths = draw_lengths(mix, 60_000)
    assert round(padded_ratio(lengths), 2) == padded
    assert round(once_ratio(lengths), 2) == once
    assert abs(best_spread(mix, 2000) - mix.spread) < 0.12
    assert abs(np.median(lengths[:, 0]) / mix.prompt - 1) < 0.01
    assert (lengths[:, :1] + lengths[:, 1:]).max() == 1024


def test_padding_and_shared_prompts_are_counted_so():
    """Eight pairs, by hand: rows of 3 and 4 tokens but one of 6, prompts of 1."""
    lengths = np.array([[1, 2, 3]] * 7 + [[1, 2, 5]])
    assert padded_ratio(lengths) == 16 * 6 / (8 * 3 + 7 * 4 + 6)
    assert once_ratio(lengths) == (8 * 3 + 7 * 4 + 6) / (8 * 3 + 7 * 3 + 5)


def test_sides_share_their_prompt_until_they_are_set_apart():
    pairs = random_pairs(MIXES["hh"], 20, 512, cap=64)
    apart = with_own_prompts(pairs)
    for pair, other in zip(pairs, apart, strict=True):
        assert np.array_equal(pair.chosen.prompt_ids, pair.rejected.prompt_ids)
        assert not np.array_equal(other.chosen.prompt_ids, other.rejected.prompt_ids)
        assert [len(side) for side in (pair.chosen, pair.rejected)] == [len(s) for s in (other.chosen, other.rejected)]
        assert max(len(pair.chosen), len(pair.rejected)) <= 64


def test_contenders_of_a_row_follow_one_another_and_rounds_come_after_rounds():
    cells = plan("cuda", None, 2)
    assert len(set(cells)) == len(cells)
    assert [cell.round for cell in cells] == sorted(cell.round for cell in cells)
    first = [cell.contender for cell in cells if cell.title.startswith("scoring 0.5b ultrafeedback")][:4]
    assert [cell.contender for cell in cells][:4] == first
    assert first[0] == "ours"


@pytest.mark.parametrize(("task", "model"), SHARES)
def test_everything_that_a_target_asks_for_is_measured(task, model):
    titles = (task, model, "ultrafeedback")
    names = {c.contender for c in plan("cuda", None, 1) if (c.task, c.model, c.mix) == titles}
    assert any(map(is_ours, names))
    assert any(map(is_default_trl, names))
    assert any(map(is_tuned_trl, names))


def test_what_is_measured_stays_until_device_versions_or_code_change(tmp_path):
    file = tmp_path / "record.json"
    ours, trl = (next(c for c in plan("cpu", ["toy"], 1) if c.contender.startswith(who)) for who in ("ours", "trl"))
    record = Record(file, FACTS)
    for cell, report in ((ours, {"seconds": 1.0}), (trl, {"error": "out of memory"})):
        record.add(cell, report)
    again = Record(file, FACTS)
    assert again.has(ours)
    assert again.has(trl)
    assert not again.has(replace(ours, round=2))
    assert again.has(replace(ours, limit=1.0))
    assert not Record(file, FACTS | {"device": "other"}).has(trl)
    newer = Record(file, FACTS | {"trl": "2"})
    assert newer.has(ours)
    assert not newer.has(trl)
    document = json.loads(file.read_bytes())
    for entry in document["cells"]:
        entry["made_by"] |= {name: "older" for name in entry["made_by"] if name == "code"}
    file.write_text(json.dumps(document))
    changed = Record(file, FACTS)
    assert not changed.has(ours)
    assert changed.has(trl)
    changed.add(ours, {"seconds": 2.0})
    assert [entry.get("seconds") for entry in json.loads(file.read_bytes())["cells"]] == [None, 2.0]


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    left = tmp_path / "left"
    child = f"import time, pathlib; time.sleep(1); pathlib.Path({str(left)!r}).touch()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert run_program(["-c", code], "cpu", 0.5)[0] is None
    assert run_program(["-c", "import time; time.sleep(0.8); print(1)"], "cpu", 30)[:2] == (0, "1\n")
    assert not left.exists()


def test_nothing_is_begun_that_the_budget_has_no_time_for(capsys, tmp_path):
    cells = plan("cpu", ["toy"], 1)[:1]
    measure(cells, Record(tmp_path / "record.json", FACTS), time.monotonic() + 15)
    assert capsys.readouterr().err == (
        "the time is over before scoring toy ultrafeedback ours; the same command goes on there\n"
    )
    assert not (tmp_path / "record.json").exists()


def test_without_a_gpu_it_says_what_runs_here(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit):
        parse_arguments()
    assert "torch sees no GPU here; --device cpu --models toy shows that everything runs" in capsys.readouterr().err
