"""A pair as text again, with what is scored marked."""

import numpy as np

from data.schema import Response
from data.tokens.marked_text import marked, marked_pair, marked_tokens


def test_what_is_scored_is_marked_and_nothing_is_left_out(prepare_rows, tokenizer):
    (pair,) = prepare_rows({"prompt": "Why?", "chosen": "Because.", "rejected": "Nobody knows."}).all
    shown = marked_pair(pair, tokenizer)
    assert shown["prompt"] == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert shown["chosen"] == "\u27e6Because.<|im_end|>\u27e7"
    assert shown["rejected"] == "\u27e6Nobody knows.<|im_end|>\u27e7"
    assert shown["location"].endswith("rows.jsonl:1")


def test_every_run_of_scored_tokens_has_marks_of_its_own(tokenizer):
    ids = np.array(tokenizer("abcdef")["input_ids"], np.int32)
    mask = np.ones(len(ids), bool)
    mask[len(ids) // 2] = False
    shown = marked(Response(ids, ids, mask), tokenizer)
    assert shown.count("\u27e6") == shown.count("\u27e7") == 2
    assert shown.replace("\u27e6", "").replace("\u27e7", "") == tokenizer.decode(ids)


def test_tokens_stand_alone_and_say_whether_they_are_scored(tokenizer):
    ids = np.array(tokenizer("a\nb")["input_ids"], np.int32)
    mask = np.array([True] * (len(ids) - 1) + [False])
    prompt, response = marked_tokens(Response(ids, ids, mask), tokenizer)
    assert prompt == "«a»«\u21b5»«b»" and response == "\u27e6a\u27e7\u27e6\u21b5\u27e7«b»"
