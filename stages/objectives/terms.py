"""A configured objective as weighted terms with all their parameters; whatever would have no effect is refused.

No torch here: configurations are checked by it.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from stages.objectives.catalogue import OBJECTIVES, Objective, Value

Divergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]

_OTHER_NAMES = {
    "dpo": "sigmoid", "cdpo": "sigmoid", "rdpo": "robust", "slic": "hinge", "exo": "exo_pair", "nca": "nca_pair",
    "bco": "bco_pair", "sppo": "sppo_hard", "apo": "apo_zero", "sigmoid_normalized": "sigmoid_norm",
}  # fmt: skip
"""What objectives are called in papers and other tools."""


class Term(NamedTuple):
    """One objective of a sum."""

    objective: Objective
    coefficient: float
    parameters: dict[str, Value]


def resolve_terms(
    objective: str | Mapping[str, float],
    given: Mapping[str, Any],
    *,
    f_divergence_type: str | None = None,
    f_alpha_divergence_coef: float | None = None,
    margins: bool = False,
    ld_alpha: float | None = None,
) -> list[Term]:
    """The terms of an objective, or of a sum {name: coefficient}; what is given goes to every term that takes it.

    Raises:
        ValueError: an objective that does not exist, a value out of range, or one that has no effect.
    """
    coefficients = {objective: 1.0} if isinstance(objective, str) else dict(objective)
    _check_coefficients(coefficients)
    terms = [_term(OBJECTIVES[name], coefficient, given) for name, coefficient in coefficients.items()]
    said = " + ".join(coefficients)
    taken = {name for term in terms for name in term.parameters}
    for name in given:
        if name not in taken:
            raise ValueError(f"{name} has no effect on the objective {said}; remove it{_takes(taken)}")
    reads = {name for term in terms for name in term.objective.reads}
    _check_divergence(f_divergence_type, f_alpha_divergence_coef, said, reads)
    if margins and "m" not in reads:
        raise ValueError(f"margins of the data have no effect on the objective {said}; sigmoid takes them")
    if ld_alpha is not None and all(term.objective.reference_free for term in terms):
        raise ValueError(f"ld_alpha has no effect on the objective {said}, which reads no reference; remove it")
    return terms


def _check_coefficients(coefficients: Mapping[str, float]) -> None:
    if not coefficients:
        raise ValueError("no objective is named")
    for name, coefficient in coefficients.items():
        if name not in OBJECTIVES:
            meant = _OTHER_NAMES.get(name.lower())
            close = [meant] if meant else difflib.get_close_matches(name, OBJECTIVES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(OBJECTIVES)}"
            raise ValueError(f"there is no objective {name!r}; {hint}")
        if not (math.isfinite(coefficient) and coefficient > 0):
            raise ValueError(f"the coefficient of {name} is {coefficient}; it has to be above 0")


def _term(objective: Objective, coefficient: float, given: Mapping[str, Any]) -> Term:
    own = {}
    for name, parameter in objective.parameters.items():
        value = given.get(name, parameter.default)
        parameter.check(f"{name} of {objective.name}", value)
        own[name] = value
    return Term(objective, coefficient, own)


def _takes(names: set[str]) -> str:
    return f" (it takes {', '.join(sorted(names))})" if names else ""


def _check_divergence(divergence: str | None, alpha: float | None, said: str, reads: set[str]) -> None:
    if divergence is not None and divergence not in get_args(Divergence):
        raise ValueError(f"there is no f_divergence_type {divergence!r}; known: {', '.join(get_args(Divergence))}")
    if divergence is not None and "D" not in reads:
        raise ValueError(f"f_divergence_type has no effect on the objective {said}, which is not built on D; remove it")
    if alpha is not None and divergence != "alpha_divergence":
        raise ValueError("f_alpha_divergence_coef has no effect without f_divergence_type: alpha_divergence; remove it")
