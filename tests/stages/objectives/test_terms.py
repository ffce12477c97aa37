"""Nothing that is set is ever without effect, and every refusal says what to do."""

import re

import pytest

from stages.objectives.catalogue import OBJECTIVES
from stages.objectives.config import ObjectiveConfig, unusual_betas
from stages.objectives.terms import resolve_terms

PAIR_SMOOTHED = {"sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "dpo"}, "there is no objective 'dpo'; did you mean sigmoid?"),
        ({"objective": "xyzzy"}, "there is no objective 'xyzzy'; known: sigmoid, robust, hinge"),
        ({"objective": {}}, "no objective is named"),
        ({"objective": {"sigmoid": 0.0}}, "the coefficient of sigmoid is 0.0; it has to be above 0"),
        ({"objective": {"sigmoid": float("inf")}}, "the coefficient of sigmoid is inf"),
        ({"objective": "ipo", "given": {"simpo_gamma": 1.0}},
         "simpo_gamma has no effect on the objective ipo; remove it (it takes average)"),
        ({"objective": {"hinge": 1.0, "ipo": 1.0}, "given": {"discopop_tau": 1.0}},
         "discopop_tau has no effect on the objective hinge + ipo; remove it (it takes average)"),
        ({"objective": "discopop", "given": {"discopop_tau": 0}}, "discopop_tau of discopop is 0; it has to"),
        ({"objective": "dpop", "given": {"dpop_lambda": -1}}, "dpop_lambda of dpop is -1; it has to be"),
        ({"objective": "exo_pair", "given": {"label_smoothing": 0.0}},
         "label_smoothing of exo_pair is 0.0; it has to be above 0 and below 0.5"),
        ({"objective": "robust", "given": {"label_smoothing": 0.5}},
         "label_smoothing of robust is 0.5; it has to be at least 0 and below 0.5"),
        ({"objective": "ipo", "given": {"average": 1}}, "average of ipo is 1, not true or false"),
        ({"objective": "simpo", "given": {"simpo_gamma": True}}, "simpo_gamma of simpo is True, not a number"),
        ({"objective": "simpo", "given": {"simpo_gamma": float("nan")}}, "simpo_gamma of simpo is nan; it has to"),
        ({"objective": "ipo", "f_divergence_type": "js_divergence"},
         "f_divergence_type has no effect on the objective ipo, which is not built on D; remove it"),
        ({"objective": "sigmoid", "f_divergence_type": "kl"}, "there is no f_divergence_type 'kl'; known: reverse_kl,"),
        ({"objective": "sigmoid", "f_alpha_divergence_coef": 0.3}, "f_alpha_divergence_coef has no effect without"),
        ({"objective": "hinge", "margins": True}, "margins of the data have no effect on the objective hinge;"),
        ({"objective": "naive", "ld_alpha": 0.5}, "ld_alpha has no effect on the objective naive, which"),
    ],
)  # fmt: skip
def test_what_has_no_effect_or_is_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve_terms(**{"given": {}} | arguments)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_label_smoothing_is_taken_where_the_formula_has_it_and_nowhere_else(name):
    if name in PAIR_SMOOTHED:
        assert resolve_terms(name, {"label_smoothing": 0.1})[0].parameters["label_smoothing"] == 0.1
        return
    with pytest.raises(ValueError, match=f"label_smoothing has no effect on the objective {name}; remove it"):
        resolve_terms(name, {"label_smoothing": 0.0})


def test_no_label_smoothing_is_the_objectives_own():
    assert resolve_terms("exo_pair", {})[0].parameters == {"label_smoothing": 1e-3}
    assert resolve_terms("sigmoid", {})[0].parameters == {"label_smoothing": 0.0}


def test_what_reads_a_reference():
    free = {name for name, objective in OBJECTIVES.items() if objective.reference_free}
    assert free == {"sft", "simpo", "naive"}
    assert not ObjectiveConfig(objective={"sft": 1.0, "simpo": 0.5}).reads_reference
    assert ObjectiveConfig(objective={"sft": 1.0, "sigmoid": 0.5}).reads_reference


def test_the_configuration_refuses_what_the_terms_refuse():
    with pytest.raises(ValueError, match="simpo_gamma has no effect on the objective sigmoid"):
        ObjectiveConfig(simpo_gamma=0.5)
    with pytest.raises(ValueError, match="ld_alpha has no effect"):
        ObjectiveConfig(objective="sft", ld_alpha=0.5)


def test_a_beta_that_suits_sums_is_warned_of_where_means_are_taken():
    assert unusual_betas(ObjectiveConfig(objective="sigmoid_norm")) == [
        "train.beta is 0.1; with sigmoid_norm, whose log-ratios are means over tokens, it is usually about 5"
    ]
    assert not unusual_betas(ObjectiveConfig(objective="sigmoid_norm", beta=1.0))
    assert not unusual_betas(ObjectiveConfig(objective="sigmoid"))
