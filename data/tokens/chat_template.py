"""Chat templates, rendered so that they can harm nobody: the clock stands still, time and memory are limited.

A template is a program that came with a model. It may print the date (then the same row would be other tokens
tomorrow), loop, or build a text of a gigabyte.
"""

import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, cast

from data.errors import DataError, one_line
from data.rows.bad_rows import BadRow
from data.schema import Message

NOW = datetime(2025, 1, 1)
"""What a template's clock shows, always."""
DEADLINE = 10.0  # seconds for the texts of one row
MEMORY = 512 * 2**20  # bytes that templates may take beside what the process has
_REASONING = ("reasoning_content", "thinking", "reasoning")  # the first is what most templates read
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Span = tuple[int, int]


class _TooLong(Exception):
    """The deadline has passed."""


class ChatTemplate:
    """The chat template of a tokenizer, if it has one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self._plain = {"tools": None, "documents": None, **self._tokens}
        self.present = bool(tokenizer.chat_template)

    def render(self, messages: Sequence[Message], arguments: Mapping[str, Any], *, open_turn: bool) -> str:
        """The text of these messages; with `open_turn` the assistant's next turn is opened.

        Raises:
            BadRow: the template refuses them.
        """
        return self._render(messages, arguments, open_turn, spans=False)[0]

    def generated(self, messages: Sequence[Message], arguments: Mapping[str, Any]) -> tuple[str, list[Span] | None]:
        """The text, and where the template marks what the assistant generates; None where it marks nothing."""
        marks = _GENERATION.search(self._text(arguments)) is not None
        text, spans = self._render(messages, arguments, False, spans=marks)
        return text, spans if marks else None

    def _text(self, arguments: Mapping[str, Any]) -> str:
        return cast(str, self._tokenizer.get_chat_template(tools=arguments.get("tools")))

    def _render(
        self, messages: Sequence[Message], arguments: Mapping[str, Any], open_turn: bool, *, spans: bool
    ) -> tuple[str, list[Span]]:
        try:
            template = self._text(arguments)
            compiled = _compiled(template)
            shown = [_shown(message) for message in messages]
            if not spans and not arguments and not any(message.more for message in messages):
                # Nothing that transformers would have to clean before a template sees it.
                text: str = compiled.render(self._plain, messages=shown, add_generation_prompt=open_turn)
                return text, []
            texts, generated = _library().render_jinja_template(
                [shown],
                chat_template=template,
                add_generation_prompt=open_turn,
                return_assistant_tokens_mask=spans,
                **{**self._tokens, **arguments},
            )
        except (_TooLong, MemoryError):
            raise
        except Exception as error:  # a template raises whatever its author chose
            raise BadRow("template_failed", f"the chat template refused the row: {one_line(error)}") from error
        return texts[0], list(generated[0]) if spans else []


def _shown(message: Message) -> dict[str, Any]:
    """As templates read it: reasoning has the names that they know, whichever it came by."""
    document = message.document()
    given = [document[name] for name in _REASONING if document.get(name) is not None]
    return {"thinking": given[0]} | document | {"reasoning_content": given[0]} if given else document


def _library() -> Any:
    from transformers.utils import chat_template_utils

    return chat_template_utils


@cache
def _compiled(template: str) -> Any:
    """The template as transformers compiles and keeps it, with a clock that shows one time."""
    compiled = _library()._compile_jinja_template(template)
    compiled.environment.globals["strftime_now"] = NOW.strftime
    compiled.environment.is_safe_attribute = _asked_once(compiled.environment.is_safe_attribute)
    compiled.globals = dict(compiled.globals)  # a chain of dictionaries otherwise, copied for every text
    return compiled


def _asked_once(is_safe: Callable[[Any, str, Any], bool]) -> Callable[[Any, str, Any], bool]:
    """What the sandbox says of an attribute: an object's type and the name decide it, for all objects of the type."""
    known: dict[tuple[type, str], bool] = {}

    def answer(owner: Any, name: str, value: Any) -> bool:
        asked = type(owner), name
        if asked not in known:
            known[asked] = is_safe(owner, name, value)
        return known[asked]

    return answer


@contextmanager
def limits() -> Iterator[None]:
    """Let templates in here be stopped by `within_limits`, and this process take at most `MEMORY` more than it has."""
    with _memory_limit():
        if threading.current_thread() is not threading.main_thread():  # only there do signals arrive
            yield
            return
        previous = signal.signal(signal.SIGALRM, _stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGALRM, previous)


@contextmanager
def within_limits(location: str) -> Iterator[None]:
    """What a template does in here for the row at `location` comes to an end, and does not fill the memory.

    Raises:
        DataError: it did not.
    """
    here = threading.current_thread() is threading.main_thread()
    try:
        if here:
            signal.setitimer(signal.ITIMER_REAL, DEADLINE)
        yield
    except (_TooLong, MemoryError) as error:
        what = f"took more than {DEADLINE:g} s" if isinstance(error, _TooLong) else f"wanted over {MEMORY >> 20} MB"
        raise DataError(
            f"The chat template of the tokenizer {what} for {location} and was stopped. It loops, or the row is "
            "enormous. Nothing of this row was written. Correct the template (chat_template.jinja or "
            "tokenizer_config.json in the model's folder), or take the row out."
        ) from error
    finally:
        if here:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _stop(_: int, __: FrameType | None) -> None:
    raise _TooLong


@contextmanager
def _memory_limit() -> Iterator[None]:
    status = Path("/proc/self/status")
    if not status.exists():  # where the system cannot tell how much a process has
        yield
        return
    taken = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmData"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = taken + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
