"""A report as one HTML page that needs nothing: no script, no network, no file beside it.

Every text passes through `visible` and is escaped. The content policy allows the page's own style, by its hash, and
nothing else; so no element has a style attribute.
"""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.identity import document_key
from pipeline.report.content import Code, Data, Mark, Picture, Report, Sentence, Text, words
from pipeline.report.safe_text import shortened, visible
from pipeline.svg import INSTALL, can_draw
from pipeline.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

MOST_CHARACTERS = 6000  # of a text that is shown as it was written
MOST_OF_A_NAME = 300
_HEAD = 4096  # bytes, in which the page says what it is made of
_MARK_WIDTH, _MARK_ROOM = 120.0, 5.0  # of the picture of an interval, and left at either end
_FOLDER = Path(__file__).resolve().parent


def html_page(report: Report, made_of: str = "") -> bytes:
    """The page; the same report gives the same bytes. `made_of` is for `is_page_of`."""
    from markupsafe import Markup

    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    page = _environment().from_string((_FOLDER / "page.html").read_text(encoding="utf-8"))
    context: dict[str, Any] = {"can_draw": can_draw(), "install": INSTALL, "policy": content_policy(style)}
    return page.render(report=report, style=Markup(style), made_of=made_of, **context).encode()


def page_key(material: str) -> str:
    """Identity of a page that is made of this material by this version of the program, with or without figures."""
    templates = [(_FOLDER / name).read_text(encoding="utf-8") for name in ("page.html", "page.css")]
    return document_key({"material": material, "version": __version__, "draws": can_draw(), "templates": templates})


def is_page_of(path: Path, made_of: str) -> bool:
    """Whether the page is there already, so that it need not be drawn again."""
    try:
        with path.open("rb") as file:
            return f'content="{made_of}"'.encode() in file.read(_HEAD)
    except FileNotFoundError:
        return False


def content_policy(style: str) -> str:
    """What the browser may load: nothing but this style."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _environment() -> "Environment":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"text": _text, "plain": _plain, "cell": _cell, "svg": _svg, "passage": _passage}
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return environment


def _finalize(value: Any) -> Any:
    """What an expression of the template puts onto the page: text made visible; nothing is no text."""
    from markupsafe import Markup

    if value is None:
        raise ValueError("the report has nothing where it should have a text")
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _text(text: Text) -> "Markup":
    """Words as they are; what is somebody else's apart, so that its direction of writing stays its own."""
    from markupsafe import Markup

    return Markup("").join(_piece(piece) for piece in words(text))


def _piece(piece: str) -> "Markup":
    from markupsafe import Markup, escape

    if isinstance(piece, Data):
        piece = type(piece)(shortened(piece, MOST_CHARACTERS if isinstance(piece, Sentence) else MOST_OF_A_NAME))
    if isinstance(piece, Code):
        return Markup("<code>{}</code>").format(escape(visible(piece)).replace("_", Markup("_<wbr>")))
    return Markup("<bdi>{}</bdi>").format(visible(piece)) if isinstance(piece, Data) else escape(visible(piece))


def _plain(text: Text) -> str:
    return "".join(words(text))


def _passage(text: str) -> str:
    return shortened(text, MOST_CHARACTERS)


def _cell(cell: Text | Mark) -> "Markup":
    return _mark(cell) if isinstance(cell, Mark) else _text(cell)


def _svg(picture: Picture) -> "Markup":
    from markupsafe import Markup

    return Markup(picture.svg)


def _mark(mark: Mark) -> "Markup":
    """The interval as a drawing; its numbers stand beside it, so that it is hidden from screen readers."""
    from markupsafe import Markup

    low, high = mark.axis

    def x(value: float) -> str:
        place = min(max((value - low) / (high - low), 0.0), 1.0)
        return f"{_MARK_ROOM + place * (_MARK_WIDTH - 2 * _MARK_ROOM):.1f}"

    line = "" if mark.line is None else f'<path class="line" d="M{x(mark.line)} 0V14"/>'
    ring = "" if mark.beside is None else f'<circle class="ring" cx="{x(mark.beside)}" cy="7" r="3.2"/>'
    return Markup(
        f'<svg class="interval" viewBox="0 0 {_MARK_WIDTH:.0f} 14" width="120" height="14" aria-hidden="true">'
        f'<path class="axis" d="M{x(low)} 7H{x(high)}"/>{line}<path class="span" d="M{x(mark.low)} 7H{x(mark.high)}"/>'
        f'{ring}<circle class="dot" cx="{x(mark.value)}" cy="7" r="3.6"/></svg>'
    )
