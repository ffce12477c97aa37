"""Text from data files can do nothing to a terminal or a CI log."""

import pytest

from pipeline.console import printable


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain text\nwith a tab\t", "plain text\nwith a tab\t"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("::error::stop", ": :error::stop"),
        ("fine\n  ::add-mask::x", "fine\n  : :add-mask::x"),
        ("so ##[error]stop and ##vso[task.x]y, ## [no]", "so # #[error]stop and # #vso[task.x]y, ## [no]"),
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
