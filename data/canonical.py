"""Brings a row of `prompt`, `chosen` and `rejected` into normal form, or says why it cannot be used.

Each of the three is text or a list of messages `{role, content}`; forms.py makes these of whatever a source has.
"""

from typing import Literal

from data.schema import Message, PreferencePair, Rejection, SourceRow

Reason = Literal[
    "unreadable_row",
    "missing_field",
    "wrong_type",
    "unknown_role",
    "empty_prompt",
    "prompt_ends_with_assistant",
    "empty_completion",
    "no_assistant_turn",
    "not_one_assistant_turn",
    "prompt_mismatch",
    "no_preference",
    "identical_completions",
    # decided once the row is in tokens (tokenization.py)
    "template_failed",
    "special_tokens_in_text",
    "prompt_not_a_prefix",
    "seam_inside_a_token",
    "prompt_too_long",
    "identical_after_truncation",
]
REASONS: dict[Reason, str] = {
    "unreadable_row": "a line that is no JSON",
    "missing_field": "a column of the form is not there",
    "wrong_type": "null, a number, half a character, NUL, or a value of another kind than in other rows",
    "unknown_role": "a message of a role other than system, user, assistant and tool",
    "empty_prompt": "a prompt without text",
    "prompt_ends_with_assistant": "the last message of the prompt is the assistant's",
    "empty_completion": "a completion without text",
    "no_assistant_turn": "a conversation or transcript that does not end with the assistant's turn",
    "not_one_assistant_turn": "a completion of several messages, or not the assistant's",
    "prompt_mismatch": "chosen and rejected answer different prompts",
    "no_preference": "rated answers of which none is better than another",
    "identical_completions": "chosen and rejected are the same",
    "template_failed": "the chat template refused the row",
    "special_tokens_in_text": "a text that holds a special token of the model",
    "prompt_not_a_prefix": "rendered alone, the prompt is not what the rendered conversation opens with",
    "seam_inside_a_token": "a token straddles prompt and response, and apart the text changes",
    "prompt_too_long": "the prompt alone reaches max_length",
    "identical_after_truncation": "both completions are the same once they are cut to max_length",
}
"""What each means."""

_FIELDS = ("prompt", "chosen", "rejected")
_ROLES = ("system", "user", "assistant", "tool")


class BadRow(Exception):
    """A row that cannot be used; `reason` is what it is counted under, `detail` is for the person who looks."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail.encode(errors="replace").decode()  # it may quote a row that holds half a character

    def rejection(self, row: int, location: str) -> Rejection:
        """The record of this row's refusal."""
        return Rejection(row, location, self.reason, self.detail)


def canonical_pair(source: SourceRow) -> PreferencePair:
    """The row in normal form.

    Raises:
        BadRow: with the reason it is counted under.
    """
    if source.problem is not None:
        raise BadRow("unreadable_row", source.problem)
    if not isinstance(source.content, dict):
        raise BadRow("wrong_type", f"the row is a {_kind(source.content)}, not an object")
    missing = [name for name in _FIELDS if name not in source.content]
    if missing:
        present = ", ".join(sorted(str(key) for key in source.content)) or "none"
        raise BadRow("missing_field", f"no field {', '.join(missing)}; the fields are: {present}")
    prompt = _messages(source.content["prompt"], "prompt", text_role="user")
    chosen = _messages(source.content["chosen"], "chosen", text_role="assistant")
    rejected = _messages(source.content["rejected"], "rejected", text_role="assistant")
    _check_prompt(prompt)
    _check_completion(chosen, "chosen")
    _check_completion(rejected, "rejected")
    if chosen == rejected:
        raise BadRow("identical_completions", "chosen and rejected are the same")
    return PreferencePair(source.number, source.location, prompt, chosen, rejected)


def _messages(value: object, name: str, text_role: str) -> tuple[Message, ...]:
    """A text as one message of `text_role`; a list of messages as it is."""
    if isinstance(value, str):
        return (Message(text_role, _clean(value, name)),)
    if not isinstance(value, list):
        raise BadRow("wrong_type", f"{name} is a {_kind(value)}, neither text nor a list of messages")
    return tuple(_message(item, f"{name}[{i}]") for i, item in enumerate(value))


def _message(item: object, name: str) -> Message:
    if not isinstance(item, dict):
        raise BadRow("wrong_type", f"{name} is a {_kind(item)}, not a message with role and content")
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise BadRow("wrong_type", f"{name} has role of type {_kind(role)} and content of type {_kind(content)}")
    if role not in _ROLES:
        raise BadRow("unknown_role", f"{name} has the role {role!r}; known: {', '.join(_ROLES)}")
    return Message(role, _clean(content, name))


def _clean(text: str, name: str) -> str:
    """The text itself; a lone surrogate (half of a character) cannot be encoded, and NUL ends a text elsewhere."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRow("wrong_type", f"{name} holds a lone surrogate, half of a character")
    if "\0" in text:
        raise BadRow("wrong_type", f"{name} holds a NUL character")
    return text


def _check_prompt(prompt: tuple[Message, ...]) -> None:
    if not prompt or not any(message.content.strip() for message in prompt):
        raise BadRow("empty_prompt", "the prompt has no text")
    if prompt[-1].role == "assistant":
        raise BadRow("prompt_ends_with_assistant", "the last message of the prompt is the assistant's")


def _check_completion(completion: tuple[Message, ...], name: str) -> None:
    if len(completion) != 1 or completion[0].role != "assistant":
        roles = ", ".join(message.role for message in completion) or "nothing"
        raise BadRow("not_one_assistant_turn", f"{name} is {roles}; one assistant message is expected")
    if not completion[0].content.strip():
        raise BadRow("empty_completion", f"{name} is empty")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
