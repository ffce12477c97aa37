"""Characters that cannot be seen, or turn others round, are seen."""

import unicodedata

import pytest

from pipeline.report.safe_text import shortened, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain <b>", "plain <b>"),
        ("line\n\ttab", "line\n\ttab"),
        ("\x1b[31mred\x00\x7f", r"\x1b[31mred\x00\x7f"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("gr\u00fcn \u4e2d \u05d0 \U0001f600", "gr\u00fcn \u4e2d \u05d0 \U0001f600"),
    ],
)
def test_what_has_no_shape_is_shown_by_its_number(text, shown):
    assert visible(text) == shown


def test_no_character_of_unicode_that_controls_anything_is_left():
    everything = "".join(map(chr, [*range(0x3000), *range(0xD700, 0x10000), *range(0xE0000, 0xE0200)]))
    left = {unicodedata.category(c) for c in visible(everything)} - {"Cc"}
    assert not left & {"Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert {c for c in visible(everything) if unicodedata.category(c) == "Cc"} == {"\n", "\t"}
    visible(everything).encode()


def test_a_long_text_says_how_much_is_missing():
    assert shortened("abc", 3) == "abc" and shortened("x" * 1234, 4) == "xxxx ... (1,230 characters more)"
