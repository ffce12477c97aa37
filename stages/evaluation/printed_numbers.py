"""The numbers in what a program printed: one JSON object, alone or as the last thing."""

import json
import re
from contextlib import suppress
from typing import Any

MOST = 10_000  # numbers that one command may give
_LARGEST = 1e300
_TRIES = 1000  # lines, the last, at which the object may begin
_OPENING = re.compile(r"^\{", re.MULTILINE)


class NoNumbers(Exception):
    """There are none, and why, as the rest of a sentence."""


def printed_numbers(printed: str) -> dict[str, float]:
    """Numbers by their paths in the object, joined by `/`; true is 1, false 0; texts, lists and nulls are left out.

    Raises:
        NoNumbers: nothing printed is such an object, or a number in it is not finite.
    """
    numbers: dict[str, float] = {}
    _collect(_last_object(printed.strip()), (), numbers)
    if not numbers:
        raise NoNumbers("printed a JSON object without a number.")
    return numbers


def _last_object(printed: str) -> dict[str, Any]:
    """The whole of it, or what stands behind the last line from which on it is an object."""
    starts = [match.start() for match in _OPENING.finditer(printed)]
    for start in starts[-_TRIES:]:
        with suppress(ValueError, RecursionError):
            return dict(json.loads(printed[start:]))
    raise NoNumbers("printed nothing." if not printed else "printed no JSON object at its end.")


def _collect(value: object, path: tuple[str, ...], numbers: dict[str, float]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _collect(inner, (*path, " ".join(key.split())), numbers)
    elif isinstance(value, bool | int | float):
        name = "/".join(path)
        if not all(path) or not name.isprintable():
            raise NoNumbers(f"printed a number under the name {name!r}, which is no name.")
        if name in numbers:
            raise NoNumbers(f"printed two numbers under the name {name}.")
        if not abs(value) <= _LARGEST:  # NaN, too
            raise NoNumbers(f"printed for {name} what is no finite number, so it cannot be judged.")
        if len(numbers) == MOST:
            raise NoNumbers(f"printed more than {MOST} numbers.")
        numbers[name] = float(value)
