"""A picture of matplotlib's as a part of the page: no style that a strict content policy would block, colours by class.

Styles become attributes, which are no styles to a content policy. A colour becomes a class too, so that the page gives
it another value in the dark; fonts are the page's. Names of parts that nothing refers to are dropped, the others get
the picture's name in front, because all pictures share one page.
"""

import re
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from pipeline.svg import ACCENT, FAINT, GREY, INK, PALE

SECOND = "#1f5fa8"
"""A second series beside ACCENT; they differ in lightness and in marks, too."""

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_CLASSES = {INK: "ink", GREY: "grey", PALE: "pale", FAINT: "faint", ACCENT: "accent", SECOND: "second"}
_DROPPED = {"font-family", "font-style", "font-variant", "font-stretch"}
_REFERENCE = re.compile(r"(?:url\(#|^#)([\w.-]+)\)?")


def inline_svg(svg: bytes, name: str, title: str, description: str) -> str:
    """The element to put into the page; `name` is unique on it, title and description are for screen readers."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = root.attrib["viewBox"].split()
    named = {
        found.group(1)
        for element in root.iter()
        for key, value in element.attrib.items()
        if key != "id" and (found := _REFERENCE.search(value))
    }
    head = (
        f'<svg class="picture" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-labelledby="{name}-title {name}-text" stroke-linejoin="round" stroke-linecap="butt">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>'
    )
    return head + "".join(_written(child, name, named) for child in root) + "</svg>"


def _written(element: ElementTree.Element, name: str, named: set[str]) -> str:
    tag = element.tag.removeprefix(_SVG)
    if tag in ("metadata", "style") or (tag == "defs" and not len(element)):
        return ""
    inner = (element.text or "").strip("\n") if tag == "text" else ""
    inner += "".join(_written(child, name, named) for child in element)
    if tag in ("g", "defs") and not inner:
        return ""
    attributes = "".join(f" {key}={quoteattr(value)}" for key, value in _attributes(element, name, named).items())
    return f"<{tag}{attributes}>{escape(inner) if tag == 'text' else inner}</{tag}>"


def _attributes(element: ElementTree.Element, name: str, named: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in element.attrib.items():
        if key == "id":
            found |= {"id": f"{name}-{value}"} if value in named else {}
        elif key == "style":
            found |= _presentation(value)
        else:
            found[key.removeprefix(_XLINK)] = _REFERENCE.sub(lambda match: _renamed(match, name), value)
    if "d" in found:
        found["d"] = " ".join(found["d"].split())
    if found.get("transform", "").startswith("rotate(-0 "):
        del found["transform"]
    return found


def _renamed(match: re.Match[str], name: str) -> str:
    return match.group(0).replace(match.group(1), f"{name}-{match.group(1)}")


def _presentation(style: str) -> dict[str, str]:
    """Declarations as attributes, and a class for each colour that the page knows."""
    found: dict[str, str] = {}
    classes = []
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in _DROPPED or not key:
            continue
        if key == "font":
            found |= _font(value)
            continue
        found[key] = value
        if key in ("fill", "stroke") and value in _CLASSES:
            classes.append(f"{key}-{_CLASSES[value]}")
    return found | ({"class": " ".join(classes)} if classes else {})


def _font(value: str) -> dict[str, str]:
    """Size and weight of the short form, `bold 9px 'DejaVu Sans', ...`."""
    size = re.search(r"([\d.]+px)", value)
    bold = re.match(r"(bold|[6-9]00)\b", value)
    return ({"font-size": size.group(1)} if size else {}) | ({"font-weight": "700"} if bold else {})
