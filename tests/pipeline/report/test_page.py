"""The page: what stands where, nothing of the data that acts, the same bytes every time, whatever is missing."""

import base64
import hashlib
import html
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest

from pipeline.report.compose import compose
from pipeline.report.material import WrongPair
from pipeline.report.page import content_policy, html_page
from tests.pipeline.report.documents import HOSTILE, document, material, pairs_frame
from tests.tiny import ROOT

DRAW = """
import sys
from tests.pipeline.report.documents import material
from pipeline.report.compose import compose
from pipeline.report.page import html_page
sys.stdout.buffer.write(html_page(compose(material())))
"""
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "details", "summary", "div"),
    *("h1", "h2", "h3", "h4", "p", "ul", "li", "b", "span", "bdi", "code", "wbr", "pre", "figure", "figcaption"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "g", "path", "circle", "text", "use", "defs", "desc", "clippath", "rect"),
}


class Elements(HTMLParser):
    """Every element with its attributes, and all text outside of style."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._hidden = False
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "title") or tag == "desc"

    def handle_endtag(self, tag):
        self._hidden = False
        self.text += [" "] if tag in ("td", "th", "p", "li", "b", "h1", "h2", "h3", "figcaption") else []

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += [] if self._hidden else [data]


def page(**changes):
    return html_page(compose(material(**changes)))


def text_of(rendered: bytes) -> str:
    return " ".join("".join(Elements(rendered).text).split())


@pytest.fixture(scope="module")
def usual() -> bytes:
    return page()


@pytest.fixture(scope="module")
def hostile() -> bytes:
    return page(text=HOSTILE)


def test_the_verdict_comes_first_then_the_gates_what_failed_before_what_passed(usual):
    text = text_of(usual)
    said = ("Failed", "1 of 3 gates failed", "night-7", "drift is 0.130; at most 0.05 is wanted",
            "reward_accuracy dropped by 0.040", "at least 0.6 is wanted", "Against the baseline night-6",
            "What this cannot see", "ranking accuracy")  # fmt: skip
    places = [text.index(words) for words in said]
    assert places == sorted(places)


def test_a_verdict_is_told_by_a_word_and_a_shape(usual):
    judged = re.findall(
        r'<li class="judged (\w+)"><b>\s*<svg.*?(<path|<circle).*?</svg>(\w+)</b>', usual.decode(), re.S
    )
    assert [(kind, word) for kind, _, word in judged] == [(w, w) for w in ("failed", "inconclusive", "passed")]
    shapes = re.findall(r'<li class="judged.*?<svg[^>]*>(.*?)</svg>', usual.decode(), re.S)
    assert len(set(shapes)) == 3


def test_what_a_test_cannot_see_is_said(usual):
    text = text_of(usual)
    assert "a true change of reward_accuracy by 0.085 shows in 80 of 100 cases" in text
    assert "another training seed gives another policy, and that noise is unknown here" in text
    known = text_of(page(document=document() | {"seed_sd": {"reward_accuracy": 0.004}}))
    assert "reward_accuracy 0.004 (standard deviations, eval.seed_sd)" in known and "unknown here" not in known


def test_reward_accuracy_is_not_sold_as_an_improvement(usual):
    assert "Reward accuracy is 0.5 by definition for an untrained policy" in text_of(usual)


def test_without_gates_nothing_is_judged():
    rendered = page(document=document() | {"gates": [], "verdict": "passed"})
    assert "Not judged no gate is set" in text_of(rendered) and b'class="word">Not judged' in rendered


def test_only_its_own_elements_stand_on_the_page_whatever_the_data_say(usual, hostile):
    for rendered in (usual, hostile):
        elements = Elements(rendered).found
        assert {tag for tag, _ in elements} <= ELEMENTS
        attributes = {name for _, attributes in elements for name in attributes}
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "action")]
        assert all(
            (value or "").startswith("#") for _, found in elements for name, value in found.items() if name == "href"
        )
        assert sum(tag == "style" for tag, _ in elements) == 1
    folded = [
        [tag for tag, _ in Elements(rendered).found if tag in ("section", "details")] for rendered in (usual, hostile)
    ]
    assert folded[0] == folded[1]


def test_what_others_wrote_is_there_to_be_read(hostile):
    readable = '<script>window.pwned = 1</script>"><img src=x onerror=window.pwned=1> ]]> </style></title></pre>'
    text = html.unescape(hostile.decode())
    assert text.count(readable) > 30  # names, values, samples, texts, settings
    for escape in (r"\u202e", r"\x00", r"\x1b", r"\u2066", r"\u2028", r"\u200b", r"\ud800"):
        assert escape in text
    assert not set(text) & set("\u202e\x00\x1b\u2066\u2028\u200b\ud800")
    assert "{{ 7*7 }}" in text and "{% raw %}" in text


def test_the_policy_allows_the_pages_own_style_by_its_hash_and_nothing_else(usual):
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', usual.decode())
    (style,) = re.findall(r"<style>(.*?)</style>", usual.decode(), re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = html.unescape(policy)
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert policy == content_policy(style) and "unsafe" not in policy
    assert usual.index(b"Content-Security-Policy") < usual.index(b"<style>")
    assert b'<meta name="referrer" content="no-referrer">' in usual


def test_nothing_of_it_lies_on_the_network(usual):
    assert b"http://" not in usual and b"https://" not in usual and b"url(" not in re.sub(rb"url\(#", b"", usual)


def test_another_process_writes_the_same_bytes(usual):
    elsewhere = os.environ | {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=ROOT, env=elsewhere, capture_output=True)
    assert done.stdout == usual, done.stderr


@pytest.fixture
def no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_page_has_its_tables_and_a_sentence():
    rendered = page()
    text = text_of(rendered)
    assert "Figures are left out, because matplotlib is not installed (pip install" in text
    assert b'class="picture"' not in rendered and b'class="interval"' in rendered and "0.538 to 0.747" in text


OPTIONAL = ("coverage", "leakage", "slices", "reliability", "length_strata", "reference_report", "external",
            "comparisons", "reference", "policy", "objective", "beta", "seed_sd", "identity", "n_prompts")  # fmt: skip


def test_all_but_metrics_and_pairs_may_be_missing():
    bare = {key: value for key, value in document().items() if key not in OPTIONAL}
    alone = page(
        document=bare,
        generations=None,
        steps=[],
        configuration=None,
        jobs={},
        costs={},
        settings={},
        stack={},
        wrong=[],
    )
    text = text_of(alone)
    assert "1 of 3 gates failed" in text and "ranking accuracy" in text and "Margins of the held-out pairs" in text
    for missing in (
        "Training",
        "Cost",
        "Data",
        "Comparisons",
        "Accuracy by slice",
        "Most wrong pairs",
        "The reference",
    ):
        assert f"<h2>{missing}</h2>".encode() not in alone


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize("missing", [*OPTIONAL[:8], "generations", "steps", "jobs"])
def test_each_part_may_be_missing(missing):
    found = document()
    if missing in found:
        del found[missing]
        assert page(document=found)
    else:
        assert page(**{missing: None if missing == "generations" else {"steps": [], "jobs": {}}[missing]})


def test_without_a_reference_there_are_rankings():
    nothing = ("ref_chosen_logps", "ref_rejected_logps", "chosen_reward", "rejected_reward", "margin")
    pairs = pairs_frame().with_columns(**dict.fromkeys(nothing, pl.lit(None, pl.Float64)))
    found = document() | {"reference": None, "reliability": [], "length_strata": [], "comparisons": []}
    found["metrics"] = {"ranking_accuracy": 0.7, "ranking_accuracy_low": 0.6, "ranking_accuracy_high": 0.8, "loss": 0.5}
    text = text_of(page(document=found, pairs=pairs))
    assert "ranking accuracy 0.700 0.600 to 0.800" in " ".join(text.split()) and "Reward accuracy is 0.5" not in text


@pytest.mark.usefixtures("no_matplotlib")
def test_texts_of_pairs_and_samples_are_shown_only_where_they_were_asked_for():
    shown = page()
    assert b"How many times?" in shown and b"It jumps over the dog." in shown
    private = page(settings={"show_pairs": 0}, wrong=[])
    assert b"How many times?" not in private and b"It jumps" not in private and b"generations.parquet" in private


def test_secrets_of_the_configuration_are_left_out(usual):
    assert b"hunter2" not in usual and usual.count(b"[redacted]") == 2


@pytest.mark.usefixtures("no_matplotlib")
def test_a_long_text_is_cut_and_says_so():
    rendered = page(wrong=[WrongPair("a:1", "00", -1.0, "x" * 50_000, "y", "z")])
    assert b"x" * 6001 not in rendered and b"... (44,000 characters more)" in rendered


@pytest.mark.usefixtures("no_matplotlib")
def test_a_missing_text_is_a_mistake_and_no_word():
    with pytest.raises(ValueError, match="nothing where it should have a text"):
        html_page(replace(compose(material()), verdict_words=None))
