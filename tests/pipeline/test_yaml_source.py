"""YAML of configurations: what is written is read as the same."""

import pytest
import yaml

from pipeline.yaml_source import dump_yaml, load_yaml

TEXTS = (
    *("12e5", "5e-7", "1e3", ".5", "1.", "+7", "-0", "0123", "0x1f", "1_000", "-.inf", ".NaN", "12:30", "2026-11-27"),
    *(
        "yes",
        "null",
        "~",
        "",
        "a: b",
        "a #b",
        "# c",
        "- d",
        "two\nlines",
        " e ",
        "'",
        "*f",
        "&g",
        "!h",
        "\u2028",
        "naïve",
    ),
)
VALUES = (0, -3, 1e-7, 5e-07, 1e22, 0.1, float("inf"), True, None, [], {}, [1, {"a": ["12e5"]}])


@pytest.mark.parametrize("style", [{}, {"default_flow_style": True}])
@pytest.mark.parametrize("value", [*TEXTS, *VALUES], ids=repr)
def test_what_is_written_is_read_as_the_same(value, style, tmp_path):
    document = {"key": value, "list": [value]} | ({value: 1} if isinstance(value, str) else {})
    (tmp_path / "file.yaml").write_text(dump_yaml(document, **style), encoding="utf-8")
    read, _ = load_yaml(tmp_path / "file.yaml")
    assert read == document and [*map(type, read.values())] == [*map(type, document.values())]


@pytest.mark.parametrize("text", TEXTS)
def test_other_readers_take_a_text_for_a_text(text):
    assert yaml.safe_load(dump_yaml({"key": text})) == {"key": text}


def test_keys_stand_in_their_order():
    assert dump_yaml({"b": 1, "a": 2}) == "b: 1\na: 2\n"
