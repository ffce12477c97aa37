"""What every command has in common: its options, declared once, and the way from them to a job.

A command is a function of its own options alone, which says what it asks of its job. Nothing heavy is imported here.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer
from typer.core import TyperCommand

from pipeline.completion import assignments

LOG_FORMAT_VARIABLE = "PIPELINE_LOG_FORMAT"

app = typer.Typer(
    name="pipeline",
    help="Preference optimisation in separate jobs: score the reference once, train only the policy, gate the result.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class _Command(TyperCommand):
    """A command that knows the keys of the configuration, which many take for options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options; of one that does not exist, say which key was probably meant."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # of click, or of typer's own copy of it
            if (option := getattr(error, "option_name", None)) is not None and hasattr(error, "message"):
                from pipeline.config import PipelineConfig
                from pipeline.suggestions import assignment_hint

                error.message += assignment_hint(option, PipelineConfig)
            raise


class Ask(NamedTuple):
    """What a command asks of its job, beyond the common options."""

    arguments: Mapping[str, Any] = {}
    """What only this job takes."""
    assignments: Sequence[str] = ()
    """`key=value`, after those of `--set`."""
    dry_run: bool = False
    """Change nothing, though no `--dry-run` was given."""


def _option(name: str, kind: Any, default: Any, *declarations: str, **settings: Any) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(*declarations, **settings)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


CONFIG = _option(
    "config", Path | None, None, "--config", "-c",
    metavar="FILE", help="Configuration file (YAML).", show_default=False,
)  # fmt: skip
SET = _option(
    "set_", list[str] | None, None, "--set",
    metavar="KEY=VALUE", help="Override a key, for instance train.beta=0.05. Repeatable.", autocompletion=assignments,
)  # fmt: skip
STRICT = _option("strict", bool, False, "--strict", help="Stop where a single row of the data is rejected.")
JSON = _option("json", bool, False, "--json", help="Print one JSON document on standard output.")
DRY_RUN = _option("dry_run", bool, False, "--dry-run", help="Say what would be done, and do none of it.")
QUIET = _option("quiet", bool, False, "--quiet", "-q", help="Warnings and errors only.")
VERBOSE = _option("verbose", int, 0, "--verbose", "-v", count=True, help="More detail; twice: tracebacks too.")
LOG_FORMAT = _option(
    "log_format", Literal["text", "json"], "text", "--log-format", envvar=LOG_FORMAT_VARIABLE,
    help="Standard error for people, or a JSON object a line (docs/observability.md).",
)  # fmt: skip
_COMMON = (CONFIG, SET, STRICT, JSON, DRY_RUN, QUIET, VERBOSE, LOG_FORMAT)
_NOT_FOR_ALL = (STRICT, DRY_RUN)


def command(
    name: str, *also: inspect.Parameter, without: Sequence[inspect.Parameter] = ()
) -> Callable[[Callable[..., Ask]], Callable[..., Ask]]:
    """Declare a command: it takes its function's options, those that all have bar `without`, and `also`."""
    options = [option for option in _COMMON if option in also or option not in (*_NOT_FOR_ALL, *without)]

    def declare(asks: Callable[..., Ask]) -> Callable[..., Ask]:
        own = inspect.signature(asks).parameters.values()

        def run(**given: Any) -> None:
            common = {option.name: given.pop(option.name, option.default) for option in _COMMON}
            raise typer.Exit(_run(name, asks(**given), **common))

        parameters = [*options, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__doc__ = asks.__doc__
        app.command(name, cls=_Command)(run)
        return asks

    return declare


def _run(
    job: str, ask: Ask, *, config: Path | None, set_: list[str] | None, strict: bool, json: bool, dry_run: bool,
    quiet: bool, verbose: int, log_format: Literal["text", "json"],
) -> int:  # fmt: skip
    assignments = [*(set_ or []), *(["data.strict=true"] if strict else []), *ask.assignments]
    given = {"json": json, "dry_run": dry_run or ask.dry_run, "quiet": quiet, "verbosity": verbose}
    with logs_as(log_format):
        return _start(job, config=config, assignments=assignments, arguments=ask.arguments, **given)


def logs_as(log_format: Literal["text", "json"]) -> AbstractContextManager[None]:
    """Standard error as it was asked for."""
    if log_format == "text":
        return nullcontext()
    from pipeline.console import logs_as_json

    return logs_as_json()


def _start(job: str, **options: Any) -> int:
    """Import what the job needs, whose warnings are part of the log, and run it."""
    try:
        from pipeline.chain import Options, run_command
    except ImportError as error:
        if options["verbosity"] >= 2:
            raise
        from pipeline.doctor.broken import without_packages

        return without_packages(job, error, as_json=options["json"])
    return run_command(job, Options(**options))
