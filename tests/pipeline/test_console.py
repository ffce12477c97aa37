"""Text from data files can do nothing to a terminal or a CI log; nothing is said twice."""

import logging

import pytest

from pipeline.console import printable, set_up_logging


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


def test_a_warning_is_given_once_a_command(capsys):
    """Each job of a chain looks at the same data; what is no warning may come again."""
    root = logging.getLogger()
    handlers, logger = root.handlers[:], logging.getLogger("pipeline.some")
    try:
        for _ in range(2):  # commands
            set_up_logging(0)
            for number in (1, 2, 1):
                logger.warning("%d rows rejected", number)
                logger.info("a decision")
    finally:
        root.handlers[:] = handlers
    said = ["warning: 1 rows rejected", "a decision", "warning: 2 rows rejected", "a decision", "a decision"]
    assert capsys.readouterr().err.splitlines() == said * 2
