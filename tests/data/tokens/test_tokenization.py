"""What the model reads and what it is scored on, token by token."""

from itertools import groupby

import numpy as np
import pytest
from tokenizers import pre_tokenizers, processors

from data.errors import ConfigError
from data.rows.canonical import canonical_pair
from data.schema import SourceRow
from data.tokens.tokenization import BATCH, PairTokenizer, end_ids, load_tokenizer

ENDTEXT, START, END = 0, 1, 2  # <|endoftext|>, <|im_start|>, <|im_end|>: the end token is the pad token too
TURN = "{{ m['role'] }}: {{ m['content'] }}\n"
TURNS = "{% for m in messages %}" + TURN + "{% endfor %}"
PLAIN = TURNS + "{% if add_generation_prompt %}assistant: {% endif %}"

GOOD = {"prompt": "Why?", "chosen": "The fox jumps.", "rejected": "Nobody knows."}


@pytest.fixture
def one(prepare_rows):
    """The one pair, or the one rejection, of one row."""

    def run(row, **options):
        prepared = prepare_rows(row, **options)
        return [*prepared.all, *prepared.rejections][0]

    return run


def texts(tokenizer, pair):
    return [tokenizer.decode(ids) for ids in (pair.chosen.prompt_ids, pair.chosen.ids, pair.rejected.ids)]


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_prompt_and_responses_are_the_template_cut_at_the_turn(one, tokenizer):
    pair = one(GOOD)
    assert texts(tokenizer, pair) == [
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        "The fox jumps.<|im_end|>",
        "Nobody knows.<|im_end|>",
    ]
    assert pair.chosen.prompt_ids.tolist() == pair.rejected.prompt_ids.tolist()


def test_every_response_token_is_scored_and_the_arrays_are_small(one):
    for response in (one(GOOD).chosen, one(GOOD).rejected):
        assert response.mask.all()
        assert len(response.mask) == len(response.ids)
        assert (response.prompt_ids.dtype, response.ids.dtype, response.mask.dtype) == (np.int32, np.int32, np.bool_)


def test_end_token_that_is_the_pad_token_is_scored_and_pads_nothing(one, tokenizer):
    assert tokenizer.pad_token_id == END
    pair = one({"prompt": "Why?", "chosen": "a", "rejected": "a much longer answer"})
    for response in (pair.chosen, pair.rejected):
        assert response.ids.tolist().count(END) == 1
        assert (response.ids[-1], response.mask[-1]) == (END, True)
    assert len(pair.chosen.ids) == 2 < len(pair.rejected.ids)


@pytest.mark.parametrize("after", ["", "\n", "<|im_end|>", "\n<|endoftext|> and more"], ids=repr)
def test_what_a_template_puts_after_the_end_token_is_dropped(one, tokenizer, tokenizer_with, after):
    template = "{{ messages[0]['content'] }}:{% if messages | length > 1 %}{{ messages[1]['content'] }}<|im_end|>"
    using = tokenizer_with(template + after + "{% endif %}")
    assert texts(tokenizer, one(GOOD, using=using)) == ["Why?:", "The fox jumps.<|im_end|>", "Nobody knows.<|im_end|>"]


def test_missing_end_token_is_appended(one, tokenizer, tokenizer_with):
    pair = one(GOOD, using=tokenizer_with(PLAIN))
    assert texts(tokenizer, pair) == [
        "user: Why?\nassistant: ",
        "The fox jumps.\n<|im_end|>",
        "Nobody knows.\n<|im_end|>",
    ]


@pytest.mark.parametrize(
    ("generation_eos", "expected"),
    [(None, [END]), (END, [END]), (ENDTEXT, [END, ENDTEXT]), ([ENDTEXT, END, ENDTEXT], [END, ENDTEXT]), ([], [END])],
)
def test_end_tokens_are_the_tokenizers_and_then_the_generations(tokenizer, generation_eos, expected):
    assert end_ids(tokenizer, generation_eos) == expected


def test_first_of_several_end_tokens_ends_the_response(tokenizer, tokenizer_with):
    pair_tokenizer = PairTokenizer(tokenizer_with(PLAIN.replace("\n", "<|endoftext|><|im_end|>")), [END, ENDTEXT], 128)
    ((_, pair),) = pair_tokenizer.tokenize(iter([canonical_pair(SourceRow(0, "rows.jsonl:1", GOOD))]))
    assert texts(tokenizer, pair)[1:] == ["The fox jumps.<|endoftext|>", "Nobody knows.<|endoftext|>"]


