"""Makes parts, in this process or in several; a part that is there is not made again."""

import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import DataError
from data.pairs.pair_parts import RawPart, is_whole, make_part, part_name
from data.pairs.reading import Reading
from data.tokens.encoding import one_thread
from data.tokens.tokenization import PairTokenizer, end_ids, load_tokenizer

_FEW = 2  # parts that are not worth the start of other processes
_AHEAD = 2  # parts a process, read before they are wanted
_IMPORTED = (
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_utils_tokenizers",
    "transformers.utils.chat_template_utils",
    "data.pairs.part_maker",
)
WATCHDOG = 600.0  # seconds for a part: only what no signal reaches takes that long

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenizerRecipe:
    """All that a process needs to tokenise as every other does."""

    folder: Path
    generation_eos: int | tuple[int, ...] | None
    max_length: int

    def __call__(self) -> PairTokenizer:
        """The tokenizer."""
        tokenizer = load_tokenizer(self.folder)
        eos = list(self.generation_eos) if isinstance(self.generation_eos, tuple) else self.generation_eos
        return PairTokenizer(tokenizer, end_ids(tokenizer, eos), self.max_length)


class WantedPart(NamedTuple):
    """Lines, and how they are read."""

    raw: RawPart
    reading: Reading
    name: str


class PartMaker:
    """Gives parts for lines: those that are in one of the folders, and others made into the last of them."""

    def __init__(
        self,
        recipe: Callable[[], PairTokenizer],
        folders: Sequence[Path],
        workers: int | None,
        digest: Callable[[Path], str],
    ) -> None:
        self._recipe = recipe
        self._folders = folders
        self._workers = workers or _cores()
        self._digest = digest
        self._pool: ProcessPoolExecutor | None = None
        self._known = {path.stem.partition("-")[0]: path for folder in folders for path in folder.glob("*.arrow")}

    @cached_property
    def tokenizer(self) -> PairTokenizer:
        """That of the process itself, loaded once."""
        return self._recipe()

    def made(self, wanted: Iterable[WantedPart]) -> Generator[tuple[WantedPart, Path], None, None]:
        """Each part and its file, in order; closed early, it waits for what is under way.

        Raises:
            DataError: a chat template did not come to an end.
        """
        waiting: deque[tuple[WantedPart, Path | Future[Path] | None]] = deque()
        try:
            for part in wanted:
                waiting.append((part, self._find(part.name) or self._begin(part)))
                if self._pool is None and sum(found is None for _, found in waiting) > _FEW and self._workers > 1:
                    self._start()
                    waiting = deque((each, found or self._begin(each)) for each, found in waiting)
                    _ = self.tokenizer  # seconds of imports; the job wants it in the end, and now is time for it
                while len(waiting) > _AHEAD * self._workers or (waiting and isinstance(waiting[0][1], Path)):
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def _find(self, name: str) -> Path | None:
        path = self._known.get(name)
        if path is None or is_whole(path, self._digest):
            return path
        logger.warning("%s is not as it was written; it is made again", path)
        path.unlink(missing_ok=True)
        return None

    def _begin(self, part: WantedPart) -> "Future[Path] | None":
        return None if self._pool is None else self._pool.submit(_make, part, self._folders[-1], WATCHDOG)

    def _start(self) -> None:
        # Not forked from this process, whose libraries have threads; the server imports what all need, once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_IMPORTED))
        self._pool = ProcessPoolExecutor(self._workers, context, _begin_worker, (self._recipe,))

    def _finish(self, part: WantedPart, found: "Path | Future[Path] | None") -> tuple[WantedPart, Path]:
        if found is None:
            found = make_part(part.raw, part.reading, self.tokenizer, part.name, self._folders[-1])
        elif isinstance(found, Future):
            try:
                found = found.result()
            except BrokenProcessPool as error:
                first, last = part.raw.lines[0], part.raw.lines[-1]
                raise DataError(
                    f"A process that was making tokens of {first.file}:{first.number} to {last.number}, or of rows "
                    "soon after, came to a sudden end: memory ran out, or the chat template did not stop. What was "
                    "made before is kept. Set data.workers: 1 and run the same command again to see which row it is."
                ) from error
        self._known[part.name] = found
        return part, found


def wanted_parts(parts: Iterable[RawPart], reading: Reading, made_by: Mapping[str, Any]) -> Iterator[WantedPart]:
    """The parts of a source, named."""
    made_by = {**made_by, "reading": reading.document()}
    return (WantedPart(raw, reading, part_name(raw, made_by)) for raw in parts)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_tokenizer: PairTokenizer | None = None  # of a worker process


def _begin_worker(recipe: Callable[[], PairTokenizer]) -> None:
    global _tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gave the work says when it ends
    one_thread()
    gc.freeze()  # what is imported stays; it need not be looked through again and again
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _tokenizer = recipe()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(part: WantedPart, folder: Path, watchdog: float) -> Path:
    assert _tokenizer is not None
    faulthandler.dump_traceback_later(watchdog, exit=True)  # for a template that is deep inside one operation
    gc.disable()  # a part is many small objects and no cycles: looking for them would take a tenth of the time
    try:
        return make_part(part.raw, part.reading, _tokenizer, part.name, folder)
    finally:
        faulthandler.cancel_dump_traceback_later()
        gc.enable()
