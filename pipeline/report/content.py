"""What a report says, before it is a page or a summary: sections of paragraphs, tables, pictures and texts.

Our own words are plain text. What comes from data, files or the configuration is marked as `Data`, wherever it stands,
so that each way of writing a report can make it harmless in its own way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["passed", "failed", "inconclusive"]


class Data(str):
    """Text that somebody else chose: a name, a value of a column, a path."""


class Code(Data):
    """The same in a typewriter face: names of metrics and keys, identities, commands."""


class Sentence(Data):
    """Whole sentences that a file of the evaluation has."""


Text = str | Sequence[str]
"""A run of words, some of them perhaps `Data`."""


def words(text: Text) -> list[str]:
    """The pieces of a text."""
    return [text] if isinstance(text, str) else list(text)


@dataclass(frozen=True)
class Mark:
    """An interval as a small picture: a line from low to high, a dot at the value, a ring at what it is beside."""

    value: float
    low: float
    high: float
    axis: tuple[float, float] = (0.0, 1.0)
    line: float | None = None
    """Where a line stands that the interval is seen against."""
    beside: float | None = None


Cell = Text | Mark | Verdict


@dataclass(frozen=True)
class Column:
    """A column's heading, and what its cells are."""

    title: str
    kind: Literal["text", "figure", "mark"] = "figure"


@dataclass(frozen=True)
class Table:
    """Rows of cells; a cell without anything to say is an empty text."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Text | Mark]]
    muted: frozenset[int] = frozenset()
    """Places of the rows that say little."""
    caption: Text = ""


@dataclass(frozen=True)
class Judged:
    """A verdict and the sentence that goes with it."""

    verdict: Verdict
    sentence: Text


@dataclass(frozen=True)
class Judgements:
    """Verdicts one below the other."""

    entries: Sequence[Judged]


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: Text
    warning: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure for those who see and, in `description`, for those who do not; `svg` is safe as it is."""

    name: str
    title: str
    description: str
    svg: str


@dataclass(frozen=True)
class Pictures:
    """Figures side by side, as far as there is room."""

    entries: Sequence[Picture]


@dataclass(frozen=True)
class Passage:
    """A text that is shown as it was written."""

    label: str
    text: Data


@dataclass(frozen=True)
class Passages:
    """Texts that belong together, under a heading."""

    title: Text
    entries: Sequence[Passage]
    side_by_side: bool = False


Block = Table | Judgements | Paragraph | Pictures | Passages


@dataclass(frozen=True)
class Section:
    """A part of a report with its heading; `gist` is what a reader learns without opening it."""

    name: str
    title: str
    blocks: Sequence[Block]
    gist: Text = ""
    folded: bool = True
    in_summary: bool = False
    """Whether it stands in the Markdown summary, too."""


@dataclass(frozen=True)
class Report:
    """All of it: a title, what was evaluated in a line, the verdict (None: nothing was judged), the sections."""

    title: Text
    lead: Text
    verdict: Verdict | None
    verdict_words: str
    sections: Sequence[Section] = field(default_factory=list)
