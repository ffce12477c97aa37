"""The base of every configuration class: frozen, keyword-only, no unknown keys, documented field by field."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A section of the configuration file. The docstring under each field is its documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


def or_text(schema: dict[str, Any]) -> None:
    """Say in the JSON schema of a section that a bare text may stand for it."""
    section = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string"}, section]
