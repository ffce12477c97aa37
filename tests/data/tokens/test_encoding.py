"""However a conversation is encoded, its ids are those of the whole text."""

import random
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken, normalizers, pre_tokenizers

from data.tokens.encoding import Encoder

PROMPTS = [
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n  Why,  fox? <|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWhy?<|im_end|>",
    "plain text without a special token, and a space at its end ",
    "jumps o",
    "<|im_start|>assistant\nov",
    "",
]
RESPONSES = ["The fox jumps.<|im_end|>\n", " over the dog", "er", "", "\n\n", "é\U0001f600 12<|endoftext|>x"]


def whole(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def variants(tokenizer_with):
    """Tokenizers that treat the start of a piece of text in different ways."""
    yield tokenizer_with()
    yield tokenizer_with(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))
    for scheme in ("first", "always", "never"):
        yield tokenizer_with(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme=scheme))
    yield tokenizer_with(normalizer=normalizers.Prepend("x"))
    yield tokenizer_with(normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()]))
    stripping = tokenizer_with()
    stripping.add_tokens([AddedToken("<|mid|>", special=True, normalized=False, lstrip=True, rstrip=True)])
    yield stripping
    folded = tokenizer_with(normalizer=normalizers.Lowercase())
    folded.add_tokens([AddedToken("<|IM_SEP|>", special=True, normalized=True)])
    yield folded
    nested = tokenizer_with()
    nested.add_tokens([AddedToken("<|mid|>and", special=True), AddedToken("<|mid|>", special=True)])
    yield nested
    whole_words = tokenizer_with()
    whole_words.add_tokens([AddedToken("assistant", special=True, single_word=True, normalized=False)])
    yield whole_words


@pytest.mark.parametrize("probes", [0, 16])
def test_ids_are_those_of_the_whole_text(tokenizer_with, probes):
    """Also where no probe would notice that they are not."""
    marks = ["<|mid|>", " <|mid|>", "<|IM_SEP|>", "<|im_sep|>"]
    for tokenizer in variants(tokenizer_with):
        encoder = Encoder(tokenizer)
        encoder._probes = probes
        prompts = [*PROMPTS, *(f"{prompt} {mark} and" for prompt in PROMPTS for mark in marks)]
        found = encoder.conversations([(prompt, RESPONSES) for prompt in prompts])
        for prompt, (prompt_ids, responses) in zip(prompts, found, strict=True):
            assert prompt_ids == whole(tokenizer, prompt)
            for text, encoded in zip(RESPONSES, responses, strict=True):
                joint = whole(tokenizer, prompt + text)
                assert encoded.joined is (joint[: len(prompt_ids)] == prompt_ids)
                assert encoded.ids == (joint[len(prompt_ids) :] if encoded.joined else whole(tokenizer, text))


def test_a_tokenizer_that_looks_across_its_special_tokens_is_encoded_whole(tokenizer_with):
    """Here a piece of text depends on what stands before the special token: only the probe can tell."""
    tokenizer = tokenizer_with()
    encoder = Encoder(tokenizer)

    class Depends:
        """Other ids for a text with a question in it."""

        def encode_batch_fast(self, texts, **_):
            return [SimpleNamespace(ids=[i + ("Why" in text) for i in whole(tokenizer, text)]) for text in texts]

    encoder._backend = Depends()
    ((_, (encoded,)),) = encoder.conversations([(PROMPTS[0], ["The fox."])])
    assert encoded.ids == [i + 1 for i in whole(tokenizer, "The fox.")]
    assert encoder._cuts is None


def test_offsets_are_places_in_the_response(tokenizer_with):
    chance = random.Random(3)
    for tokenizer in variants(tokenizer_with):
        for prompt in PROMPTS:
            text = "".join(chance.choices("The fox, 12 times\n", k=30)) + "<|im_end|>\n"
            encoded, offsets = Encoder(tokenizer).with_offsets(prompt, text)
            starts = [start for start, _ in offsets]
            assert starts == sorted(starts) and len(starts) == len(encoded.ids)
            place = encoded.ids.index(2)
            assert text[slice(*offsets[place])].strip() == "<|im_end|>"


def test_a_piece_is_encoded_once(tokenizer):
    encoder, seen = Encoder(tokenizer), []
    encoder.conversations([(PROMPTS[0], ["Once."])] * 20)

    class Counting:
        def encode_batch_fast(self, texts, **_):
            seen.extend(texts)
            return [SimpleNamespace(ids=whole(tokenizer, text)) for text in texts]

    encoder._backend = Counting()
    encoder.conversations([(PROMPTS[1], ["Once.", "Twice."])] * 3)
    encoder.conversations([(PROMPTS[1], ["Twice.", "Once."])])
    head = "<|im_start|>assistant\n"
    assert sorted(seen) == sorted(["<|im_start|>system\nBe brief.", "<|im_start|>user\n  Why,  fox? ", f"{head}Twice."])


def test_no_piece_is_lost_when_the_memory_is_full(tokenizer, monkeypatch):
    monkeypatch.setattr("data.tokens.encoding._KEPT", 3)
    encoder = Encoder(tokenizer)
    for i in range(20):
        ((ids, (encoded,)),) = encoder.conversations([(PROMPTS[0], [f"Answer {i}."])])
        assert ids + encoded.ids == whole(tokenizer, f"{PROMPTS[0]}Answer {i}.")
    assert len(encoder._known) < 10


def test_truncation_and_padding_of_the_tokenizer_do_not_matter(tokenizer_with):
    tokenizer = tokenizer_with()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    ((prompt_ids, (encoded,)),) = Encoder(tokenizer).conversations([(PROMPTS[0], ["The fox jumps over the dog."])])
    assert len(prompt_ids) > 4 and 4 < len(encoded.ids) < 40


@pytest.mark.parametrize("texts", [[], [(PROMPTS[0], [])]])
def test_nothing_is_encoded_to_nothing(tokenizer, texts):
    assert [len(responses) for _, responses in Encoder(tokenizer).conversations(texts)] == [0] * len(texts)