def test_template_free_tokenizer_concatenates_and_ends(one, tokenizer_with):
    using = tokenizer_with(None)
    pair = one(GOOD, using=using)
    assert texts(using, pair) == ["Why?", "The fox jumps.<|im_end|>", "Nobody knows.<|im_end|>"]
    assert START not in pair.chosen.prompt_ids


def test_start_token_that_the_tokenizer_would_add_is_prepended_to_plain_text_only(one, tokenizer, tokenizer_with):
    adds_start = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", START)])
    plain = one(GOOD, using=tokenizer_with(None, post_processor=adds_start))
    assert plain.chosen.prompt_ids.tolist() == plain.rejected.prompt_ids.tolist() == [START, *ids(tokenizer, "Why?")]
    assert plain.chosen.ids.tolist() == [*ids(tokenizer, "The fox jumps."), END]
    assert one(GOOD, using=tokenizer_with(post_processor=adds_start)).key == one(GOOD).key


def test_other_token_that_the_tokenizer_would_put_first_is_not_prepended(one, tokenizer_with):
    adds_end = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", ENDTEXT)])
    assert (
        one(GOOD, using=tokenizer_with(None, post_processor=adds_end)).key == one(GOOD, using=tokenizer_with(None)).key
    )


def test_response_is_tokenised_together_with_its_prompt(one, tokenizer_with):
    using = tokenizer_with(None, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))
    assert using.tokenize("Why?the dog")[-3:] == ["t", "he", "Ġdog"]
    assert using.tokenize("the dog") == ["Ġthe", "Ġdog"]
    pair = one({"prompt": "Why?", "chosen": "the dog", "rejected": "a"}, using=using)
    assert using.convert_ids_to_tokens(pair.chosen.ids) == ["t", "he", "Ġdog", "<|im_end|>"]


def test_token_across_the_seam_is_taken_apart_and_counted(prepare_rows, tokenizer_with):
    using = tokenizer_with(None)
    assert using.tokenize("over") == ["ov", "er"]
    prepared = prepare_rows({"prompt": "jumps o", "chosen": "ver", "rejected": " no"}, using=using)
    (pair,) = prepared.all
    assert texts(using, pair) == ["jumps o", "ver<|im_end|>", " no<|im_end|>"]
    assert pair.chosen.ids.tolist() == [*ids(using, "ver"), END]
    assert prepared.coverage.seams_split == 1


def test_wherever_a_text_is_cut_both_parts_keep_their_text(prepare_rows, tokenizer_with):
    using, text = tokenizer_with(None), "It jumps 3 times over the lazy dog, and asks: why?"
    cuts = range(1, len(text))
    prepared = prepare_rows(*({"prompt": text[:i], "chosen": text[i:], "rejected": "~"} for i in cuts), using=using)
    assert [texts(using, pair)[:2] for pair in prepared.all] == [[text[:i], text[i:] + "<|im_end|>"] for i in cuts]
    whole = sum([*pair.chosen.prompt_ids, *pair.chosen.ids] == [*ids(using, text), END] for pair in prepared.all)
    assert 0 < whole == len(cuts) - prepared.coverage.seams_split < len(cuts)


def test_message_rows_and_text_rows_give_the_same_pair(one):
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    messages = {name: [{"role": roles[name], "content": text}] for name, text in GOOD.items()}
    assert one(messages).key == one(GOOD).key


def test_truncation_keeps_the_start_of_each_side_and_is_recorded(one):
    row = {"prompt": "Why?", "chosen": "The fox jumps over the dog.", "rejected": "Nobody answers him today, nobody."}
    whole = one(row)
    n_prompt, longest = len(whole.chosen.prompt_ids), max(len(whole.chosen), len(whole.rejected))
    assert whole.truncated == 0
    for max_length in range(n_prompt + 2, longest + 2):
        cut, room = one(row, max_length=max_length), max_length - n_prompt
        assert cut.chosen.prompt_ids.tolist() == whole.chosen.prompt_ids.tolist()
        assert cut.chosen.ids.tolist() == whole.chosen.ids[:room].tolist()
        assert cut.rejected.ids.tolist() == whole.rejected.ids[:room].tolist()
        assert cut.truncated == sum(max(0, len(side.ids) - room) for side in (whole.chosen, whole.rejected))
        assert len(cut.chosen.mask) == len(cut.chosen.ids)


FUSSY = (
    "{% if 'forbidden' in messages[0]['content'] %}{{ raise_exception('no such talk') }}{% endif %}"
    "{% if 'moody' in messages[0]['content'] %}{{ messages | length }}{% endif %}" + PLAIN
)


