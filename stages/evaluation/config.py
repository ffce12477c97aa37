"""Section `eval`: what is evaluated, what it is compared with, and what passes."""

import difflib
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from data.settings import Settings
from stages.evaluation.external import ExternalCommand
from stages.evaluation.generation import GenerateConfig
from stages.metrics.names import GENERATION_NAMES, LEAKAGE_NAMES, METRIC_NAMES
from stages.metrics.values import PAIR_VALUES
from stages.training.config import PASSED


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Folders = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


class EvalConfig(Settings):
    """Section `eval`: what is reported beside the metrics, and what passes (docs/gating.md)."""

    model: Folders = Field(default_factory=list)
    """Models to evaluate in the place of the run's policy: a folder, a Hub id (`owner/name@revision`) or the name of a
    run, or a list of them, which makes a leaderboard (docs/evaluating.md); none: the policy."""
    reference_free: bool = False
    """Take nothing from the store: rankings and likelihoods only, of any policy on pairs that were never scored."""
    slices: list[str] = Field(default_factory=list)
    """Columns of the data by whose values the metrics are reported, besides source, turns and length."""
    generate: GenerateConfig | None = None
    """What the policy writes by itself is looked at, too (docs/generation.md); none: it is not."""
    external: dict[str, ExternalCommand] = Field(default_factory=dict)
    """Commands that print further metrics as JSON, by name; their metrics are called NAME/KEY."""
    show_pairs: int = Field(default=0, ge=0)
    """How many of the most wrong pairs stand in the report, with their texts; 0: no text of the data does."""
    min: dict[str, float] = Field(default_factory=dict)
    """Least values by metric name, such as {reward_accuracy: 0.6}; exit code 5 below."""
    max: dict[str, float] = Field(default_factory=dict)
    """Greatest values by metric name; exit code 5 above."""
    point: bool = False
    """Hold `min` and `max` against the metric itself; false: against the strict end of its 95 % interval, if it has
    one."""
    baseline: str | None = None
    """What `max_drop` and `max_rise` compare with: a run's name, a folder with an evaluation, or `passed`: the run that
    passed last."""
    baseline_runs: int = Field(default=1, ge=1)
    """Of `baseline: passed`: how many of the runs that passed last are averaged; the more, the smaller a drop shows."""
    anchor: Folders = Field(default_factory=list)
    """A second, fixed one: a run's name or a folder with an evaluation; of several (seeds of one recipe) the mean."""
    max_drop: dict[str, float] = Field(default_factory=dict)
    """By how much a metric may be lower than the baseline's: {reward_accuracy: 0.01}; exit code 5 where it surely
    is."""
    max_rise: dict[str, float] = Field(default_factory=dict)
    """By how much a metric may be higher than the baseline's."""
    min_overlap: float = Field(default=0.8, gt=0.0, le=1.0)
    """Share of either side's pairs that both evaluations have to have; exit code 2 below."""
    looks: int = Field(default=1, ge=1)
    """Comparisons that share one false-alarm rate of 5 %: 365 for a nightly job; 1: each night has its own."""
    seed_sd: dict[str, float] = Field(default_factory=dict)
    """Standard deviation of a metric from training seed to seed, such as {reward_accuracy: 0.004}; `pipeline sweep`
    measures it. Comparisons allow for it; none: they do not."""

    @field_validator("model")
    @classmethod
    def _each_once(cls, model: list[str]) -> list[str]:
        if twice := sorted({name for name in model if model.count(name) > 1}):
            raise ValueError(f"named twice: {', '.join(twice)}")
        if "" in model:
            raise ValueError("a model has a name")
        return model

    @field_validator("seed_sd")
    @classmethod
    def _no_negative_noise(cls, seed_sd: dict[str, float]) -> dict[str, float]:
        if negative := sorted(name for name, value in seed_sd.items() if not value >= 0):
            raise ValueError(f"a standard deviation is 0 or more: {', '.join(negative)}")
        return seed_sd

    @field_validator("min", "max", "max_drop", "max_rise", "seed_sd")
    @classmethod
    def _known(cls, limits: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        known: tuple[str, ...] = tuple(PAIR_VALUES)
        commands: dict[str, ExternalCommand] = {}
        if info.field_name in ("min", "max"):
            known = (
                *METRIC_NAMES,
                *LEAKAGE_NAMES,
                *(GENERATION_NAMES if info.data.get("generate") is not None else ()),
            )
            commands = info.data.get("external", {})
        unknown = [name for name in sorted(limits) if name not in known and name.partition("/")[0] not in commands]
        if unknown:
            raise ValueError("; ".join(_no_such_metric(name, known) for name in unknown))
        return limits

    @model_validator(mode="after")
    def _something_to_compare_with(self) -> "EvalConfig":
        changes = [key for key in ("max_drop", "max_rise") if getattr(self, key)]
        if changes and self.baseline is None and not self.anchor:
            raise ValueError(
                f"{' and '.join(changes)} compare with another evaluation, and none is named: set eval.baseline "
                "(passed, a run, or a folder with an evaluation) or eval.anchor"
            )
        if self.baseline_runs > 1 and self.baseline != PASSED:
            raise ValueError(f"baseline_runs has no effect unless eval.baseline is {PASSED}; remove it")
        return self

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> "EvalConfig":
        needs = (
            (("point",), ("min", "max")),
            (("looks",), ("max_drop", "max_rise")),
            (("seed_sd", "min_overlap"), ("baseline", "anchor")),
        )
        for keys, others in needs:
            idle = [*self.model_dump(include={*keys}, exclude_defaults=True)]
            if idle and not any(getattr(self, other) for other in others):
                verb, them = ("has", "it") if len(idle) == 1 else ("have", "them")
                raise ValueError(
                    f"{' and '.join(idle)} {verb} no effect without eval.{' or eval.'.join(others)}; remove {them}"
                )
        return self

    @property
    def n_comparisons(self) -> int:
        """Comparisons with a limit that one evaluation makes."""
        return (len(self.max_drop) + len(self.max_rise)) * ((self.baseline is not None) + bool(self.anchor))

    @property
    def level(self) -> float:
        """Of the intervals that limits are held against: 95 %, or more where comparisons share the false alarms.

        An alarm is about one end of an interval. All comparisons of `looks` evaluations together raise a false one with
        a probability of at most 5 % (the union bound, whatever they have in common).
        """
        return 1.0 - 2 * min(0.025, 0.05 / (self.looks * max(1, self.n_comparisons)))


def _no_such_metric(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    plain = [each for each in known if not each.endswith(("_low", "_high"))]
    return f"no such metric: {name}; {f'did you mean {close[0]}?' if close else 'known: ' + ', '.join(plain)}"
