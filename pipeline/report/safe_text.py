"""Texts of other people's made visible: nothing in them acts, and nothing in them is unseen."""

import unicodedata

_KEPT = "\n\t"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Categories of Unicode: controls, formats (bidi overrides, zero widths, tags), surrogates, unassigned, separators."""


def visible(text: str) -> str:
    r"""The text with each character that has no shape, or turns others round, as its escape: \x1b, \u202e."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in _KEPT or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in text)


def shortened(text: str, most: int) -> str:
    """The beginning of a text that is longer, and how much was left out."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most:,} characters more)"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
