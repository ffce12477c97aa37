"""A picture on a page: no styles, colours by class, names that do not collide, text that stays text."""

import re
from xml.etree import ElementTree

from pipeline.report.figures import curve, margin_histogram, reliability_curve, reward_scatter
from pipeline.report.inline_svg import inline_svg
from stages.metrics.calibration import reliability
from tests.pipeline.report.documents import pairs_frame

SVG = b"""<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 10 20" xmlns="http://www.w3.org/2000/svg">
<metadata>2026</metadata><defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
<g id="figure_1"><defs><path id="m1" d="M 0 0
L 1 1" style="stroke: #2f3a47"/></defs><use xlink:href="#m1" style="fill: #b4bfcc; stroke: #123456"/>
<path clip-path="url(#p1)" d="M 0 0"/><text style="font: bold 9px 'DejaVu Sans', sans-serif; text-anchor: middle"
transform="rotate(-0 1 1)">a &lt; b</text></g><defs><clipPath id="p1"><rect width="1"/></clipPath></defs></svg>"""


def drawn():
    pairs = pairs_frame()
    bins = reliability(pairs["margin"].to_numpy())
    line = ("training", [1, 2, 3], [0.1, 0.2, 0.3], "first")
    curves = curve("a", "A", "unit", [line]), curve("b", "B", "unit", [line])
    return [*margin_histogram(pairs), *reward_scatter(pairs), *reliability_curve(bins), *curves[0], *curves[1]]


def test_styles_become_attributes_and_classes():
    found = inline_svg(SVG, "n", "a <title>", "words & more")
    ElementTree.fromstring(found)
    assert "style" not in found and "2026" not in found and "xlink" not in found and "figure_1" not in found
    assert '<path id="n-m1" d="M 0 0 L 1 1" stroke="#2f3a47" class="stroke-ink">' in found
    assert '<use href="#n-m1" fill="#b4bfcc" stroke="#123456" class="fill-pale">' in found
    assert 'clip-path="url(#n-p1)"' in found and '<clipPath id="n-p1">' in found
    assert '<text font-size="9px" font-weight="700" text-anchor="middle">a &lt; b</text>' in found
    assert 'role="img" aria-labelledby="n-title n-text"' in found
    assert '<title id="n-title">a &lt;title&gt;</title><desc id="n-text">words &amp; more</desc>' in found


def test_no_two_figures_share_a_name_and_every_name_that_is_meant_is_there():
    page = "".join(picture.svg for picture in drawn())
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names)) > 10
    meant = {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)}
    assert meant and meant <= set(names)
    assert "style=" not in page and "<style" not in page and "http" not in page


def test_a_figure_tells_those_who_do_not_see_what_it_shows():
    histogram, scatter, curve_of_bins, *_, line = (picture.description for picture in drawn())
    assert re.search(r"77 margins, from -0\.\d+ to \d\.\d+ with a median of 0\.\d+; \d+\.\d% are below 0", histogram)
    assert "above the line" in scatter and "sure" in curve_of_bins and "training from 0.1 to 0.3" in line


def test_a_bin_of_the_histogram_begins_at_0():
    import numpy as np

    from pipeline.report.figures import _edges

    for values in ([-0.31, 0.47, 0.9], [0.2, 0.9], [-3.0, -1.0], [0.0, 0.0], [0.5], [-0.5, -0.5]):
        edges = np.array(_edges(np.array(values)))
        inside = edges[0] <= min(values) and max(values) <= edges[-1]
        assert inside and len(edges) < 60 and (np.abs(edges).min() < 1e-12 or min(values) * max(values) > 0)


def test_values_that_are_no_numbers_are_left_out():
    import polars as pl

    broken = pairs_frame(20).with_columns(margin=pl.lit(float("nan")), chosen_reward=pl.lit(float("inf")))
    assert margin_histogram(broken) == [] and reward_scatter(broken) == []


def test_many_pairs_make_no_larger_picture():
    (few,), (many,) = (reward_scatter(pairs_frame(n)) for n in (1000, 30_000))
    assert "1,000 of 30,000 pairs" in many.title and "of" not in few.title
    assert len(many.svg) < 1.2 * len(few.svg)
