"""Which files of a folder are a source: those of known endings, or those among them that belong to a split."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from data.errors import DataError
from data.sources.files import ENDINGS, reads

_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of `datasets`
_CACHED = re.compile(r"cache-[0-9a-f]+\.arrow")  # what `datasets` leaves beside the files that it has mapped over
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}")
_SHOWN = 10  # files that a message names


def files_of(folder: str, split: str | None) -> list[PurePath]:
    """The files of a folder by their paths in it, in the order of these; with `split` the files that belong to it.

    Raises:
        DataError: there are none, or without `split` they are of several splits, or one is a link out of the folder.
    """
    files = [PurePath(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()]
    files = sorted((file for file in files if _is_data(file)), key=PurePath.as_posix)
    _refuse_outside(Path(folder), files)
    if not files:
        raise DataError(
            f"The folder {folder} holds no preference data: no file in it has a known ending ({ENDINGS}). Correct "
            "`data.train` or `data.eval`, or put the files there."
        )
    return _of_one_split(folder, files) if split is None else _of_split(folder, files, split)


def _refuse_outside(folder: Path, files: Sequence[PurePath]) -> None:
    """A link may lead to another file of the folder; in the Hub's cache every file is a link to one of its blobs."""
    whole = folder.resolve()
    inside = [whole, *(place.parent / "blobs" for place in whole.parents if place.name == "snapshots")]
    for file in files:
        target = (folder / file).resolve()
        if not any(target.is_relative_to(place) for place in inside):
            raise DataError(
                f"{folder / file} is a link to {target}, which lies outside of the folder {folder}. What a folder "
                "holds is read, and nothing else: put the file there, or name it itself in `data.train` or `data.eval`."
            )


def _is_data(file: PurePath) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.parts)
    return reads(file.name) and not (hidden or file.name in _DESCRIPTIONS or _CACHED.fullmatch(file.name))


def _of_split(folder: str, files: Sequence[PurePath], split: str) -> list[PurePath]:
    chosen = [file for file in files if _belongs(file, split)]
    if not chosen:
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        raise DataError(
            f"No file of the folder {folder} belongs to the split {split}: the path of none has it as a word. There "
            f"are: {', '.join(map(str, files[:_SHOWN]))}{more}. Correct `split`, or remove it to read all of them."
        )
    return chosen


def _of_one_split(folder: str, files: Sequence[PurePath]) -> list[PurePath]:
    found = {file: tuple(split for split in _SPLITS if _has_word(str(file), split)) for file in files}
    kinds = {splits for splits in found.values() if splits}
    if len(kinds) > 1:
        examples = {splits: str(file) for file, splits in found.items() if splits}.values()
        named = ", ".join(split for split in _SPLITS if any(split in splits for splits in kinds))
        raise DataError(
            f"The files of the folder {folder} belong to several splits ({named}): {'; '.join(examples)}. Say which to "
            f"read, for instance `{{path: {folder}, split: {named.partition(',')[0]}}}`, or name the files as a list."
        )
    return list(files)


def _belongs(file: PurePath, split: str) -> bool:
    """By a word of the path; a shard's name tells its split in full: `train_prefs-00000-of-00001` is not of `train`."""
    shard = _SHARD.search(file.name)
    if shard is None:
        return _has_word(str(file), split)
    return shard[1].lower() == split.lower() or _has_word(str(file.parent), split)


def _has_word(text: str, word: str) -> bool:
    """`train` stands in train0.jsonl and my_train.jsonl, not in constrained.jsonl; `v1` not in v10."""
    end = r"(?![^\W_])" if word[-1:].isdigit() else r"(?![^\W\d_])"
    return re.search(rf"(?<![^\W_]){re.escape(word)}{end}", text, re.IGNORECASE) is not None
