"""What the tests of `data` share: files of rows, variants of the tiny tokenizer, and the data step over a few rows."""

import copy
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from data.config import DataConfig
from data.identity import file_digest
from data.pairs.part_maker import PartMaker
from data.pairs.preparation import PreparedPairs, prepare
from data.tokens.tokenization import PairTokenizer, end_ids
from tests.tiny import write_jsonl


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as lines of JSON; a row given as text is written as it is."""

    def write(*rows: Any, name: str = "rows.jsonl") -> Path:
        return write_jsonl(tmp_path / name, list(rows))

    return write


@pytest.fixture
def tokenizer_with(tokenizer: Any) -> Callable[..., Any]:
    """A copy of the tiny tokenizer with another chat template, or with other parts of its backend."""

    def change(chat_template: str | None = "", **backend: Any) -> Any:
        changed = copy.deepcopy(tokenizer)
        if chat_template != "":
            changed.chat_template = chat_template
        for name, part in backend.items():
            setattr(changed.backend_tokenizer, name, part)
        return changed

    return change


@pytest.fixture
def prepare_rows(rows_file: Callable[..., Path], tokenizer: Any, tmp_path_factory: Any) -> Callable[..., PreparedPairs]:
    """The data step over these rows, with everything in `train` unless the configuration says otherwise."""

    def run(
        *rows: Any, using: Any = None, source: dict[str, Any] | None = None, advance: Any = None, **config: Any
    ) -> PreparedPairs:
        train = {"path": str(rows_file(*rows))} | (source or {})
        settings = DataConfig(**{"train": train, "eval_fraction": 0, "max_length": 128} | config)
        using = using or tokenizer
        pair_tokenizer = PairTokenizer(using, end_ids(using, None), settings.max_length)
        folder = tmp_path_factory.mktemp("parts")
        maker = PartMaker(lambda: pair_tokenizer, [folder], workers=1, digest=file_digest)
        return prepare(settings, maker, {"tokenizer": id(using)}, advance or (lambda _: None))

    return run


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """A real disk error half way through a file: no file may grow above so many bytes."""

    @contextmanager
    def limit(n_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
