"""Losses of other tools as objectives of ours."""

from collections.abc import Sequence

from data.errors import ConfigError
from pipeline.init.translation import Translation
from stages.objectives.catalogue import OBJECTIVES


def put_objective(
    t: Translation,
    losses: dict[str, float],
    names: Sequence[str],
    *,
    smoothing: str = "label_smoothing",
    note: str = "",
) -> None:
    """The weighted losses, which come from the keys `names`, and their parameters.

    Raises:
        ConfigError: a loss that is not there.
    """
    losses = {name: weight for name, weight in losses.items() if weight != 0}
    for name in losses:
        if name not in OBJECTIVES:
            raise ConfigError(
                f"{t.file}: the loss {name!r} of {t.tool} is not there, and another one would train another policy. "
                f"Name one of {', '.join(OBJECTIVES)} (docs/objectives.md) in a copy of the file, and translate that."
            )
    alone = len(losses) == 1 and set(losses.values()) == {1.0}
    t.put("train.objective", next(iter(losses)) if alone else losses, *names, note=note)
    said = " + ".join(losses)
    takes = {parameter for name in losses for parameter in OBJECTIVES[name].parameters}
    for theirs, ours in (
        (smoothing, "label_smoothing"),
        ("discopop_tau", "discopop_tau"),
        ("simpo_gamma", "simpo_gamma"),
    ):
        if t.has(theirs) and ours in takes:
            t.put(f"train.{ours}", float(t.number(theirs)), theirs)
        if ours not in takes:
            t.drop(theirs, f"has no effect on {said}, there or here")
    _put_divergence(t, losses, said)
    _put_weights(t, losses, said)


def _put_divergence(t: Translation, losses: dict[str, float], said: str) -> None:
    built_on_d = any("D" in OBJECTIVES[name].reads for name in losses)
    kind = t.get("f_divergence_type", "reverse_kl")
    kind = str(kind).rpartition(".")[2].lower()
    if built_on_d and t.has("f_divergence_type"):
        t.put("train.f_divergence_type", kind, "f_divergence_type")
    if not built_on_d:
        t.drop("f_divergence_type", f"has no effect on {said}")
    if built_on_d and kind == "alpha_divergence" and t.has("f_alpha_divergence_coef"):
        t.put("train.f_alpha_divergence_coef", t.number("f_alpha_divergence_coef"), "f_alpha_divergence_coef")
    else:
        t.drop("f_alpha_divergence_coef", "has an effect on f_divergence_type: alpha_divergence alone")


def _put_weights(t: Translation, losses: dict[str, float], said: str) -> None:
    if t.has("ld_alpha"):
        if all(OBJECTIVES[name].reference_free for name in losses):
            t.drop("ld_alpha", f"has no effect on {said}, which reads no reference")
        else:
            t.put("train.ld_alpha", float(t.number("ld_alpha")), "ld_alpha")
    for theirs in ("use_weighting", "dpo_use_weighting"):
        if t.has(theirs):
            t.put("train.use_weighting", t.flag(theirs), theirs)
