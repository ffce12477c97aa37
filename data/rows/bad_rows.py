"""Why a row cannot be used: the reasons that rows are counted under."""

from typing import Literal

from data.schema import Rejection

Reason = Literal[
    "unreadable_row",
    "missing_field",
    "wrong_type",
    "unknown_role",
    "empty_prompt",
    "prompt_ends_with_assistant",
    "empty_completion",
    "no_assistant_turn",
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
    "unreadable_row": "a line that is no JSON or names a key twice, or a row of too few or too many cells",
    "missing_field": "a column of the form is not there, or a named `margin` or `pair_weight` is absent or null",
    "wrong_type": (
        "null, a number, half a character, NUL, or a value of another kind than in other rows; a named `margin` or "
        "`pair_weight` that is no finite number, or a weight below 0"
    ),
    "unknown_role": "a message of a role other than system, user, assistant and tool",
    "empty_prompt": "a prompt without text",
    "prompt_ends_with_assistant": "the last message of the prompt is the assistant's",
    "empty_completion": "a completion without text",
    "no_assistant_turn": "a conversation that does not end (a completion: begin and end) with the assistant",
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


class BadRow(Exception):
    """A row that cannot be used; `reason` is what it is counted under, `detail` is for the person who looks."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail.encode(errors="replace").decode()  # it may quote a row that holds half a character

    def rejection(self, row: int, location: str) -> Rejection:
        """The record of this row's refusal."""
        return Rejection(row, location, self.reason, self.detail)
