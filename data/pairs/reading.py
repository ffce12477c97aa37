"""How the rows of one source are read: its form, its columns, its rule; and what pairs that makes of a row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from data.errors import DataError
from data.rows.bad_rows import BadRow
from data.rows.canonical import ARGUMENTS, NUMBERS, canonical_pair
from data.rows.form_readers import PROMPTS, Fields
from data.rows.forms import DEFAULT_RULE, FORMS, Form, tell_form
from data.rows.rankings import Rule
from data.schema import PreferencePair, Rejection, SourceRow
from data.sources.source import Source


@dataclass(frozen=True)
class Reading:
    """What has to be known to read any row of a source; the same in every process."""

    form_name: str
    columns: Mapping[Any, str]
    rule: Rule
    group_by: str | None = None

    @cached_property
    def form(self) -> Form:
        """The source's form."""
        return next(form for form in FORMS if form.name == self.form_name)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def pairs(self, row: SourceRow) -> Iterator[tuple[int, PreferencePair | Rejection]]:
        """The pairs of a row, each in normal form or refused, and which of several (from 1) it is, else 0."""
        found = self._candidates(row)
        for candidate, fields in enumerate(found, 1) if len(found) > 1 else zip([0], found, strict=True):
            location = f"{row.location}#{candidate}" if candidate else row.location
            try:
                if isinstance(fields, BadRow):
                    raise fields
                one = SourceRow(row.number, location, fields, row.problem)
                yield candidate, canonical_pair(one, self.group_by, self.columns)
            except BadRow as bad:
                yield candidate, bad.rejection(row.number, location)

    def _candidates(self, row: SourceRow) -> list[Any]:
        """The row as prompt, chosen and rejected, once for each of its pairs."""
        if row.problem is not None or not isinstance(row.content, dict):
            return [row.content]
        content = _named(row.content, self.columns)
        beside = {name: content[name] for name in (*ARGUMENTS, *NUMBERS, self.group_by) if name in content}
        if self.group_by is not None and self.group_by in row.content:  # a column that is named keeps its name here
            beside.setdefault(self.group_by, row.content[self.group_by])
        found: list[Fields | BadRow] = []
        try:
            for fields in self.form.read(content, self.rule):
                found.append(fields if isinstance(fields, BadRow) else beside | fields)
        except BadRow as bad:
            found.append(bad)
        return found


def reading_of(source: Source, first: Sequence[SourceRow], group_by: str | None) -> Reading:
    """How a source is to be read, by its first rows.

    Raises:
        DataError: that cannot be told, or the source's settings do not fit it.
    """
    form = tell_form(source.name, _all_named(first, source.columns))
    if source.pairs is not None and not form.rated:
        raise DataError(
            f"pairs: {source.pairs} has no effect on {source.name}, whose rows are of the form `{form.name}` and not "
            "rated answers. Remove it."
        )
    return Reading(form.name, dict(source.columns), source.pairs or DEFAULT_RULE, group_by)


def _all_named(rows: Iterable[SourceRow], columns: Mapping[Any, str]) -> list[SourceRow]:
    return [replace(r, content=_named(r.content, columns)) if isinstance(r.content, dict) else r for r in rows]


def _named(content: dict[str, Any], columns: Mapping[Any, str]) -> dict[str, Any]:
    """The row with its columns as forms know them; once the prompt is named, no other column can be it."""
    if not columns:
        return content
    aside = {*columns, *columns.values(), *(PROMPTS if "prompt" in columns else ())}
    others = {name: value for name, value in content.items() if name not in aside}
    return others | {name: content[column] for name, column in columns.items() if column in content}
