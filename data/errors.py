"""Every error a user can cause, and the exit code each one ends a job with.

    PipelineError                 1   numbers that are not finite, or our own bug
    +-- ConfigError               2   configuration or usage
    +-- DataError                 3   preference data
    +-- StoreError                4   store or checkpoint missing, incomplete, mismatched, corrupt
    +-- GateError                 5   an evaluation gate failed
    +-- EnvironmentProblem        6   disk, memory, device
    +-- Interrupted              75   stopped by a signal with everything saved

A message is one paragraph: what happened, where, why, and the command or key that fixes it.
"""


def one_line(error: BaseException) -> str:
    """Another program's error as part of a paragraph: its class and its text without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a device's (torch's class), or torch's on a CPU, which has no class."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def wants_its_own_code(error: BaseException) -> bool:
    """Whether transformers refused a folder because it can only be loaded by code that comes with it."""
    return "trust_remote_code" in str(error)


OWN_CODE = (
    "can only be loaded by code that comes with it (auto_map), and such code is never run. Take a model that the "
    "installed transformers knows; a newer release of transformers may know this one."
)


class PipelineError(Exception):
    """Root of the tree; raised itself for numbers that are not finite."""

    exit_code = 1
    run: str | None = None
    """Name of the run that it is about, if it is about one."""


class ConfigError(PipelineError):
    """A configuration or command line that cannot be run."""

    exit_code = 2


class DataError(PipelineError):
    """Preference data that cannot be used."""

    exit_code = 3


class StoreError(PipelineError):
    """A store, run folder or checkpoint that is missing, incomplete, mismatched or corrupt."""

    exit_code = 4


class GateError(PipelineError):
    """An evaluation that ran and did not pass; its report carries this exit code."""

    exit_code = 5


class EnvironmentProblem(PipelineError):
    """The machine cannot do it: disk, memory, device."""

    exit_code = 6


class Interrupted(PipelineError):
    """A signal asked the job to stop and everything worth keeping has been saved."""

    exit_code = 75
