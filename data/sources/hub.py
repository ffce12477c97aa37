"""Reads data sets of the Hub as lines of JSON, through the library `datasets` and its cache."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from data.errors import DataError, one_line
from data.sources.lines import Line, line_of

_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_BATCH = 256  # rows held as Python objects at a time
_NO_TEXT = ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh")  # features that `datasets` decodes with other libraries


def is_hub_id(path: str) -> bool:
    """Whether it reads as `owner/name` or `owner/name@revision`."""
    return _ID.fullmatch(path) is not None


def read_hub(name: str, path: str, split: str) -> Iterator[Line]:
    """The rows of a split in order; `name` is what the source is called in locations and messages.

    Raises:
        DataError: it cannot be loaded, or holds other things than text.
    """
    rows = _load(name, path, split)
    for column, feature in rows.features.items():
        kind = _no_text(feature)
        if kind:
            raise DataError(
                f"The column {column} of the data set {name} is of the kind {kind}, and this tool aligns text models "
                "only. Take a data set of texts, or a copy of this one without that column."
            )
    number = 0
    for batch in rows.iter(_BATCH):  # a row at a time takes fifty times as long
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield line_of(name, number, dict(zip(batch, values, strict=True)))


def hub_digest(name: str, path: str, split: str) -> str:
    """Identity of a split's content: of the fingerprint that `datasets` gives it.

    Raises:
        DataError: it cannot be loaded.
    """
    return hashlib.sha256(str(_load(name, path, split)._fingerprint).encode()).hexdigest()


def _load(name: str, path: str, split: str) -> Any:
    hub_id, _, revision = path.partition("@")
    import datasets  # a second of import, for Hub ids only

    try:
        return datasets.load_dataset(hub_id, split=split, revision=revision or None)
    except Exception as error:
        raise DataError(
            f"The data set {name} cannot be loaded from the Hub: {one_line(error)} Check the id, the split and the "
            "network, or name a file or folder that is here."
        ) from error


def _no_text(feature: Any) -> str | None:
    """The kind of an image, sound or the like in a feature, however deep."""
    if type(feature).__name__ in _NO_TEXT:
        return type(feature).__name__
    if isinstance(feature, dict):
        inner = list(feature.values())
    else:
        inner = [feature.feature] if hasattr(feature, "feature") else []
    return next(filter(None, map(_no_text, inner)), None)
