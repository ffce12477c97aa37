"""The picture of a sweep: held-out accuracy against drift, as an SVG that is the same to the last byte every time."""

import logging
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.svg import ACCENT, FAINT, GREY, INK, INSTALL, PALE, can_draw, drawing, svg_of
from pipeline.sweep.labels import Box, place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 8.0  # of text, in points
_JOIN = {"arrowstyle": "-", "color": PALE, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3}
_VEIL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
_LINE = 110  # characters of a line of the caption
_NEAR = 10.0  # points between mark and name, from where on a line joins them
_LEFT, _RIGHT = 0.15, 0.28  # room beside the marks, as shares of what they span; names begin on the right
_WIDE = 6.0  # times the smallest drift, from where on the axis is logarithmic

logger = logging.getLogger(__name__)


def picture(document: dict[str, Any]) -> bytes | None:
    """The SVG; None where matplotlib is not installed, or no setting has a drift."""
    shown = [setting for setting in document["settings"] if _has_drift(setting)]
    if not shown:
        return None
    if not can_draw():
        logger.info("no picture was drawn, for want of matplotlib: %s", INSTALL)
        return None
    with drawing("sweep", {"font.size": _SIZE}):
        return _svg(document, shown)


def _svg(document: dict[str, Any], shown: Sequence[dict[str, Any]]) -> bytes:
    from matplotlib.figure import Figure

    chosen = None if document["choice"] is None else document["settings"][document["choice"]["setting"]]
    figure = Figure(figsize=(7.2, 4.6), dpi=72)  # so that a pixel is a point
    axes = figure.add_axes((0.085, 0.215, 0.895, 0.765))
    _frame(axes, shown, document["metric"].replace("_", " "))
    for setting in shown:
        _mark(axes, setting, chosen=setting is chosen)
    _label(axes, shown, chosen)
    figure.text(0.085, 0.105, _caption(document, shown), color=GREY, va="top", linespacing=1.4)
    return svg_of(figure)


def _frame(axes: "Axes", shown: Sequence[dict[str, Any]], metric: str) -> None:
    from matplotlib.ticker import LogLocator

    drifts = [setting["held_out"]["drift"] for setting in shown]
    least, most = min(drifts), max(drifts)
    if least > 0 and most >= _WIDE * least:
        ratio = most / least
        axes.set_xscale("log", subs=[])
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.set_xlim(least / ratio**_LEFT, most * ratio**_RIGHT)
    else:
        span = most - least or 2 * most or 1.0
        axes.set_xlim(least - _LEFT * span, most + _RIGHT * span)
    low = min(setting["held_out"]["low"] for setting in shown)
    high = max(setting["held_out"]["high"] for setting in shown)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("drift: mean of |log pi - log ref| a token, in nats")
    axes.set_ylabel(f"held-out {metric}")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _mark(axes: "Axes", setting: dict[str, Any], *, chosen: bool) -> None:
    held_out = setting["held_out"]
    x = held_out["drift"]
    bar, face, edge, size = (ACCENT, ACCENT, ACCENT, 6.5) if chosen else (PALE, "white", INK, 4.5)
    axes.plot([x, x], [held_out["low"], held_out["high"]], color=bar, linewidth=0.9, solid_capstyle="butt", zorder=2)
    axes.plot([x], [held_out["value"]], "o", markersize=size, markerfacecolor=face, markeredgecolor=edge, zorder=3)


def _label(axes: "Axes", shown: Sequence[dict[str, Any]], chosen: dict[str, Any] | None) -> None:
    """A name beside each mark, with a thin line to it where it had to go further away."""
    marks, bars = [], []
    for held_out in (setting["held_out"] for setting in shown):
        heights = [(held_out["drift"], held_out[name]) for name in ("low", "value", "high")]
        (x, low), (_, value), (_, high) = axes.transData.transform(heights).tolist()
        marks.append((x, value))
        bars.append(Box(x - 1, low, x + 1, high))
    names = _names(shown)
    sizes = [(0.58 * _SIZE * len(name), 1.3 * _SIZE) for name in names]  # of most typefaces
    frame = Box(*axes.transAxes.transform([(0, 0), (1, 1)]).ravel().tolist())
    labels = place_labels(marks, sizes, bars, frame)
    for setting, name, (x, y), (box, to_the_right, distance) in zip(shown, names, marks, labels, strict=True):
        end, side = (box.left, "left") if to_the_right else (box.right, "right")
        axes.annotate(
            name,
            (setting["held_out"]["drift"], setting["held_out"]["value"]),
            (end - x, (box.bottom + box.top) / 2 - y),
            textcoords="offset points",
            ha=side,
            va="center",
            color=ACCENT if setting is chosen else INK,
            weight="bold" if setting is chosen else "normal",
            bbox=_VEIL,
            arrowprops=_JOIN if distance > _NEAR else None,
        )


def _names(shown: Sequence[dict[str, Any]]) -> list[str]:
    """Of each setting what tells it from the others."""
    told = {"objective_name": "{}", "beta": "\u03b2 {:g}", "learning_rate": "lr {:g}"}
    varied = [key for key in told if len({setting[key] for setting in shown}) > 1] or ["objective_name"]
    return [" ".join(told[key].format(setting[key]) for key in varied) for setting in shown]


def _caption(document: dict[str, Any], shown: Sequence[dict[str, Any]]) -> str:
    text = f"95 % intervals, {document['n_held_out_pairs']} held-out pairs."
    if document["choice"] is not None:
        text += " Filled: chosen on the dev pairs."
    left_out = [setting for setting in document["settings"] if setting["held_out"] and setting not in shown]
    if left_out:
        names = ", ".join(dict.fromkeys(setting["objective_name"] for setting in left_out))
        text += f" Not shown, because without a reference there is no drift: {names}."
    return textwrap.fill(text, _LINE)


def _has_drift(setting: dict[str, Any]) -> bool:
    return setting["held_out"] is not None and setting["held_out"]["drift"] is not None
