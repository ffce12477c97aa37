"""Text from data files can do nothing to a terminal or a CI log."""

import pytest

from pipeline.console import _LineBar, printable


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain text\nwith a tab\t", "plain text\nwith a tab\t"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("::error::stop", ": :error::stop"),
        ("fine\n  ::add-mask::x", "fine\n  : :add-mask::x"),
        ("abc\u202ecba", "abc\ufffdcba"),
        ("a\rb\x00c\u200bd", "a\ufffdb\ufffdc\ufffdd"),
        ("[/b][bold]markup[/bold]", "[/b][bold]markup[/bold]"),
        ("umlauts äöü, 漢字, emoji 🙂", "umlauts äöü, 漢字, emoji 🙂"),
    ],
)
def test_nothing_but_text_comes_out(text, safe):
    assert printable(text) == safe


def test_a_line_of_ten_megabytes_is_cut():
    assert len(printable("x" * 10_000_000)) < 5000


def test_progress_without_a_terminal_is_a_line_at_the_end_and_each_30_seconds(capsys, monkeypatch):
    now = iter([0.0, 10.0, 31.0, 31.0, 40.0, 50.0])
    monkeypatch.setattr("pipeline.console.time.monotonic", lambda: next(now))
    bar = _LineBar("reference", pairs=100, stored=20)
    bar.advance(10, 1000)  # at 10 s: quiet
    bar.advance(30, 3000)  # at 31 s: a line
    bar.advance(40, 4000)  # at 40 s: quiet
    bar.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "reference: 60/100 pairs (20 stored before), 1.3 pairs/s, 129 tokens/s, 31 s left",
        "reference: 100/100 pairs (20 stored before), 1.6 pairs/s, 160 tokens/s",
    ]
