"""What looks like a secret is not shown, what does not is."""

import pytest

from pipeline.redaction import redacted


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("s3://key:hunter2@bucket/x", "s3://[redacted]@bucket/x"),
        ("OPENAI_API_KEY=hunter2 judge --n 3", "OPENAI_API_KEY=[redacted] judge --n 3"),
        ("judge --api-key hunter2 --n 3", "judge --api-key [redacted] --n 3"),
        ("judge --token='hunter2 x' y", "judge --token=[redacted] y"),
        ("curl -H 'Authorization: Bearer hunter2hunter2'", "curl -H 'Authorization: [redacted]'"),
        ("https://host/x?token=hunter2&n=1", "https://host/x?token=[redacted]&n=1"),
        ("hf_" + "a1" * 12, "[redacted]"),
        ("judge sk-proj-" + "b2" * 12 + " x", "judge [redacted] x"),
        ({"password": "hunter2"}, {"password": "[redacted]"}),
        ({"aws_secret_access_key": "hunter2"}, {"aws_secret_access_key": "[redacted]"}),
        ({"a": [{"api_key": "hunter2"}, "token: hunter2"]}, {"a": [{"api_key": "[redacted]"}, "token: [redacted]"]}),
    ],
)  # fmt: skip
def test_secrets_are_taken_out(value, shown):
    assert redacted(value) == shown


@pytest.mark.parametrize(
    "value",
    [
        {"scoring": {"pack_tokens": 512}, "generate": {"max_new_tokens": 256}, "token": None},
        "lm_eval --model hf --tasks mmlu --batch_size 8",
        "judge --max-tokens 512 --tokenizer=owner/name; scoring.pack_tokens=512, author: somebody",
        "reference/model-name: owner/tokenizer-7b",
        "s3://bucket/folder",
        ["a@b", 3, 1.5, True, None],
    ],
)
def test_what_is_none_stays(value):
    assert redacted(value) == value
