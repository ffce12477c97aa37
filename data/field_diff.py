"""How two documents differ, field by field: what a person sees where a hash has changed."""

import json
from typing import Any


def field_diff(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The fields in which two documents differ, one line each: `config.rope_theta: 10000 -> 500000`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in field_diff(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [f"{prefix.rstrip('.')}: {_shown(old)} -> {_shown(new)}"]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
