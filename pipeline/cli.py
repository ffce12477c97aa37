"""The commands. Nothing heavy is imported here: help and usage errors answer at once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.command import CONFIG, DRY_RUN, SET, STRICT, Ask, app, command
from pipeline.version import __version__

__all__ = ["app"]

_LIMIT = "METRIC=VALUE"


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


@command("init", without=(CONFIG, SET))
def init(
    task: Annotated[
        Literal["trial", "full", "lora", "several-gpus"] | None,
        typer.Option(help="What it is for; trial: a small model and short pairs, minutes on a CPU.  [default: trial]"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Hub id or folder of the model, in the place of an example.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="File, folder or Hub id of the pairs, in the place of prefs.jsonl."),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Translate a YAML file of TRL, axolotl or LLaMA-Factory instead."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write; one that exists is left.")] = Path(
        "pipeline.yaml"
    ),
) -> Ask:
    """Write a first configuration, a comment on every key, and say what to run next."""
    return Ask({"task": task, "model": model, "data": data, "other": other, "out": out})


@command("validate", STRICT)
def validate() -> Ask:
    """Check configuration and data: every row counted, used or rejected with its reason. Loads no model."""
    return Ask()


@command("inspect")
def inspect(
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
) -> Ask:
    """Show pairs token by token, what is scored marked, or rejected rows. Changes nothing, loads no model."""
    found = {"key": key, "longer_than": longer_than, "reason": reason, "step": step, "worst": worst, "limit": limit}
    return Ask(found, dry_run=True)


@command("precompute-ref", STRICT, DRY_RUN)
def precompute_ref(
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Score the share of worker I of N, from 0; torchrun needs no such option."),
    ] = None,
    accept_drift: Annotated[
        bool,
        typer.Option("--accept-drift", help="Score although this machine scores otherwise than those before."),
    ] = False,
) -> Ask:
    """Job 1: score the frozen reference on every pair that the store does not have."""
    return Ask({"shard": shard, "accept_drift": accept_drift})


@command("train", DRY_RUN)
def train() -> Ask:
    """Job 2: train the policy from stored reference log-probs; the reference is never loaded."""
    return Ask()


@command("eval", DRY_RUN)
def evaluate(
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
) -> Ask:
    """Job 3: held-out pairs under the policy, compared and judged; exit code 5 where a gate fails."""
    keys = [*(["eval.point=true"] if point else []), *([] if baseline is None else [f"eval.baseline={baseline}"])]
    for name, limits in {"min": min_, "max": max_, "max_drop": max_drop, "max_rise": max_rise}.items():
        keys += [_limit(name, limit) for limit in limits or ()]
    return Ask(assignments=keys + _models(model))


@command("report")
def report() -> Ask:
    """Write the evaluation as one HTML page and a summary for CI, from what the jobs left. Loads no model."""
    return Ask()


@command("run", DRY_RUN)
def run() -> Ask:
    """The three jobs in order, skipping what is done."""
    return Ask()


@command("sweep", DRY_RUN)
def sweep(
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Make every Nth run of the grid, from the Ith on (from 0).")
    ] = None,
) -> Ask:
    """Train and evaluate every point of a grid (section sweep) over one store, and choose on dev pairs."""
    return Ask({"shard": shard})


@command("status")
def status() -> Ask:
    """What the store holds, for which data, which field differs, what it cost, what to run next. Changes nothing."""
    return Ask(dry_run=True)


@command("verify")
def verify(
    rescore: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Also score N stored pairs again, and compare.")
    ] = None,
) -> Ask:
    """Check every part of the store: digests, values, sums against tokens. Exit code 4 where one is not right."""
    return Ask({"rescore": rescore})


@command("gc")
def gc(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, only say what would be done.")] = False,
    compact: Annotated[bool, typer.Option("--compact", help="Also merge the small parts that many jobs left.")] = False,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name or id of a reference to drop. Repeatable.")
    ] = None,
) -> Ask:
    """Take away what nobody needs: references that nobody names, parts set aside, checkpoints of finished runs."""
    return Ask({"compact": compact, "drop": drop or []}, dry_run=not apply)


@command("doctor")
def doctor() -> Ask:
    """What this machine has, what is missing, how to install it; with --config, what that configuration needs."""
    return Ask()


@command("config")
def config(
    what: Annotated[
        Literal["show", "schema"],
        typer.Argument(
            help="What it comes to, key by key, with where each came from; or its JSON schema, for editors."
        ),
    ],
) -> Ask:
    """Print the resolved configuration as YAML, or the schema that a configuration follows."""
    return Ask({"what": what})


@command("export", DRY_RUN)
def export(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write a Parquet file for each split.")],
    format: Annotated[str, typer.Option(metavar="NAME", help="Whose columns: trl.")] = "trl",  # noqa: A002
) -> Ask:
    """Write the pairs with their stored log-probs for another trainer."""
    return Ask({"out": out, "format": format})


@command("import", DRY_RUN)
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows with ref_chosen_logps and ref_rejected_logps.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="What the reference is called; reference.id takes it.")],
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="Store them although they are not what the model gives here.")
    ] = False,
) -> Ask:
    """Store log-probs that another program made, as a reference of their own; a sample is scored and compared."""
    return Ask({"file": file, "name": name, "accept_drift": accept_drift})


def _limit(name: str, limit: str) -> str:
    if "=" not in limit:
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"{option} {limit}: write it as {option} reward_accuracy=0.6")
    return f"eval.{name}.{limit}"


def _models(names: list[str] | None) -> list[str]:
    from json import dumps

    return [f"eval.model={dumps(names, ensure_ascii=False)}"] if names else []
