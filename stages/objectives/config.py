"""The part of section `train` that says what is optimised."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from data.settings import Settings
from stages.objectives.catalogue import PARAMETERS
from stages.objectives.terms import Divergence, Term, resolve_terms


class ObjectiveConfig(Settings):
    """What is optimised, and the parameters of it; docs/objectives.md has the table."""

    objective: str | dict[str, float] = "sigmoid"
    """The loss: `sigmoid` is DPO; docs/objectives.md has all. {name: coefficient, ...}: their weighted sum."""
    beta: float = Field(default=0.1, gt=0.0)
    """Strength of the tie to the reference; larger stays nearer to it."""
    label_smoothing: float | None = None
    """Assumed share of flipped labels, for the objectives that take one; none: the objective's default."""
    average: bool | None = None
    """For ipo: log-ratios a token; false: sums, as its paper prints it. None: true."""
    bco_delta: float | None = None
    """For bco_pair: the reward from which on a response counts as good; none: 0."""
    discopop_tau: float | None = None
    """For discopop: how sharply it turns from logistic to exponential; none: 0.05."""
    dpop_lambda: float | None = None
    """For dpop: the price of a chosen response that falls below the reference; none: 50."""
    simpo_gamma: float | None = None
    """For simpo: the margin that is asked for; none: 0.5."""
    f_divergence_type: Divergence | None = None
    """For objectives built on D: the divergence from the reference that is limited; none: reverse_kl."""
    f_alpha_divergence_coef: float | None = None
    """The order of `f_divergence_type: alpha_divergence`; none: 0.5."""
    ld_alpha: float | None = Field(default=None, ge=0.0, le=1.0)
    """LD-DPO: weight of the tokens beyond the shorter response's length, 0 to 1; none: 1, which is plain DPO."""
    use_weighting: bool = False
    """WPO: a pair weighs as much as the policy would have written it itself."""

    @model_validator(mode="after")
    def _no_parameter_without_effect(self) -> "ObjectiveConfig":
        self.terms()
        return self

    def terms(self, *, margins: bool = False) -> list[Term]:
        """The objective as weighted terms with all their parameters.

        Raises:
            ValueError: something that is set has no effect, `margins` of the data included.
        """
        own = {name: value for name in PARAMETERS if (value := getattr(self, name)) is not None}
        return resolve_terms(
            self.objective,
            own,
            f_divergence_type=self.f_divergence_type,
            f_alpha_divergence_coef=self.f_alpha_divergence_coef,
            margins=margins,
            ld_alpha=self.ld_alpha,
        )

    @property
    def reads_reference(self) -> bool:
        """Whether log-probs of the reference are needed."""
        return not all(term.objective.reference_free for term in self.terms())

    @property
    def over_the_step(self) -> bool:
        """Whether the loss of a pair depends on the others of its step."""
        return any(term.objective.whole_step for term in self.terms())

    def objective_name(self) -> str:
        """For people: `sigmoid`, or `0.8 sigmoid + 0.2 bco_pair`."""
        if isinstance(self.objective, str):
            return self.objective
        return " + ".join(f"{coefficient:g} {name}" for name, coefficient in self.objective.items())

    def objective_identity(self) -> dict[str, Any]:
        """All that decides the loss of a pair."""
        return self.model_dump(mode="json", include=set(ObjectiveConfig.model_fields))


def unusual_betas(config: ObjectiveConfig) -> Sequence[str]:
    """A sentence for each objective whose beta is usually far larger."""
    return [
        f"train.beta is {config.beta:g}; with {term.objective.name}, whose log-ratios are means over tokens, it is "
        f"usually about {term.objective.usual_beta:g}"
        for term in config.terms()
        if term.objective.usual_beta is not None and config.beta < term.objective.usual_beta / 5
    ]
