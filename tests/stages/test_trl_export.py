"""What TRL makes of an export is what was scored; with TRL itself in `make test-real`."""

import copy
import re

import numpy as np
import polars as pl
import pytest
from tokenizers.processors import TemplateProcessing

from data.schema import Response, TokenPair
from stages.reference_rows import ReferenceLogps
from stages.trl_export import rendered, trl_table
from tests.tiny import ROOT, example_rows, write_jsonl


def pair(tokenizer, prompt, chosen, rejected):
    ids = [np.array(tokenizer(text)["input_ids"], np.int32) for text in (prompt, chosen, rejected)]
    sides = [Response(ids[0], side, np.ones(len(side), bool)) for side in ids[1:]]
    return TokenPair(0, "x:1", *sides)


def test_the_export_holds_the_texts_and_the_sums_of_every_pair(work):
    work.run("precompute-ref")
    document = work.run("export", arguments={"out": work.folder / "out"})
    assert document["pairs"] == 40 and document["left_out"] == {"train": {}, "eval": {}}
    rows = pl.concat([pl.read_parquet(path) for path in document["outputs"].values()])
    stored = pl.concat([pl.read_parquet(path) for path in (work.root / "store").glob("*/parts/*")])
    joined = rows.join(stored, on="pair_key", suffix="_stored")
    assert joined.height == 40
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        assert joined[name].equals(joined[f"{name}_stored"], check_names=False)
    texts = {(row["prompt"], row["chosen"], row["rejected"]) for row in rows.to_dicts()}
    assert texts == {
        (
            f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n",
            f"{row['chosen']}<|im_end|>",
            f"{row['rejected']}<|im_end|>",
        )
        for row in example_rows(40)
    }


def test_a_response_without_its_end_is_left_out(tokenizer):
    whole = pair(tokenizer, "Why?", "Yes.<|im_end|>", "No.<|im_end|>")
    assert rendered(whole, tokenizer) == ("Why?", "Yes.<|im_end|>", "No.<|im_end|>")
    assert rendered(pair(tokenizer, "Why?", "Yes.<|im_end|>", "No."), tokenizer) == "response_reads_otherwise"


def test_a_response_of_which_some_tokens_are_not_scored_is_left_out(tokenizer):
    one = pair(tokenizer, "Why?", "Yes.<|im_end|>", "No.<|im_end|>")
    one.rejected.mask[0] = False
    assert rendered(one, tokenizer) == "not_every_token_scored"


def test_tokens_that_the_text_does_not_give_back_are_left_out_and_counted(tokenizer):
    apart = pair(tokenizer, "Why?", "Yes.<|im_end|>", "No.<|im_end|>")
    spelled = [token for part in (*"The quick", "<|im_end|>") for token in tokenizer(part)["input_ids"]]
    other = TokenPair(
        1,
        "x:2",
        apart.chosen,
        Response(apart.chosen.prompt_ids, np.array(spelled, np.int32), np.ones(len(spelled), bool)),
    )
    sums = {each.key: ReferenceLogps(-1.0, -2.0) for each in (apart, other)}
    table, left_out = trl_table([apart, other], sums, tokenizer)
    assert table["pair_key"].to_pylist() == [apart.key] and left_out == {"response_reads_otherwise": 1}


def test_a_prompt_that_its_text_does_not_give_back_is_left_out(tokenizer):
    whole = pair(tokenizer, "The quick", "Yes.<|im_end|>", "No.<|im_end|>")
    spelled = np.array([token for letter in "The quick" for token in tokenizer(letter)["input_ids"]], np.int32)
    assert len(spelled) > len(whole.chosen.prompt_ids)
    sides = [Response(spelled, side.ids, side.mask) for side in (whole.chosen, whole.rejected)]
    assert rendered(TokenPair(0, "x:1", *sides), tokenizer) == "prompt_reads_otherwise"


def test_a_token_that_the_tokenizer_puts_in_front_by_itself_is_not_in_the_text(tokenizer):
    """Else TRL, whose tokenizer adds it again, would see it twice."""
    opening = copy.deepcopy(tokenizer)
    start = [("<|im_start|>", tokenizer.convert_tokens_to_ids("<|im_start|>"))]
    opening.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=start)
    bare = pair(tokenizer, "Why?", "Yes.<|im_end|>", "No.<|im_end|>")
    prompt = np.array([start[0][1], *bare.chosen.prompt_ids], np.int32)
    sides = [Response(prompt, side.ids, side.mask) for side in (bare.chosen, bare.rejected)]
    assert opening("Why?")["input_ids"] == prompt.tolist()
    assert rendered(TokenPair(0, "x:1", *sides), opening) == ("Why?", "Yes.<|im_end|>", "No.<|im_end|>")
    assert rendered(bare, opening) == "prompt_reads_otherwise"


def test_nothing_that_can_be_exported_is_an_error_with_the_reason(work):
    write_jsonl(
        work.data, [{**row, "chosen": row["chosen"] * 9, "rejected": row["rejected"] * 9} for row in example_rows(20)]
    )
    work.run("precompute-ref", "data.max_length=60")
    message = work.run("export", "data.max_length=60", arguments={"out": work.folder / "out"}, expect=3)["message"]
    assert message.startswith("None of 20 pairs can be exported") and "response_reads_otherwise" in message


def test_pairs_that_are_not_scored_stop_the_export(work):
    message = work.run("export", arguments={"out": work.folder / "out"}, expect=4)["message"]
    assert "pairs have no reference log-probs" in message and not (work.folder / "out").exists()


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")  # of TRL
def test_trl_trains_on_the_export_as_the_documentation_shows(work):
    """Its tokens are those that were scored, and at the first step its rewards are 0."""
    pytest.importorskip("trl")
    work.run("precompute-ref")
    work.run("export", arguments={"out": work.folder / "out"})
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "trl.md").read_text(), re.DOTALL)
    shown: dict = {}
    exec(code, shown)
    settings = {"output_dir": str(work.folder / "trl"), "use_cpu": True, "bf16": False, "report_to": "none"}
    settings |= {"logging_steps": 1, "max_steps": 3, "save_strategy": "no", "max_length": 128, "learning_rate": 1e-3}
    trainer = shown["trainer"](str(work.model), str(work.folder / "out"), **settings)
    scored = {one.key: one for one in work.prepared().splits["train"]}
    ours = {(*s.prompt_ids.tolist(), *s.ids.tolist()) for p in scored.values() for s in (p.chosen, p.rejected)}
    rows = list(trainer.train_dataset)
    theirs = {tuple(row["prompt_ids"] + row[side]) for row in rows for side in ("chosen_ids", "rejected_ids")}
    assert theirs == ours
    trainer.train()
    first = next(entry for entry in trainer.state.log_history if "rewards/chosen" in entry)
    assert abs(first["rewards/chosen"]) < 1e-4 and abs(first["rewards/rejected"]) < 1e-4
    assert trainer.state.global_step == 3
