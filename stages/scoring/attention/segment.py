"""What a pack consists of, as its attention sees it."""

from typing import NamedTuple


class Segment(NamedTuple):
    """Tokens [start, stop) of a pack, which read the tokens [prefix_start, prefix_stop) and, causally, themselves.

    A prompt has no prefix; a response's prefix is its prompt.
    """

    start: int
    stop: int
    prefix_start: int
    prefix_stop: int
