"""Another tool's file being translated: what of it went where, and what did not, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import ConfigError
from pipeline.config import PipelineConfig
from pipeline.init.reasons import REASONS
from pipeline.keys import field_at
from pipeline.yaml_source import Origins

_YES = (True, "true", "True", "auto", "yes", 1)


class Setting(NamedTuple):
    """A value of ours, the keys of theirs that it comes from, and what else there is to know."""

    value: Any
    sources: tuple[str, ...]
    note: str = ""
    default: bool = False
    """Whether it is what their tool does where its file says nothing."""


@dataclass
class Translation:
    """The keys of a file of `tool`; each ends up in `settings` or in `unmapped`."""

    file: Path
    tool: str
    given: Mapping[str, Any]
    origins: Origins = field(default_factory=Origins)
    settings: dict[str, Setting] = field(default_factory=dict)
    """By our key."""
    unmapped: dict[str, str] = field(default_factory=dict)
    """Their key: why nothing of it is in ours, or what to do instead."""

    def has(self, name: str) -> bool:
        """Whether the key is there and holds something."""
        return self.given.get(name) not in (None, "", [], {})

    def first(self, *names: str) -> str | None:
        """The first of these keys that holds something."""
        return next((name for name in names if self.has(name)), None)

    def get(self, name: str, default: Any = None) -> Any:
        """What the key holds; the default where that is nothing."""
        return self.given[name] if self.has(name) else default

    def number(self, name: str, default: float | None = None) -> float:
        """A number, which may be written as text (5e-6 is text to many YAML readers).

        Raises:
            ConfigError: it is none.
        """
        value = self.get(name, default)
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
        except (TypeError, ValueError):
            raise self.problem(name, f"is {value!r}, not a number") from None
        return int(number) if number.is_integer() else number

    def numbers(self, name: str) -> list[float]:
        """A list of numbers.

        Raises:
            ConfigError: it is none.
        """
        try:
            return [float(word) for word in self.words(name)]
        except ValueError:
            raise self.problem(name, f"is {self.get(name)!r}, not a list of numbers") from None

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Yes or no; `auto` counts as yes."""
        return self.get(name, default) in _YES

    def words(self, name: str) -> list[str]:
        """A list, which may be written as one text with commas."""
        value = self.get(name, [])
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        return [str(part).strip() for part in parts]

    def put(self, key: str, value: Any, *names: str, note: str = "") -> None:
        """Set our key, from those of theirs that are given; from none: their default, set where ours is another."""
        sources = tuple(name for name in names if self.has(name))
        if not sources and _is_our_default(key, value):
            return
        self.settings[key] = Setting(value, sources, note, default=not sources)

    def drop(self, name: str, reason: str) -> None:
        """Say why nothing of a key is in ours; a key that is not there needs no reason."""
        if self.has(name):
            self.unmapped[name] = reason

    def finish(self) -> None:
        """Give every key that is left its reason, and say what is held out where they hold nothing out."""
        if not {"data.eval", "data.eval_fraction"} & self.settings.keys():
            note = "nothing is held out there, a tenth of the prompts here, so that pipeline eval can judge; 0: nothing"
            self.settings["data.eval_fraction"] = Setting(0.1, (), note)
        mapped = {source.partition(".")[0] for setting in self.settings.values() for source in setting.sources}
        for name in self.given:
            if name in mapped or name in self.unmapped:
                continue
            unknown = f"no key that this program knows of {self.tool}; see docs/configuration.md for one that does it"
            self.unmapped[name] = REASONS.get(name, unknown) if self.has(name) else "holds nothing"

    def document(self) -> dict[str, Any]:
        """Ours, as a nested mapping in the order of our keys."""
        nested: dict[str, Any] = {}
        for key, setting in self.settings.items():
            *sections, name = key.split(".")
            section = nested
            for part in sections:
                section = section.setdefault(part, {})
            section[name] = setting.value
        return nested

    def problem(self, name: str, what: str) -> ConfigError:
        """An error about one of their keys, with its line."""
        return ConfigError(f"{self.origins.of((name,)) or self.file}: {name} {what}. Correct it there, and try again.")


def _is_our_default(key: str, value: Any) -> bool:
    found = field_at(PipelineConfig, key.split("."))
    return found is not None and not found.is_required() and bool(found.get_default() == value)
