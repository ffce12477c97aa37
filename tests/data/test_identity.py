"""Keys move with every token, mask entry and boundary, and with nothing else; digests are remembered, not trusted."""

import json
import os

import numpy as np
import pytest

from data.identity import DigestMemo, document_key, file_digest, pair_key, prompt_key, response_key, set_key

PROMPT, RESPONSE, MASK = [5, 6, 7], [8, 9, 2], [True, False, True]


def key(prompt=PROMPT, response=RESPONSE, mask=MASK, dtype=np.int32, mask_dtype=np.bool_):
    return response_key(np.array(prompt, dtype), np.array(response, dtype), np.array(mask, mask_dtype))


def test_keys_have_the_format_that_stores_were_written_with():
    assert prompt_key(np.array(PROMPT, np.int32)) == "a47af8b200795ab594ebe8b214773927fa639be79c6e65fa5500082edd655278"
    assert key() == "f1ca1498426895284f44bec7176a065a2ea1c4aacd143ba1dea1b23791db6304"
    assert pair_key(key(), key(mask=[True] * 3)) == "04657bc99aaa1c1edad19bb9c7652bfe9abe323611c23e1291180da2f8a4e59d"
    assert set_key([key(), key(mask=[True] * 3)]) == "581b882dcf0f091572d49d0df895904b146e3b888af79a0c3a71134f159cc69e"
    assert (
        document_key({"dtype": "float32", "a": [1, "é"]})
        == "5cfd50cf5d63887db9afaf1715c5545d4d56769d4024e5200db2b2eb98aa8116"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": [5, 6, 4]},
        {"prompt": [6, 5, 7]},
        {"prompt": [0, 5, 6, 7]},
        {"response": [8, 1, 2]},
        {"response": [9, 8, 2]},
        {"mask": [True, True, True]},
        {"mask": [True, True, False]},
        {"response": [8, 9, 2, 2], "mask": [*MASK, False]},
        {"response": [8, 9], "mask": MASK[:2]},
        {"prompt": [5, 6], "response": [7, 8, 9, 2], "mask": [False, *MASK]},
        {"prompt": [5, 6, 7, 8], "response": [9, 2], "mask": MASK[1:]},
        {"prompt": [], "response": PROMPT + RESPONSE, "mask": [False] * 3 + MASK},
        {"prompt": [5 + 65536, 6, 7]},
    ],
    ids=str,
)
def test_response_key_changes_with(change):
    assert key(**change) != key()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.dtype(">i4")], ids=str)
@pytest.mark.parametrize("mask_dtype", [np.bool_, np.uint8, np.int64], ids=lambda t: t.__name__)
def test_dtype_does_not_matter(dtype, mask_dtype):
    assert key(dtype=dtype, mask_dtype=mask_dtype) == key()
    assert prompt_key(np.array(PROMPT, dtype)) == prompt_key(np.array(PROMPT, np.int32))


def test_memory_layout_does_not_matter():
    spread = np.repeat(np.array(PROMPT, np.int32), 2)[::2]
    backwards = np.array(RESPONSE[::-1], np.int32)[::-1]
    assert response_key(spread, backwards, np.repeat(np.array(MASK), 3)[::3]) == key()
    assert prompt_key(spread) == prompt_key(np.array(PROMPT, np.int32))


def test_prompt_key_changes_with_every_token():
    prompts = [[], [0], [0, 0], [5, 6, 7], [7, 6, 5], [5, 6]]
    assert len({prompt_key(np.array(prompt, np.int32)) for prompt in prompts}) == len(prompts)


def test_prompt_is_never_taken_for_a_response():
    assert prompt_key(np.array([], np.int32)) != key([], [], [])


def test_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="mask has 2 entries for 3 response tokens"):
        key(mask=[True, True])


def test_pair_is_ordered_and_a_set_is_not():
    one, two = key(), key(response=[8, 9, 3])
    assert pair_key(one, two) != pair_key(two, one)
    assert set_key([one, two]) == set_key(iter([two, one]))
    assert len({set_key(keys) for keys in ([], [one], [one, one], [one, two], [one, two, two])}) == 5


def test_document_key_sees_values_and_not_the_order_of_keys():
    assert document_key({"a": 1, "b": {"c": 2, "d": 3}}) == document_key({"b": {"d": 3, "c": 2}, "a": 1})
    documents = [{}, {"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": None}, {"a": [1]}, {"b": 1}]
    assert len({document_key(document) for document in documents}) == len(documents)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def test_digest_is_of_the_bytes(tmp_path, weights):
    memo = DigestMemo(tmp_path / "memo.json")
    # printf weights | sha256sum
    assert (
        memo.digest(weights)
        == file_digest(weights)
        == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    )


def test_unchanged_file_is_not_read_again(tmp_path, weights):
    memo = tmp_path / "memo.json"
    DigestMemo(memo).digest(weights)
    memo.write_text(json.dumps(dict.fromkeys(json.loads(memo.read_text()), "remembered")))
    assert DigestMemo(memo).digest(weights) == "remembered"


def test_file_reached_through_a_link_is_not_read_again(tmp_path, weights):
    memo = tmp_path / "memo.json"
    DigestMemo(memo).digest(weights)
    memo.write_text(json.dumps(dict.fromkeys(json.loads(memo.read_text()), "remembered")))
    (tmp_path / "link").symlink_to(weights)
    assert DigestMemo(memo).digest(tmp_path / "link") == "remembered"


@pytest.mark.parametrize("content", [b"longer weights", b"WEIGHTS"], ids=["other size", "same size and time"])
def test_changed_file_is_read_again(tmp_path, weights, content):
    memo = DigestMemo(tmp_path / "memo.json")
    before, status = memo.digest(weights), weights.stat()
    other = tmp_path / "other"
    other.write_bytes(content)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(weights)
    assert memo.digest(weights) == DigestMemo(tmp_path / "memo.json").digest(weights) == file_digest(weights) != before


@pytest.mark.parametrize("torn", [b"", b'{"/model|1|2|3|4": "ab', b"\xff\xfe\x00"], ids=["empty", "cut", "not text"])
def test_torn_memo_is_forgotten_and_written_anew(tmp_path, weights, torn):
    memo = tmp_path / "memo.json"
    memo.write_bytes(torn)
    assert DigestMemo(memo).digest(weights) == file_digest(weights)
    assert list(json.loads(memo.read_text()).values()) == [file_digest(weights)]
