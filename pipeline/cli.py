"""The commands. Nothing heavy is imported here: help and usage errors answer at once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.version import __version__

app = typer.Typer(
    name="pipeline",
    help="Preference optimisation in separate jobs: score the reference once, train only the policy, gate the result.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration file (YAML).", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, for instance train.beta=0.05. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do none of it.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop where a single row of the data is rejected.")]
_LIMIT = "METRIC=VALUE"
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="More detail; twice: tracebacks too.")]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"pipeline {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def validate(
    config: Config = None,
    set_: Set = None,
    strict: Strict = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Check configuration and data: every row counted, used or rejected with its reason. Loads no model."""
    _run("validate", config, _strictly(set_, strict), json, False, quiet, verbose)


@app.command()
def inspect(
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Pairs whose key begins so.")] = None,
    longer_than: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Pairs whose longer side has more tokens, prompt included.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="REASON", help="Rows rejected for this (docs/data.md).")] = None,
    step: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pairs of this step of the run, the largest loss first.")
    ] = None,
    worst: Annotated[
        bool, typer.Option("--worst", help="Pairs whose loss was farthest above that of their steps, over the run.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many to show.")] = 3,
) -> None:
    """Show pairs token by token, what is scored marked, or rejected rows. Changes nothing, loads no model."""
    found = {"key": key, "longer_than": longer_than, "reason": reason, "step": step, "worst": worst, "limit": limit}
    _run("inspect", config, set_, json, True, quiet, verbose, **found)


@app.command("precompute-ref")
def precompute_ref(
    config: Config = None,
    set_: Set = None,
    strict: Strict = False,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Score the share of worker I of N, from 0; torchrun needs no such option."),
    ] = None,
    accept_drift: Annotated[
        bool,
        typer.Option("--accept-drift", help="Score although this machine scores otherwise than those before."),
    ] = False,
) -> None:
    """Job 1: score the frozen reference on every pair that the store does not have."""
    _run(
        "precompute-ref",
        config,
        _strictly(set_, strict),
        json,
        dry_run,
        quiet,
        verbose,
        shard=shard,
        accept_drift=accept_drift,
    )


@app.command()
def train(
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Job 2: train the policy from stored reference log-probs; the reference is never loaded."""
    _run("train", config, set_, json, dry_run, quiet, verbose)


@app.command("eval")
def evaluate(
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    min_: Annotated[list[str] | None, typer.Option("--min", metavar=_LIMIT, help="As eval.min. Repeatable.")] = None,
    max_: Annotated[list[str] | None, typer.Option("--max", metavar=_LIMIT, help="As eval.max. Repeatable.")] = None,
    point: Annotated[bool, typer.Option("--point", help="As eval.point.")] = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="As eval.baseline: a run, folder or passed.")
    ] = None,
    max_drop: Annotated[list[str] | None, typer.Option(metavar=_LIMIT, help="As eval.max_drop. Repeatable.")] = None,
    max_rise: Annotated[list[str] | None, typer.Option(metavar=_LIMIT, help="As eval.max_rise. Repeatable.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="As eval.model: a folder, Hub id or run to evaluate. Repeatable."),
    ] = None,
) -> None:
    """Job 3: held-out pairs under the policy, compared and judged; exit code 5 where a gate fails."""
    keys = [*(["eval.point=true"] if point else []), *([] if baseline is None else [f"eval.baseline={baseline}"])]
    for name, limits in {"min": min_, "max": max_, "max_drop": max_drop, "max_rise": max_rise}.items():
        keys += [_limit(name, limit) for limit in limits or ()]
    keys += _models(model)
    _run("eval", config, [*(set_ or []), *keys], json, dry_run, quiet, verbose)


@app.command()
def report(
    config: Config = None, set_: Set = None, json: Json = False, quiet: Quiet = False, verbose: Verbose = 0
) -> None:
    """Write the evaluation as one HTML page and a summary for CI, from what the jobs left. Loads no model."""
    _run("report", config, set_, json, False, quiet, verbose)


@app.command()
def run(
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """The three jobs in order, skipping what is done."""
    _run("run", config, set_, json, dry_run, quiet, verbose)


@app.command()
def sweep(
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Make every Nth run of the grid, from the Ith on (from 0).")
    ] = None,
) -> None:
    """Train and evaluate every point of a grid (section sweep) over one store, and choose on dev pairs."""
    _run("sweep", config, set_, json, dry_run, quiet, verbose, shard=shard)


@app.command()
def status(
    config: Config = None, set_: Set = None, json: Json = False, quiet: Quiet = False, verbose: Verbose = 0
) -> None:
    """What the store holds, for which data, which field differs, what it cost, what to run next. Changes nothing."""
    _run("status", config, set_, json, True, quiet, verbose)


@app.command()
def verify(
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    rescore: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Also score N stored pairs again, and compare.")
    ] = None,
) -> None:
    """Check every part of the store: digests, values, sums against tokens. Exit code 4 where one is not right."""
    _run("verify", config, set_, json, False, quiet, verbose, rescore=rescore)


@app.command()
def gc(
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, only say what would be done.")] = False,
    compact: Annotated[bool, typer.Option("--compact", help="Also merge the small parts that many jobs left.")] = False,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name or id of a reference to drop. Repeatable.")
    ] = None,
) -> None:
    """Take away what nobody needs: references that nobody names, parts set aside, checkpoints of finished runs."""
    _run("gc", config, set_, json, not apply, quiet, verbose, compact=compact, drop=drop or [])


@app.command()
def export(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write a Parquet file for each split.")],
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    format: Annotated[str, typer.Option(metavar="NAME", help="Whose columns: trl.")] = "trl",  # noqa: A002
) -> None:
    """Write the pairs with their stored log-probs for another trainer."""
    _run("export", config, set_, json, dry_run, quiet, verbose, out=out, format=format)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows with ref_chosen_logps and ref_rejected_logps.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="What the reference is called; reference.id takes it.")],
    config: Config = None,
    set_: Set = None,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="Store them although they are not what the model gives here.")
    ] = False,
) -> None:
    """Store log-probs that another program made, as a reference of their own; a sample is scored and compared."""
    _run("import", config, set_, json, dry_run, quiet, verbose, file=file, name=name, accept_drift=accept_drift)


def _limit(name: str, limit: str) -> str:
    if "=" not in limit:
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"{option} {limit}: write it as {option} reward_accuracy=0.6")
    return f"eval.{name}.{limit}"


def _models(names: list[str] | None) -> list[str]:
    from json import dumps

    return [f"eval.model={dumps(names, ensure_ascii=False)}"] if names else []


def _strictly(assignments: list[str] | None, strict: bool) -> list[str]:
    return [*(assignments or []), *(["data.strict=true"] if strict else [])]


def _run(
    job: str,
    config: Path | None,
    assignments: list[str] | None,
    json: bool,
    dry_run: bool,
    quiet: bool,
    verbose: int,
    **arguments: Any,
) -> None:
    from pipeline.chain import Options, run_command

    raise typer.Exit(run_command(job, Options(config, assignments or [], json, dry_run, quiet, verbose, arguments)))
