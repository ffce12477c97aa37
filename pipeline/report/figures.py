"""The figures of a report: what is seen at once in a picture and in no table. None has a word of the data in it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.report.content import Picture
from pipeline.report.inline_svg import SECOND, inline_svg
from pipeline.svg import ACCENT, FAINT, GREY, INK, PALE, can_draw, drawing, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = 10.5  # of text, in points, which are pixels of the page
_WIDTH, _HEIGHT = 336.0, 222.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 12.0, 38.0  # points around the frame
MOST_DOTS = 1000  # pairs of a scatter; more make a large file and a blot

logger = logging.getLogger(__name__)


def margin_histogram(pairs: pl.DataFrame) -> list[Picture]:
    """How far apart the policy has the two sides of each pair."""
    margins = _finite(pairs["margin"])
    if not can_draw() or not len(margins):
        return []
    wrong = float((margins < 0).mean())
    title = "Margins of the held-out pairs"
    description = (
        f"Histogram of {len(margins):,} margins, from {margins.min():.3g} to {margins.max():.3g} with a median of "
        f"{np.median(margins):.3g}; {wrong:.1%} are below 0."
    )
    with _figure("margins") as (figure, axes):
        edges = _edges(margins)
        for side, color in ((margins < 0, ACCENT), (margins >= 0, SECOND)):
            if side.any():
                axes.hist(margins[side], bins=edges, color=color, rwidth=0.9)
        axes.axvline(0, color=INK, linewidth=0.8)
        _label(axes, "margin: reward of chosen less rejected", "pairs")
        _whole_numbers(axes)
        return [_picture(figure, "margins", title, description)]


def reward_scatter(pairs: pl.DataFrame) -> list[Picture]:
    """The rewards of both sides against each other: above the line the rejected one is preferred."""
    rewards = (
        pairs.select("chosen_reward", "rejected_reward").drop_nulls().filter(pl.all_horizontal(pl.all().is_finite()))
    )
    if not can_draw() or rewards.is_empty():
        return []
    shown = rewards if rewards.height <= MOST_DOTS else rewards[_evenly(rewards.height, MOST_DOTS)]
    chosen, rejected = (shown[name].to_numpy() for name in rewards.columns)
    which = "" if shown.height == rewards.height else f", {shown.height:,} of {rewards.height:,} pairs"
    description = (
        f"A dot for each pair{which}. Chosen responses have rewards around {np.median(chosen):.3g}, rejected ones "
        f"around {np.median(rejected):.3g}; {float((rejected > chosen).mean()):.1%} of the dots are above the line."
    )
    with _figure("rewards") as (figure, axes):
        low, high = _span(np.concatenate([chosen, rejected]))
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.8)
        wrong = rejected > chosen
        dots: dict[str, Any] = {"markersize": 4, "linestyle": "none", "markeredgewidth": 0.8}
        axes.plot(chosen[~wrong], rejected[~wrong], "o", color=SECOND, alpha=0.6, **dots)
        axes.plot(chosen[wrong], rejected[wrong], "x", color=ACCENT, **dots)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        _label(axes, "reward of chosen", "reward of rejected")
        return [_picture(figure, "rewards", f"Chosen against rejected reward{which}", description)]


def reliability_curve(bins: Sequence[dict[str, Any]]) -> list[Picture]:
    """How often the policy is right when it is so sure."""
    if not can_draw() or not bins:
        return []
    told = "; ".join(f"{row['confidence']:.2f} sure, {row['accuracy']:.2f} right ({row['n']:,})" for row in bins)
    with _figure("reliability") as (figure, axes):
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=0.8)
        sure, right = ([row[name] for row in bins] for name in ("confidence", "accuracy"))
        axes.plot(sure, right, color=SECOND, linewidth=1.2)
        most = max(row["n"] for row in bins)
        for row in bins:
            size = 3.0 + 6.0 * (row["n"] / most) ** 0.5
            axes.plot([row["confidence"]], [row["accuracy"]], "o", color=SECOND, markersize=size)
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(min(0.48, *right) - 0.02 if right else 0.48, 1.03)
        _label(axes, "how sure: sigmoid of the margin", "share that is right")
        return [_picture(figure, "reliability", "Reliability; a dot's size is its pairs", f"Bins: {told}.")]


Series = tuple[str, Sequence[float], Sequence[float], str]
"""Name, steps, values, and how it is drawn: `first`, `second` or `dots`."""


def curve(name: str, title: str, unit: str, series: Sequence[Series]) -> list[Picture]:
    """Lines over the steps of training, and dots where dev pairs were looked at."""
    drawn = [one for one in series if len(one[1])]
    if not can_draw() or not drawn:
        return []
    told = "; ".join(f"{label} from {values[0]:.4g} to {values[-1]:.4g}" for label, _, values, _ in drawn)
    looks: dict[str, dict[str, Any]] = {
        "first": {"color": SECOND, "linewidth": 1.3},
        "second": {"color": ACCENT, "linewidth": 1.3, "linestyle": (0, (4, 2))},
        "dots": {"color": INK, "marker": "o", "markersize": 4, "linestyle": "none"},
    }
    with _figure(name) as (figure, axes):
        for label, steps, values, how in drawn:
            look = looks[how] | ({"marker": "o", "markersize": 3} if len(steps) == 1 else {})
            axes.plot(steps, values, label=label, **look)
        if len(drawn) > 1:
            axes.legend(loc="best", frameon=False, fontsize=_SIZE - 1, handlelength=1.8, labelcolor=INK)
        _label(axes, "optimiser step", unit)
        _whole_numbers(axes, "x")
        return [_picture(figure, name, title, f"Over the steps of training: {told}.")]


@contextmanager
def _figure(name: str) -> Iterator[tuple["Figure", "Axes"]]:
    from matplotlib.figure import Figure

    with drawing(name, {"font.size": _SIZE, "axes.unicode_minus": True}):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72, facecolor="none")  # a pixel is a point
        width, height = 1 - (_LEFT + _RIGHT) / _WIDTH, 1 - (_TOP + _BOTTOM) / _HEIGHT
        axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, width, height), facecolor="none")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
        yield figure, axes


def _label(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x, color=GREY)
    axes.figure.text(4 / _WIDTH, 1 - (_TOP - 2) / _HEIGHT, y, color=GREY, va="bottom")  # a title would cost a layout
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_tick)
        axis.set_tick_params(length=3, width=0.6, color=PALE)


def _tick(value: float, _: float) -> str:
    return f"{value:,.6g}".replace("-", "\u2212")


def _whole_numbers(axes: "Axes", which: str = "y") -> None:
    from matplotlib.ticker import MaxNLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _picture(figure: "Figure", name: str, title: str, description: str) -> Picture:
    return Picture(name, title, description, inline_svg(svg_of(figure), name, title, description))


def _finite(values: pl.Series) -> Any:
    found = values.drop_nulls().to_numpy()
    return found[np.isfinite(found)]


def _edges(values: Any) -> list[float]:
    """Of bins of one width, one of which begins at 0."""
    width = float(values.max() - values.min()) / np.clip(1.5 * np.sqrt(len(values)), 6, 40) or 0.1
    first, last = np.floor(values.min() / width), np.floor(values.max() / width) + 1
    return (np.arange(first, last + 1) * width).tolist()  # type: ignore[no-any-return]


def _evenly(n: int, most: int) -> Any:
    """Places spread over n rows: their order, by key, has nothing to do with what they hold."""
    return np.linspace(0, n - 1, most).astype(np.int64)


def _span(values: Any) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room
