"""The base of every configuration class: frozen, keyword-only, no unknown keys, documented field by field."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A section of the configuration file. The docstring under each field is its documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )
