"""Section `data` of the configuration: which pairs, how they are read, split and cut."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from data.settings import Settings
from data.sources.source import Source


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


_AtLeastOne = Annotated[list[Source], Field(min_length=1)]
Sources = Annotated[list[Source], BeforeValidator(_as_list, json_schema_input_type=Source | _AtLeastOne)]


class DataConfig(Settings):
    """Section `data`: which pairs, how they are split and cut."""

    train: Sources = Field(min_length=1)
    """Preference pairs: a file, folder or Hub id, or a list of them; docs/data.md has the keys of a source."""
    eval: Sources | None = Field(default=None, min_length=1)
    """Held-out pairs from their own source; none: `eval_fraction` cuts them from `train`."""
    eval_fraction: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Share of first user turns held out by hash; 0.1 unless `eval` names a source; 0 holds nothing out."""
    dev_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of first user turns kept for choices made during training; 0: none."""
    group_by: str | None = None
    """Column whose values are held out as wholes (a tree, a user); none: the first user turn."""
    max_length: int = Field(default=1024, ge=2)
    """Most tokens of prompt and response together; longer responses lose their end."""
    max_bad: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of rejected rows above which a job stops (where more than five are); 1: never."""
    strict: bool = False
    """Stop where a single row is rejected."""
    workers: int | None = Field(default=None, ge=1)
    """Processes that make tokens of text; none: one a core. Any number gives the same pairs."""

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> "DataConfig":
        if self.eval is not None and self.eval_fraction is not None:
            raise ValueError("eval and eval_fraction both say what is held out; keep one of the two")
        if self.held_out_fraction + self.dev_fraction >= 1.0:
            raise ValueError("eval_fraction and dev_fraction together leave nothing to train on")
        for source in self.eval or []:
            if source.weight != 1:
                raise ValueError(f"weight has no effect on {source.name}, which is held out; remove it")
        return self

    @property
    def held_out_fraction(self) -> float:
        """The share of `train` that is held out."""
        if self.eval is not None:
            return 0.0
        return 0.1 if self.eval_fraction is None else self.eval_fraction

    @property
    def sources(self) -> list[tuple[Source, bool]]:
        """All sources, and whether each is held out."""
        return [(source, False) for source in self.train] + [(source, True) for source in self.eval or []]
