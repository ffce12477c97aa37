"""Parts: some thousand consecutive lines of a source and the token pairs that they make, a file each.

A part is named by what it is made of, so that lines that have been made into pairs once never are again: data that grew
at their end are new in their last part only, and an interrupted job finds what it had made. Where a part ends is
decided by the lines around there, so that a row put in or taken out moves no other part's ends.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data.durable import write_bytes
from data.identity import document_key, file_digest
from data.pairs.reading import Reading
from data.pairs.splits import group_number
from data.schema import PreferencePair, Rejection, TokenPair
from data.sources.source import Line, parse_line
from data.tokens.part_schema import PART_SCHEMA, TEXTS, token_columns
from data.tokens.sketches import sketches
from data.tokens.token_pairs import PairPart, Place
from data.tokens.tokenization import PairTokenizer

FEWEST, USUAL, MOST = 512, 2048, 4096  # lines of a part
MOST_BYTES = 32 * 2**20


class RawPart(NamedTuple):
    """The lines of a part, not parsed."""

    lines: list[Line]

    @property
    def key(self) -> str:
        """What the lines say, wherever they stand."""
        digest = hashlib.sha256()
        first = self.lines[0].number
        for line in self.lines:
            digest.update(f"{line.number - first} {len(line.text)} {line.problem}\n".encode() + line.text)
        return digest.hexdigest()


def cut_parts(lines: Iterable[Line]) -> Iterator[RawPart]:
    """The lines in parts; none spans two files."""
    part: list[Line] = []
    size = 0
    for line in lines:
        if part and line.file != part[0].file:
            yield RawPart(part)
            part, size = [], 0
        part.append(line)
        size += len(line.text)
        ends = len(part) >= FEWEST and zlib.crc32(line.text) % (USUAL - FEWEST) == 0
        if ends or len(part) == MOST or size >= MOST_BYTES:
            yield RawPart(part)
            part, size = [], 0
    if part:
        yield RawPart(part)


def part_name(raw: RawPart, made_by: Mapping[str, Any]) -> str:
    """What a part is called before it is made; `made_by` is all else that its pairs depend on."""
    return document_key({"lines": raw.key, "made_by": made_by})[:32]


def make_part(raw: RawPart, reading: Reading, tokenizer: PairTokenizer, name: str, folder: Path) -> Path:
    """Write the part into the folder; its file's name has the digest of its bytes, too.

    Raises:
        DataError: the chat template did not come to an end.
    """
    batch = _batch(raw, reading, tokenizer)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content = sink.getvalue().to_pybytes()
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()}.arrow"
    write_bytes(path, content)
    return path


class OpenPart(NamedTuple):
    """A part, and the account of its lines."""

    pairs: PairPart
    rows: int
    read: int
    multi_turn: int
    seams_split: int
    rejections: list[Rejection]


def open_part(path: Path, place: Place) -> OpenPart:
    """The part in this file, memory-mapped, for lines that stand in this place."""
    account = json.loads(_schema_of(path).metadata[b"account"])
    rejections = [
        Rejection(place.first_row + ordinal, place.location(line, candidate), reason, detail)
        for line, candidate, ordinal, reason, detail in account["rejections"]
    ]
    counts = {name: int(account[name]) for name in ("rows", "read", "multi_turn", "seams_split")}
    return OpenPart(pairs=PairPart(path, place, account["pairs"]), rejections=rejections, **counts)


def _schema_of(path: Path) -> pa.Schema:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).schema


def named_digest(path: Path) -> str:
    """The digest of the part's bytes, as its name says."""
    return path.stem.partition("-")[2]


def is_whole(path: Path, digest: Callable[[Path], str] = file_digest) -> bool:
    """Whether the file is the one that its name says."""
    return path.is_file() and digest(path) == named_digest(path)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _batch(raw: RawPart, reading: Reading, tokenizer: PairTokenizer) -> pa.RecordBatch:
    first, rows, multi_turn = raw.lines[0].number, 0, 0
    places: list[tuple[int, int]] = []  # line and candidate of each pair, read or rejected
    rejections: dict[int, Rejection] = {}
    ordinals: list[int] = []  # of the pairs that were read
    seams_before = tokenizer.seams_split

    def canonical() -> Iterator[PreferencePair]:
        nonlocal rows, multi_turn
        for line in raw.lines:
            if not line.text and not line.problem:
                continue
            rows += 1
            for candidate, outcome in reading.pairs(parse_line(line)):
                ordinal = len(places)
                places.append((line.number - first, candidate))
                if isinstance(outcome, Rejection):
                    rejections[ordinal] = outcome
                else:
                    multi_turn += "assistant" in [message.role for message in outcome.prompt]
                    ordinals.append(ordinal)
                    yield outcome

    outcomes = list(tokenizer.tokenize(canonical()))
    pairs: list[TokenPair] = []
    texts: list[PreferencePair] = []
    used: list[int] = []
    for ordinal, (pair, outcome) in zip(ordinals, outcomes, strict=True):
        if isinstance(outcome, Rejection):
            rejections[ordinal] = outcome
        else:
            pairs.append(outcome)
            texts.append(pair)
            used.append(ordinal)
    account = {
        "pairs": len(pairs),
        "rows": rows,
        "read": len(places),
        "multi_turn": multi_turn,
        "seams_split": tokenizer.seams_split - seams_before,
        "rejections": [[*places[i], i, bad.reason, bad.detail] for i, bad in sorted(rejections.items())],
    }
    said = [pair.texts() for pair in texts]
    columns = {
        "line": [places[ordinal][0] for ordinal in used],
        "candidate": [places[ordinal][1] for ordinal in used],
        "ordinal": used,
        **token_columns(pairs),
        "turns": [sum(message.role == "user" for message in pair.prompt) for pair in texts],
        "group": [group_number(pair.group) for pair in texts],
        **{name: [_digest(side[i]) for side in said] for i, name in enumerate(TEXTS)},
        "chosen_sketch": sketches([pair.chosen.ids for pair in pairs]),
        "rejected_sketch": sketches([pair.rejected.ids for pair in pairs]),
    }
    schema = PART_SCHEMA.with_metadata({"account": json.dumps(account, sort_keys=True)})
    return pa.record_batch(columns, schema=schema)
