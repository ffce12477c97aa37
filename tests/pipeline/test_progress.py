"""Progress as lines of a log and as a bar on a terminal."""

import io
import re
import time

import pytest

from pipeline.progress import _Done, _LineBar, progress_bar


def test_progress_without_a_terminal_is_a_line_at_the_end_and_each_30_seconds(capsys, monkeypatch):
    now = iter([0.0, 10.0, 31.0, 31.0, 40.0, 50.0])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(now))
    bar = _LineBar("reference", _Done(pairs=100, stored=20))
    bar.advance(10, 1000)  # at 10 s: quiet
    bar.advance(30, 3000)  # at 31 s: a line
    bar.advance(40, 4000)  # at 40 s: quiet
    bar.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "reference:  60/100 pairs (20 done before), 1.3 pairs/s, 129 tokens/s, 31 s left",
        "reference: 100/100 pairs (20 done before), 1.6 pairs/s, 160 tokens/s",
    ]


def test_figures_stand_below_one_another_and_take_the_place_of_the_bars_own(capsys, monkeypatch):
    now = iter([0.0, 40.0, 40.0, 80.0, 80.0])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(now))
    bar = _LineBar("training", _Done(pairs=8000, stored=0))
    for loss, margin, rate in (("0.6931", "+0.012", "9,876"), ("0.4100", "-11.250", "12,345")):
        bar.show({"loss": loss, "margin": margin, "tokens/s": rate})
        bar.advance(40, 50_000)
    assert capsys.readouterr().err.splitlines() == [
        "training:   40/8000 pairs, loss 0.6931, margin +0.012, tokens/s 9,876, 1.0 pairs/s, 2:12:40 left",
        "training:   80/8000 pairs, loss 0.4100, margin -11.250, tokens/s 12,345, 1.0 pairs/s, 2:12:00 left",
    ]
    bar.show({"loss": "0.3000", "margin": "+0.500", "tokens/s": "9,999"})
    now = iter([120.0, 120.0])
    bar.advance(40, 50_000)
    line = capsys.readouterr().err
    assert line.startswith("training:  120/8000 pairs, loss 0.3000, margin  +0.500, tokens/s  9,999, 1.0 pairs/s")


@pytest.mark.parametrize("quiet", [False, True])
def test_a_bar_within_another_leaves_no_line_behind(capsys, quiet):
    with progress_bar("training", 4, 0, quiet=quiet) as bar:
        bar.advance(4, 400)
        with progress_bar("dev pairs", 2, 0, quiet=quiet) as inner:
            inner.advance(2, 200)
    with progress_bar("evaluating", 2, 0, quiet=quiet) as bar:
        bar.advance(2, 200)
    shown = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == ([] if quiet else ["training", "evaluating"])


class _Terminal(io.StringIO):
    def isatty(self):
        return True

    def content(self):
        """What is left on it: cursor movements and erased lines carried out."""
        rows, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                rows += [""] * (row == len(rows))
            elif part.endswith("A"):
                row -= int(part[2:-1])
            elif part == "\x1b[2K":
                rows[row] = ""
            elif not part.startswith("\x1b"):
                rows[row] = rows[row].ljust(column)[:column] + part + rows[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in rows if line.strip()]


def terminal(monkeypatch):
    """Standard error as a terminal, from now on: between a fixture and its test pytest puts its own back."""
    for name, value in {"TERM": "xterm", "COLUMNS": "110", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    stream = _Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    return stream


def test_on_a_terminal_the_figures_are_a_table_below_the_bar(monkeypatch):
    screen = terminal(monkeypatch)
    with progress_bar("training", 200, 40, quiet=False) as bar:
        bar.advance(160, 80_000)
        bar.show({"loss": "0.6931", "accuracy": "0.50", "tokens/s": "12,345", "memory": "61.2 GB"})
        with progress_bar("dev pairs", 20, 0, quiet=False) as inner:
            inner.advance(20, 1000)
            time.sleep(0.3)  # three refreshes
            outer, names, values, below = screen.content()
            assert "training" in outer and "loss" in names and "0.6931" in values and "dev pairs" in below
        bar.show({"loss": "0.4100", "accuracy": "0.81", "tokens/s": "12,345", "memory": "61.2 GB"})
    first, names, values = screen.content()
    assert "training" in first and "200/200 pairs" in first and "(40 done before)" in first
    assert names.split() == ["loss", "accuracy", "tokens/s", "memory"]
    assert values.split() == ["0.4100", "0.81", "12,345", "61.2", "GB"]
    for name, value in (("loss", "0.4100"), ("memory", "61.2 GB")):
        assert names.index(name) + len(name) == values.index(value) + len(value)


def test_on_a_terminal_a_bar_without_figures_is_a_line(monkeypatch):
    screen = terminal(monkeypatch)
    with progress_bar("reference", 10, 0, quiet=False) as bar:
        bar.advance(10, 500)
    (line,) = screen.content()
    assert "reference" in line and "10/10 pairs" in line and "tokens/s" in line
