import copy

import numpy as np
import pytest

from data.schema import Response
from data.tokens.other_tokenizer import template_difference, token_difference
from tests.tiny import build_tokenizer

TEXTS = ("<|im_start|>user\nWhy?<|im_end|>\n", "Nobody answers him, the quick brown fox<|im_end|>")


def responses(tokenizer):
    prompt, said = (np.array(tokenizer.encode(text, add_special_tokens=False), np.int32) for text in TEXTS)
    return [Response(prompt, said, np.ones(len(said), np.bool_))]


def changed(tokenizer, change):
    """A copy, its own description changed: what another training of the tokenizer might have given."""
    import json

    from tokenizers import Tokenizer

    document = json.loads(tokenizer.backend_tokenizer.to_str())
    change(document)
    other = copy.deepcopy(tokenizer)
    other._tokenizer = Tokenizer.from_str(json.dumps(document))
    return other


def test_what_another_program_has_written_anew_is_the_same_tokenizer(tokenizer, tmp_path):
    """As TRL does: a token to pad with is added, the files have other bytes."""
    from transformers import AutoTokenizer

    again = build_tokenizer()
    again.add_special_tokens({"pad_token": "<|pad|>"})
    again.model_max_length = 77
    again.save_pretrained(tmp_path)
    assert token_difference(tokenizer, AutoTokenizer.from_pretrained(tmp_path), responses(tokenizer)) is None


def test_two_tokens_that_changed_places_are_found_by_example(tokenizer):
    first, *_, last, _ = tokenizer.convert_ids_to_tokens(responses(tokenizer)[0].ids)

    def swap(document):
        vocabulary = document["model"]["vocab"]
        vocabulary[first], vocabulary[last] = vocabulary[last], vocabulary[first]

    differs = token_difference(tokenizer, changed(tokenizer, swap), responses(tokenizer))
    assert differs is not None and differs.startswith("it reads the tokens of '") and "'" in differs.split(" as ")[1]


def test_the_same_vocabulary_with_other_merges_is_found_by_example(tokenizer):
    def unlearn(document):
        document["model"]["merges"] = document["model"]["merges"][:3]

    differs = token_difference(tokenizer, changed(tokenizer, unlearn), responses(tokenizer))
    assert differs is not None and differs.startswith("it makes the tokens [") and differs.endswith("are expected")


def test_a_special_token_that_is_plain_text_to_the_other_is_found(tokenizer):
    def rename(document):
        for token in document["added_tokens"]:
            token["content"] = token["content"].replace("im_end", "end_of_turn")
        document["model"]["vocab"] = {
            name.replace("im_end", "end_of_turn"): i for name, i in document["model"]["vocab"].items()
        }

    differs = token_difference(tokenizer, changed(tokenizer, rename), responses(tokenizer))
    assert differs is not None and "im_end" in differs and "end_of_turn" in differs


def test_a_smaller_vocabulary_is_a_difference_and_no_crash(tokenizer):
    def cut(document):
        kept = {name: i for name, i in document["model"]["vocab"].items() if i < 200}
        document["model"]["vocab"], document["model"]["merges"] = kept, []

    assert token_difference(tokenizer, changed(tokenizer, cut), responses(tokenizer)) is not None


COLON = "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "has none"),
        ("{{ raise_exception('no') }}", "does not render a small conversation"),
        (COLON, "writes '<|im_start|>user: Which one?<|im_end|>"),
    ],
)
def test_another_template_is_told(tokenizer, template, says):
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    assert (template_difference(tokenizer, other) or "").startswith(says)


def test_a_template_in_other_words_is_the_same(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.chat_template = tokenizer.chat_template.replace("m['role']", "m.role") + "{# the same #}"
    assert template_difference(tokenizer, other) is None
    other.chat_template = None
    assert template_difference(other, tokenizer) is None  # plain text stays plain text
