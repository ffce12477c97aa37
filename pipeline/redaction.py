r"""Secrets taken out of what is shown, logged or kept: configurations, command lines, messages.

None belongs there; but addresses have passwords in them, and commands have keys.
"""

import re
from typing import Any

REDACTED = "[redacted]"

_WORDS = (
    "token(?!s|iz)", "secret", "password", "passwd", "credential", "api[_-]?key", "access[_-]?key", "auth(?!or(?!iz))",
)  # fmt: skip
_SECRET_NAME = rf"(?:[\w-]*(?:{'|'.join(_WORDS)})[\w-]*)"
"""A name that holds a secret: numbers of tokens, tokenizers and authors are none."""

_PATTERNS = (
    (re.compile(r"(?i)\b(?:bearer|basic) [\w.~+/=-]{8,}"), REDACTED),
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{REDACTED}@"),
    (re.compile(rf"(?i)(\b{_SECRET_NAME}\b[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s&;,\"']+)"), rf"\1{REDACTED}"),
    (re.compile(rf"(?i)(--{_SECRET_NAME}[ =])(\"[^\"]*\"|'[^']*'|\S+)"), rf"\1{REDACTED}"),
    (re.compile(r"\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA|ASIA|AIza)[\w-]{8,}"), REDACTED),
)


def redacted(value: Any) -> Any:
    """A document or a text without what looks like a secret."""
    if isinstance(value, dict):
        return {key: REDACTED if _hides(str(key), inner) else redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    if isinstance(value, str):
        for pattern, replacement in _PATTERNS:
            value = pattern.sub(replacement, value)
    return value


def _hides(key: str, value: Any) -> bool:
    return isinstance(value, str) and bool(value) and re.fullmatch(rf"(?i){_SECRET_NAME}", key) is not None
