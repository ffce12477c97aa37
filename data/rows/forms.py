"""The forms in which preference data come, and how a row of each becomes prompt, chosen and rejected.

A source has one form. It is told by the first rows together, never row by row: a torn row shall not be read as
something else. The table of docs/data.md is made of FORMS.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from data.errors import DataError
from data.rows import form_readers as readers
from data.rows.bad_rows import BadRow
from data.rows.form_readers import PROMPTS, Fields, Row
from data.rows.rankings import Rule
from data.schema import SourceRow

SAMPLE = 200  # rows that tell the form
DEFAULT_RULE: Rule = "best-worst"
_CLEAR = 0.9  # of the rows that have a form
_MEDIA = {"image": "images", "images": "images", "audio": "sound", "video": "videos", "videos": "videos"}
_SHOWN = 40  # columns that a message names, and characters of each


class Form(NamedTuple):
    """One way to write preferences down."""

    name: str
    columns: str
    seen_in: str
    fits: Callable[[Row], bool]
    read: Callable[[Row, Rule], Iterator[Fields | BadRow]]
    """May raise BadRow for all of a row, or yield it for one of its pairs."""
    rated: bool = False
    """Whether a rule says which pairs there are in a row."""


def tell_form(name: str, rows: Sequence[SourceRow]) -> Form:
    """The form of a source by its first rows; `name` is for messages.

    Raises:
        DataError: they have none, or more than one; or they hold more than texts.
    """
    contents = [row.content for row in rows if isinstance(row.content, dict)]
    _refuse_media(name, contents)
    found = Counter(form.name for content in contents for form in FORMS if form.fits(content))
    if not found:
        return _of_no_form(name, contents)
    (likeliest, n), total = found.most_common(1)[0], found.total()
    prompts = [column for column in PROMPTS if any(content.get(column) is not None for content in contents)]
    if n < _CLEAR * total or len(prompts) > 1:
        raise DataError(
            f"The rows of {name} can be read in more than one way: "
            f"{', '.join(f'{count} as {form}' for form, count in found.most_common())}; the columns that may hold the "
            f"prompt are {', '.join(prompts)}. Say which it is, for instance `columns: {{prompt: {prompts[-1]}}}` "
            "beside the source's path, or put the rows of different forms into files of their own."
        )
    return next(form for form in FORMS if form.name == likeliest)


def _refuse_media(name: str, contents: Sequence[Row]) -> None:
    for column, kind in _MEDIA.items():
        if any(_holds(content.get(column)) for content in contents):
            raise DataError(
                f"The rows of {name} hold {kind} (column {column}); only text models are aligned here. Take data that "
                "can be judged by their text alone, and remove or empty that column."
            )


def _holds(value: object) -> bool:
    """Whether there is anything in it: a list of nulls holds nothing, nor does an image without bytes and path."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return bool(value) if inner is None else any(map(_holds, inner))


def _of_no_form(name: str, contents: Sequence[Row]) -> Form:
    """Where nothing fits: the plain form, whose rows say what each lacks, if the columns are there; else an error."""
    columns = sorted({_printable(column) for content in contents for column in content})
    if not contents or {"prompt", "chosen", "rejected"} <= set(columns):
        return FORMS[0]
    known = "; ".join(form.columns for form in FORMS)
    raise DataError(
        f"The rows of {name} are of no form that is known here. Their columns are: {', '.join(columns[:_SHOWN])}. "
        f"Known are: {known}. Name the columns beside the source's path, for instance `columns: {{prompt: QUESTION, "
        "chosen: BETTER, rejected: WORSE}`."
    )


def _printable(column: object) -> str:
    """A name that may hold anything, for a message."""
    return str(column)[:_SHOWN].encode(errors="replace").decode()


FORMS = (
    Form(
        "prompt and replies",
        "prompt, chosen, rejected (each text or messages), system",
        "most data sets of TRL",
        readers.fits_plain,
        readers.read_plain,
    ),
    Form(
        "texts that repeat the prompt",
        "prompt; chosen and rejected that open with it",
        "a common mistake: it is used once",
        readers.fits_repeated,
        readers.read_repeated,
    ),
    Form(
        "transcripts",
        'chosen, rejected as "\\n\\nHuman: ... \\n\\nAssistant: ..."',
        "hh-rlhf",
        readers.fits_transcripts,
        readers.read_transcripts,
    ),
    Form(
        "whole conversations",
        "chosen, rejected as messages from the first one on (prompt: the same again)",
        "ultrafeedback_binarized, Skywork, argilla",
        readers.fits_conversations,
        readers.read_conversations,
    ),
    Form(
        "question",
        "system, question, chosen, rejected",
        "orca_dpo_pairs",
        readers.fits_question,
        readers.read_question,
    ),
    Form(
        "conversation and replies",
        "conversations as {from, value}, chosen, rejected",
        "ShareGPT, LLaMA-Factory",
        readers.fits_conversations_column,
        readers.read_conversations_column,
    ),
    Form(
        "instruction",
        "instruction, input, chosen, rejected (or *_response)",
        "the alpaca family",
        readers.fits_instruction,
        readers.read_instruction,
    ),
    Form(
        "rated answers",
        "prompt or instruction; answers, completions or responses with a rank or a score",
        "UltraFeedback, Nectar",
        readers.fits_answers,
        readers.read_answers,
        rated=True,
    ),
    Form(
        "message tree",
        "prompt as {text, role, replies}, whose replies have ranks",
        "OASST",
        readers.fits_tree,
        readers.read_tree,
        rated=True,
    ),
)
"""Every form that is told by itself; the first is also that of rows which fit none."""
