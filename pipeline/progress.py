"""Progress on standard error: a bar on a terminal, lines in a log, with the figures of a training run beside them."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from pipeline.json_log import JsonLines, json_lines
from stages.job import Bar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

LINE_SECONDS = 30.0  # between progress lines where there is no terminal
_under_way = ContextVar("a bar is under way", default=False)


@contextmanager
def progress_bar(label: str, pairs: int, stored: int, *, quiet: bool) -> Iterator[Bar]:
    """A bar on a terminal, a line each 30 s elsewhere, nothing where quiet was asked for.

    One that is opened while another is under way stands below it, and leaves nothing behind.
    """
    inner = _under_way.get()
    token = _under_way.set(True)
    try:
        if quiet:
            yield _SilentBar()
        elif (json := json_lines()) is not None:
            objects = _JsonBar(label, _Done(pairs, stored), json)
            objects.begin(inner)
            yield objects
            objects.finish(inner)
        elif sys.stderr.isatty():
            with _terminal_bar(label, _Done(pairs, stored), transient=inner) as bar:
                yield bar
        else:
            lines = _LineBar(label, _Done(pairs, stored))
            yield lines
            lines.finish(inner)
    finally:
        _under_way.reset(token)


class _SilentBar:
    def advance(self, pairs: float, tokens: int) -> None: ...

    def show(self, figures: Mapping[str, str]) -> None: ...


class _Done:
    """What has been done so far, in words."""

    def __init__(self, pairs: int, stored: int) -> None:
        self.pairs, self.stored = pairs, stored
        self.done, self.tokens, self.started = 0.0, 0, time.monotonic()

    def count(self) -> str:
        """`320/2000 pairs`, as wide at the beginning as at the end."""
        done = f"{self.stored + self.done:.0f}"
        return f"{done.rjust(len(str(self.pairs)))}/{self.pairs} pairs" if self.pairs else f"{done} pairs"

    def per_second(self, now: float) -> tuple[float, float]:
        """Pairs and tokens, since the beginning."""
        seconds = max(1e-9, now - self.started)
        return self.done / seconds, self.tokens / seconds

    def rates(self, now: float, *, tokens: bool) -> list[str]:
        """The same in words."""
        pairs_rate, tokens_rate = self.per_second(now)
        rates = [f"{pairs_rate:.1f} pairs/s"]
        return [*rates, f"{tokens_rate:,.0f} tokens/s"] if tokens and self.tokens else rates

    def seconds_left(self, now: float) -> float:
        """At the rate so far; 0 where that cannot be said."""
        left = self.pairs - self.stored - self.done
        return left * (now - self.started) / self.done if self.done and left >= 1 else 0.0


class _LineBar:
    """Progress as lines of a log, whose figures stand below one another."""

    def __init__(self, label: str, so_far: _Done) -> None:
        self._label, self._so_far = label, so_far
        self._figures: Mapping[str, str] = {}
        self._widths: dict[str, int] = {}
        self._said, self._unsaid = False, True
        self._printed = self._so_far.started

    def advance(self, pairs: float, tokens: int) -> None:
        self._so_far.done += pairs
        self._so_far.tokens += tokens
        self._unsaid = True
        if time.monotonic() - self._printed >= LINE_SECONDS:
            self._print()
            self._said = True

    def show(self, figures: Mapping[str, str]) -> None:
        self._figures = figures
        self._widths |= {name: max(len(text), self._widths.get(name, 0)) for name, text in figures.items()}

    def finish(self, inner: bool = False) -> None:
        speak = self._said or (self._so_far.pairs and not inner)  # reading a small file is nothing to speak of
        if self._unsaid and speak:
            self._print()

    def _print(self) -> None:
        self._printed, self._unsaid = time.monotonic(), False
        so_far, figures = self._so_far, self._figures
        stored = f" ({so_far.stored} done before)" if so_far.stored else ""
        parts = [f"{self._label}: {so_far.count()}{stored}"]
        parts += [f"{name} {text.rjust(self._widths[name])}" for name, text in figures.items()]
        parts += so_far.rates(self._printed, tokens="tokens/s" not in figures)
        if left := so_far.seconds_left(self._printed):
            parts.append(f"{_duration(left)} left")
        self._write(", ".join(parts))

    def _write(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")


class _JsonBar(_LineBar):
    """The same lines as objects, with one more at the beginning."""

    def __init__(self, label: str, so_far: _Done, lines: JsonLines) -> None:
        super().__init__(label, so_far)
        self._lines = lines

    def begin(self, inner: bool) -> None:
        """Say what is to be done, where the end will be told too."""
        if self._so_far.pairs and not inner:
            self._print()
            self._unsaid = True

    def _write(self, line: str) -> None:
        so_far, now = self._so_far, self._printed
        pairs_rate, tokens_rate = so_far.per_second(now)
        self._lines.entry(
            "info", __name__, line, label=self._label, pairs_done=round(so_far.stored + so_far.done, 1),
            pairs_total=so_far.pairs or None, pairs_stored=so_far.stored, tokens=so_far.tokens,
            pairs_per_second=round(pairs_rate, 3), tokens_per_second=round(tokens_rate, 1),
            seconds_left=round(so_far.seconds_left(now), 1),
            figures={name: _number(text) for name, text in self._figures.items()},
        )  # fmt: skip


def _number(text: str) -> float | str:
    """A figure as a number, where it is nothing else."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


@cache
def _console() -> "Console":
    """One for all bars: they share the screen."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def _terminal_bar(label: str, so_far: _Done, *, transient: bool) -> Iterator[Bar]:
    from rich.live import Live
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rates]}", markup=False),
        TimeRemainingColumn(),
        console=_console(),
    )
    bar = _RichBar(progress, label, so_far)
    with Live(bar, console=_console(), refresh_per_second=10, transient=transient):
        yield bar


class _RichBar:
    """Progress as a bar of rich, and below it a table of one row."""

    def __init__(self, progress: "Progress", label: str, so_far: _Done) -> None:
        self._progress, self._so_far = progress, so_far
        self._task = progress.add_task(label, total=so_far.pairs or None, completed=so_far.stored, rates="")
        self._figures: Mapping[str, str] = {}

    def advance(self, pairs: float, tokens: int) -> None:
        self._so_far.done += pairs
        self._so_far.tokens += tokens
        rates = self._so_far.rates(time.monotonic(), tokens="tokens/s" not in self._figures)
        stored = [f"({self._so_far.stored} done before)"] if self._so_far.stored else []
        self._progress.update(self._task, advance=pairs, rates="  ".join([self._so_far.count(), *rates, *stored]))

    def show(self, figures: Mapping[str, str]) -> None:
        self._figures = figures

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table

        if not self._figures:
            return self._progress.get_renderable()
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
        for name in self._figures:
            table.add_column(name, justify="right", min_width=8, no_wrap=True)
        table.add_row(*self._figures.values())
        return Group(self._progress.get_renderable(), table)
