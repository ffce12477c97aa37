"""Pictures by matplotlib as SVG, the same to the last byte every time; what is text stays text."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GREY, PALE, FAINT, ACCENT = "#2f3a47", "#6b7785", "#b4bfcc", "#eceff3", "#c2410c"
INSTALL = "pip install 'offline-preference-pipeline[plot]'"
"""Where matplotlib is missing."""

_STYLE = {
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "axes.linewidth": 0.6,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": GREY,
}
_TIMELESS = {"Date": None, "Creator": None, "Format": None, "Type": None}


def can_draw() -> bool:
    """Whether matplotlib, which is an extra, is there."""
    return find_spec("matplotlib") is not None


@contextmanager
def drawing(salt: str, changes: Mapping[str, Any]) -> Iterator[None]:
    """The style in which pictures are made and written; `salt` goes into the names of their parts."""
    from matplotlib import style

    with style.context(["default", {**_STYLE, "svg.hashsalt": salt, **changes}]):
        yield


def svg_of(figure: "Figure") -> bytes:
    """The picture as a file of its own; within `drawing`."""
    written = io.BytesIO()
    figure.savefig(written, format="svg", metadata=_TIMELESS)
    text = written.getvalue()
    return text[: text.index(b"<!DOCTYPE")] + text[text.index(b"<svg") :]  # a document type is an address
