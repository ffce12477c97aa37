"""Trackers that `train.report_to` names get the figures of metrics.jsonl too; where it names none, nothing is sent.

They are sent figures and the section `train`, never texts. One that fails is given up, and training goes on.
"""

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from data.errors import ConfigError, one_line

TrackerName = Literal["trackio", "wandb", "tensorboard"]
PROJECT = "offline-preference-pipeline"

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes the figures of a run."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take those of a step."""

    def finish(self) -> None:
        """Send what is left; the process trains no more steps of the run."""


def check_installed(names: Sequence[TrackerName]) -> None:
    """Refuse trackers whose package is missing, before any work.

    Raises:
        ConfigError: with what to install.
    """
    # A folder `wandb`, which wandb leaves where it ran, can be imported too; a package has a file.
    missing = [name for name in names if (spec := find_spec(name)) is None or spec.origin is None]
    if missing:
        raise ConfigError(
            f"train.report_to names {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed. Run: pip install '{PROJECT}[{','.join(missing)}]', or leave it out: metrics.jsonl in the "
            "run's folder has every figure."
        )


def open_trackers(
    names: Sequence[TrackerName], folder: Path, identity: str, config: Mapping[str, Any], step: int
) -> Tracker:
    """One tracker for all `names` (of none it does nothing), of the run in `folder`, `step` steps of which are done.

    `config` is shown beside the run. A run goes on under its own name, whatever process trains it.

    Raises:
        ConfigError: a package is missing.
    """
    check_installed(names)
    trackers = _Together()
    for name in names:
        trackers.open(name, partial(_open, name, folder, identity, config, step))
    return trackers


def _open(name: TrackerName, folder: Path, identity: str, config: Mapping[str, Any], step: int) -> Tracker:
    if name == "tensorboard":
        return _TensorBoard(folder / "tensorboard", step)
    # Names may be used again for other runs, and trackio knows a run by its name alone.
    label = folder.name if identity.startswith(folder.name) else f"{folder.name}-{identity[:8]}"
    own = {"id": identity[:12], "dir": str(folder), "settings": {"console": "off"}} if name == "wandb" else {}
    return _Run(name, label, config, **own)


class _Together:
    """Several trackers as one; each is given up where it fails, with one warning."""

    def __init__(self) -> None:
        self._trackers: dict[str, Tracker] = {}

    def open(self, name: str, opened: Callable[[], Tracker]) -> None:
        def keep() -> None:
            self._trackers[name] = opened()

        self._try(name, keep)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        finite = {name: value for name, value in metrics.items() if name != "step" and math.isfinite(value)}
        for name, tracker in list(self._trackers.items()):
            self._try(name, partial(tracker.log, finite, step))

    def finish(self) -> None:
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.finish)
        self._trackers.clear()

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            with redirect_stdout(sys.stderr):  # trackio prints, and standard output is the job's document
                call()
        except Exception as error:  # of another's code and network: anything may come, and nothing may stop the run
            self._trackers.pop(name, None)
            logger.warning(
                "%s has failed and gets no more figures of this run, which goes on; metrics.jsonl has them all (%s)",
                name,
                one_line(error),
            )


class _Run:
    """A run of trackio or of wandb, which share their calls."""

    def __init__(self, package: str, label: str, config: Mapping[str, Any], **own: Any) -> None:
        self._package: Any = import_module(package)
        run = self._package.init(project=PROJECT, name=label, config=dict(config), resume="allow", **own)
        self._first = getattr(run, "starting_step", 0)  # wandb: it complains about steps that it has already

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if step >= self._first:
            self._package.log(metrics, step=step)

    def finish(self) -> None:
        self._package.finish()


class _TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()
