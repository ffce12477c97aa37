"""Ranked or scored answers to one prompt, and trees of messages, as pairs by a rule."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any, Literal, NamedTuple

from data.rows.bad_rows import BadRow
from data.rows.conversations import as_chat

Rule = Literal["best-worst", "all", "adjacent"]

LISTS = ("answers", "completions", "responses")
TEXTS = ("answer", "response", "text", "content", "completion")
SCORES = ("score", "overall_score", "rating")  # more is better; of a `rank`, less


class Answer(NamedTuple):
    """An answer and how good it is: more is better."""

    text: Any
    worth: float


def answers_of(row: Mapping[str, Any]) -> Sequence[Any] | None:
    """The list of answers in a row: objects with a text, and a rank or a score."""
    for name in LISTS:
        found = row.get(name)
        if isinstance(found, list) and found and all(isinstance(item, dict) for item in found):
            return found
    return None


def preferences(answers: Sequence[Any], rule: Rule) -> Iterator[tuple[Any, Any]]:
    """Texts (chosen, rejected) by the rule; answers that are worth the same make no pair.

    From the best to the worst, `best-worst` pairs the two ends, `adjacent` neighbours, `all` every two.

    Raises:
        BadRow: an answer has no text or no worth, or none is better than another.
    """
    ordered = sorted((_answer(item, place) for place, item in enumerate(answers)), key=lambda answer: -answer.worth)
    two: Iterable[tuple[Answer, Answer]] = combinations(ordered, 2) if rule == "all" else pairwise(ordered)
    if rule == "best-worst":
        two = [(ordered[0], ordered[-1])]
    found = [(better.text, worse.text) for better, worse in two if better.worth > worse.worth]
    if not found:
        raise BadRow("no_preference", f"of {len(ordered)} answers none is better than another")
    yield from found


def ranked_replies(tree: Mapping[str, Any]) -> Iterator[tuple[list[dict[str, Any]], list[Any]]]:
    """Of a tree of messages every conversation with two ranked replies or more: its messages, and those replies."""
    open_ends: list[tuple[list[dict[str, Any]], Any]] = [([], tree.get("prompt"))]
    while open_ends:
        before, message = open_ends.pop()
        if not isinstance(message, dict) or not isinstance(replies := message.get("replies", []), list):
            raise BadRow("wrong_type", "a message of the tree is no object with a list of replies")
        conversation = [*before, *(as_chat([{"from": message.get("role"), "value": message.get("text")}]) or [])]
        ranked = [reply for reply in replies if isinstance(reply, dict) and reply.get("rank") is not None]
        if len(ranked) > 1 and all(reply.get("role") == "assistant" for reply in ranked):
            yield conversation, ranked
        open_ends += [(conversation, reply) for reply in reversed(replies)]


def _answer(item: Any, place: int) -> Answer:
    text = next((item[name] for name in TEXTS if item.get(name) is not None), None)
    if text is None:
        raise BadRow("missing_field", f"answer {place} has no text under {', '.join(TEXTS)}")
    rank, scores = item.get("rank"), [item[name] for name in SCORES if _is_number(item.get(name))]
    if _is_number(rank):
        return Answer(text, -float(rank))
    if not scores:
        raise BadRow("missing_field", f"answer {place} has no number under rank, {', '.join(SCORES)}")
    return Answer(text, float(scores[0]))


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False
