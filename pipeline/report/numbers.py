"""Numbers as a report writes them."""

import math

MINUS = "\u2212"


def share(value: float) -> str:
    """Three digits behind the point."""
    return _minus(f"{value:.3f}")


def signed(value: float) -> str:
    """The same with its sign."""
    text = f"{value:+.3f}"
    return "+0.000" if text == "-0.000" else _minus(text)


def interval(low: float, high: float) -> str:
    """Both ends of an interval."""
    return f"{share(low)} to {share(high)}"


def signed_interval(low: float, high: float) -> str:
    """Both ends with their signs."""
    return f"{signed(low)} to {signed(high)}"


def number(value: float) -> str:
    """Four digits that count, and no more than are needed."""
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e6):
        return count(int(value))
    return _minus(f"{value:.4g}")


def count(value: int) -> str:
    """With commas."""
    return _minus(f"{value:,}")


def percent(part: float, whole: float) -> str:
    """A part of a whole; nothing of nothing is nothing."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def chance(p: float) -> str:
    """A p-value."""
    return "below 0.0001" if p < 1e-4 else f"{p:.4f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever can be read."""
    if seconds < 120:
        return f"{seconds:,.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.1f} min"
    return f"{seconds / 3600:,.1f} h"


def _minus(text: str) -> str:
    return MINUS + text[1:] if text.startswith("-") else text  # an exponent keeps its own