@pytest.mark.parametrize(
    ("reason", "row", "template", "detail"),
    [
        (
            "template_failed",
            {"prompt": "forbidden"},
            FUSSY,
            "the chat template refused the row: TemplateError: no such talk",
        ),
        (
            "template_failed",
            {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]},
            None,
            "the tokenizer has no chat template for several messages or tools",
        ),
        (
            "special_tokens_in_text",
            {"prompt": "Why?<|im_end|>"},
            PLAIN,
            "the user's text contains the special token <|im_end|>",
        ),
        (
            "special_tokens_in_text",
            {"rejected": "No.<|endoftext|>"},
            None,
            "the assistant's text contains the special token <|endoftext|>",
        ),
        (
            "prompt_not_a_prefix",
            {"prompt": "moody"},
            FUSSY,
            "the rendered prompt does not open the rendered chosen conversation",
        ),
        ("prompt_too_long", {"prompt": "?" * 32}, None, "the prompt alone has 32 tokens; max_length is 32"),
        ("prompt_too_long", {"prompt": "?" * 40}, None, "the prompt alone has 40 tokens; max_length is 32"),
        (
            "identical_after_truncation",
            {"prompt": "?" * 30, "chosen": "!!!a", "rejected": "!!!b"},
            None,
            "the first 2 tokens of both completions are the same",
        ),
    ],
)
def test_bad_row_has_its_reason_and_its_place(prepare_rows, tokenizer_with, reason, row, template, detail):
    prepared = prepare_rows(GOOD, GOOD | row, GOOD, using=tokenizer_with(template), max_length=32)
    (rejection,) = prepared.rejections
    assert (rejection.row, rejection.reason, rejection.detail) == (1, reason, detail)
    assert rejection.location.endswith("rows.jsonl:2")
    assert [pair.row for pair in prepared.all] == [0, 2]


def test_pairs_come_in_order_whatever_the_batches(prepare_rows):
    n = 2 * BATCH + 3
    rows = [{"prompt": "?", "chosen": f"{i}", "rejected": "<|im_end|>" if i % 7 == 0 else "no"} for i in range(n)]
    prepared = prepare_rows(*rows)
    assert [pair.row for pair in prepared.all] == [i for i in range(n) if i % 7]
    alone = prepare_rows(rows[BATCH])
    assert {pair.row: pair.key for pair in prepared.all}[BATCH] == alone.all[0].key


def test_tokenizer_that_was_saved_loads_and_gives_the_same_ids(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    assert ids(load_tokenizer(tmp_path), "Why, fox?") == ids(tokenizer, "Why, fox?")


def test_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"has no tokenizer that loads: (?s:.*) Put the model's tokenizer files beside"
    ):
        load_tokenizer(tmp_path)


def test_a_folder_whose_configuration_alone_makes_a_tokenizer_has_none(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value) == (
        f"The folder {tmp_path} has no tokenizer that loads: an empty Qwen2Tokenizer is all that its config.json "
        "gives. Put the model's tokenizer files beside its weights."
    )


def test_a_response_that_would_gain_a_space_apart_from_its_prompt_is_refused(one, tokenizer_with):
    spaced = tokenizer_with(None, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))
    rejection = one({"prompt": "jumps o", "chosen": "ver", "rejected": "wl"}, using=spaced)
    assert rejection.reason == "seam_inside_a_token"
    assert rejection.detail == "a token straddles prompt and response, and apart the text changes"


TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for call in m.tool_calls or [] %}call {{ call.function.name }}{% endfor %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
    "{% for call in m.tool_calls or [] %}call {{ call.function.name }}{% endfor %}{{ m.content }}<|im_end|>\n"
    "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}
RESULT, NOON = {"role": "tool", "content": "12:00"}, {"role": "assistant", "content": "Noon."}
LATE = {"role": "assistant", "content": "It is late."}
WITH_TOOLS = {"prompt": "What time?", "chosen": [CALL, RESULT, NOON], "rejected": [LATE]}


def scored(tokenizer, response):
    """The runs of scored tokens, as texts."""
    runs = [list(run) for yes, run in groupby(range(len(response.ids)), key=lambda i: response.mask[i]) if yes]
    return [tokenizer.decode(response.ids[run]) for run in runs]


@pytest.mark.parametrize("template", [TOOLS, MARKED], ids=["prefixes", "marks"])
def test_of_several_messages_only_the_assistants_are_scored(one, tokenizer, tokenizer_with, template):
    pair = one(WITH_TOOLS, using=tokenizer_with(template))
    between = "<|im_end|>\n<|im_start|>tool\n12:00<|im_end|>\n<|im_start|>assistant\n"
    assert texts(tokenizer, pair)[1:] == [f"call clock{between}Noon.<|im_end|>", "It is late.<|im_end|>"]
    assert scored(tokenizer, pair.chosen) == ["call clock<|im_end|>", "Noon.<|im_end|>"]
    assert scored(tokenizer, pair.rejected) == ["It is late.<|im_end|>"]
    assert pair.chosen.mask[-1] and pair.chosen.mask[0]


def test_marks_and_prefixes_give_the_same_pair(one, tokenizer_with):
    assert one(WITH_TOOLS, using=tokenizer_with(TOOLS)).key == one(WITH_TOOLS, using=tokenizer_with(MARKED)).key


def test_turns_of_the_prompt_are_not_scored(one, tokenizer, tokenizer_with):
    before = [{"role": "user", "content": "Hello?"}, LATE, {"role": "user", "content": "What time?"}]
    for template in (TOOLS, MARKED):
        pair = one(WITH_TOOLS | {"prompt": before}, using=tokenizer_with(template))
        assert scored(tokenizer, pair.chosen) == ["call clock<|im_end|>", "Noon.<|im_end|>"]
        assert texts(tokenizer, pair)[1].startswith("call clock<|im_end|>")


def test_one_message_scores_the_same_with_and_without_marks(one, tokenizer_with):
    assert one(GOOD, using=tokenizer_with(MARKED)).key == one(GOOD, using=tokenizer_with(TOOLS)).key == one(GOOD).key


def test_a_last_turn_without_an_end_token_gets_one(one, tokenizer, tokenizer_with):
    pair = one(WITH_TOOLS, using=tokenizer_with(TOOLS.replace("<|im_end|>", "")))
    assert scored(tokenizer, pair.chosen) == ["call clock\n", "Noon.\n<|im_end|>"]


def test_truncation_cuts_the_mask_with_the_tokens(one, tokenizer_with):
    using = tokenizer_with(TOOLS)
    pair = one(WITH_TOOLS, using=using)
    for max_length in range(len(pair.chosen.prompt_ids) + 1, len(pair.chosen)):
        cut = one(WITH_TOOLS, using=using, max_length=max_length).chosen
        assert cut.ids.tolist() == pair.chosen.ids[: len(cut.ids)].tolist()
        assert cut.mask.tolist() == pair.chosen.mask[: len(cut.ids)].tolist()
        assert len(cut) == max_length and cut.n_scored > 0


def test_a_template_that_forgets_earlier_turns_is_refused(one, tokenizer_with):
    """As templates do that drop the reasoning of all turns but the last."""
    forgets = TOOLS.replace("{{ m.content }}", "{% if loop.last %}{{ m.reasoning_content }}{% endif %}{{ m.content }}")
    thinks = CALL | {"reasoning_content": "Let me see."}
    rejection = one(WITH_TOOLS | {"chosen": [thinks, RESULT, NOON]}, using=tokenizer_with(forgets))
    assert rejection.reason == "prompt_not_a_prefix"
    assert "the rendered conversation, at message 0 of a response" in rejection.detail


def test_a_template_that_marks_nothing_of_the_response_is_refused(one, tokenizer_with):
    nothing = TOOLS + "{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    rejection = one(WITH_TOOLS, using=tokenizer_with(nothing))
    assert rejection.detail == "the chat template marks nothing of chosen as generated"


def test_the_system_prompt_of_a_template_stands_in_the_prompt(one, tokenizer, tokenizer_with):
    injected = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + TOOLS
    assert texts(tokenizer, one(GOOD, using=tokenizer_with(injected)))[0].startswith(
        "<|im_start|>system\nBe kind.<|im_e"
    )


def test_special_tokens_are_found_in_tool_calls_too(one, tokenizer_with):
    call = CALL | {"tool_calls": [{"function": {"name": "clock", "arguments": {"zone": "<|im_end|>"}}}]}
    rejection = one(WITH_TOOLS | {"chosen": [call, RESULT, NOON]}, using=tokenizer_with(TOOLS))
    assert rejection.reason == "special_tokens_in_text"


def test_tools_of_a_row_reach_its_tokens(one, tokenizer, tokenizer_with):
    using = tokenizer_with("{% for tool in tools or [] %}{{ tool.name }} {% endfor %}" + TOOLS)
    tools = [{"name": "clock"}, {"name": "calendar"}]
    assert texts(tokenizer, one(GOOD | {"tools": tools}, using=using))[0].startswith("clock calendar <|im_start|>user")
