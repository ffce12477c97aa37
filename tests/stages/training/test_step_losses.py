"""The losses and gradients of a step: those of plain arithmetic over the whole step, whatever its batches."""

import numpy as np
import pytest
import torch

from data.schema import TokenPair
from stages.objectives.config import ObjectiveConfig
from stages.objectives.preference import preference_loss
from stages.pair_losses import PairLosses
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Scorer
from stages.training.step_losses import StepLosses
from tests.families import build, gradients, random_responses, relative_difference
from tests.tiny import build_model

CONFIGS = {
    "sigmoid": {},
    "aot": {"objective": "aot", "label_smoothing": 0.1},
    "aot_unpaired": {"objective": "aot_unpaired"},
    "sum": {"objective": {"aot": 0.5, "sft": 0.1, "bco_pair": 1.0}},
    "sft": {"objective": "sft"},
    "ld": {"ld_alpha": 0.3},
    "ld_sum": {"objective": {"sigmoid": 1.0, "sft": 1.0}, "ld_alpha": 0.0},
    "ld_aot": {"objective": "aot", "ld_alpha": 0.3},
    "wpo": {"use_weighting": True},
    "wpo_sft": {"objective": "sft", "use_weighting": True},
    "wpo_aot": {"objective": "aot", "use_weighting": True},
    "js": {"f_divergence_type": "js_divergence"},
    "ipo": {"objective": "ipo"},
    "dpop": {"objective": "dpop", "dpop_lambda": 2.0},
}


def nothing() -> None:
    """Nobody asks to stop."""


def make_pairs(n: int, margins: bool = False) -> list[TokenPair]:
    """Four responses a prompt make up two pairs; the first one of a prompt is in both."""
    responses = random_responses(2 * n, siblings=4)
    groups = [responses[i : i + 4] for i in range(0, 2 * n, 4)]
    sides = [pair for group in groups for pair in ((group[0], group[1]), (group[0], group[2]))]
    own = {"margin": 0.4, "weight": 2.5} if margins else {}
    return [TokenPair(i, f"x:{i}", *side, **(own if i % 2 else {})) for i, side in enumerate(sides)]


def plain_scores(model, response):
    """Log-probs of the scored tokens, one by one, and log sum p^2 there, from the model's own logits in fp64."""
    ids = torch.tensor(np.concatenate([response.prompt_ids, response.ids]), dtype=torch.long)
    logps = torch.log_softmax(model(input_ids=ids[None]).logits[0].double(), dim=-1)
    rows = logps[len(response.prompt_ids) - 1 :][: len(response.ids)][torch.from_numpy(response.mask)]
    targets = torch.from_numpy(response.ids[response.mask].astype(np.int64))
    return rows.gather(1, targets[:, None])[:, 0], (2 * rows).logsumexp(-1).detach()


def plain_losses(model, pairs, reference, config):
    """Losses of the step by the public function, from sums that are taken here."""
    sides = [[plain_scores(model, getattr(pair, side)) for pair in pairs] for side in ("chosen", "rejected")]
    shared = [min(pair.chosen.n_scored, pair.rejected.n_scored) for pair in pairs]

    def sums(tokens, alpha):
        return torch.stack([t[:k].sum() + alpha * t[k:].sum() for t, k in zip(tokens, shared, strict=True)])

    alpha = 1.0 if config.ld_alpha is None else config.ld_alpha
    policy = [sums([tokens for tokens, _ in side], alpha) for side in sides]
    references = [
        torch.tensor([r[0] + alpha * (r[1] - r[0]) for r in rows], dtype=torch.float64)
        for rows in zip(
            *[((x.chosen_shared, x.chosen), (x.rejected_shared, x.rejected)) for x in reference], strict=True
        )
    ]
    counts = [torch.tensor([getattr(pair, side).n_scored for pair in pairs]) for side in ("chosen", "rejected")]
    terms = {config.objective: 1.0} if isinstance(config.objective, str) else config.objective
    losses = torch.zeros(len(pairs), dtype=torch.float64)
    for name, coefficient in terms.items():
        inputs = policy if name != "sft" else [torch.stack([t.sum() for t, _ in side]) for side in sides]
        given = {key: getattr(config, key) for key in ("label_smoothing", "f_divergence_type", "dpop_lambda")}
        own = {key: value for key, value in given.items() if value is not None}
        if name == "sigmoid":
            own["margins"] = torch.tensor([pair.margin for pair in pairs])
        losses = losses + coefficient * preference_loss(name, *inputs, *references, *counts, beta=config.beta, **own)
    if config.use_weighting:
        means = [torch.stack([(t - c).detach().mean() for t, c in side]) for side in sides]
        losses = losses * (means[0] + means[1]).exp()
    return losses * torch.tensor([pair.weight for pair in pairs])


def reference_of(pairs):
    values = np.random.default_rng(5).normal(-60, 3, (len(pairs), 4)).astype(np.float32).astype(float)
    return {p.key: ReferenceLogps(v[0], v[1], "{}", v[2], v[3]) for p, v in zip(pairs, values, strict=True)}


def step(model, pairs, reference, config, pack_tokens, backend="auto"):
    """Losses in the order of the pairs, and the gradient, of one step."""
    scorer = Scorer(model, pack_tokens, backend)
    batches = scorer.plan([(pair.chosen, pair.rejected) for pair in pairs])
    losses = StepLosses(pairs, [batches], scorer, PairLosses(config, reference), nothing)
    found = {}
    for batch in batches:
        found |= zip(batch.groups, losses.backward(batch).losses.tolist(), strict=True)
    return [found[i] for i in range(len(pairs))], gradients(model, torch.zeros((), requires_grad=True)), len(batches)


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("pack_tokens", [120, 4000])
def test_losses_and_gradients_are_those_of_the_whole_step(settings, pack_tokens):
    config = ObjectiveConfig(beta=0.05, **settings)
    pairs = make_pairs(10, margins=isinstance(config.objective, str) and config.objective == "sigmoid")
    reference = reference_of(pairs)
    ours, gradient, n_batches = step(build_model(), pairs, reference, config, pack_tokens)
    assert (n_batches > 3) == (pack_tokens == 120)
    model = build_model()
    plain = plain_losses(model, pairs, [reference[pair.key] for pair in pairs], config)
    assert ours == pytest.approx(plain.tolist(), rel=2e-4, abs=2e-5)
    assert relative_difference(gradient, gradients(model, plain.mean())) < 2e-5


def test_a_model_that_is_scored_by_its_own_logits_has_the_same_weights():
    """Rows, and logits that are more than an output layer: falcon stands for all that fall back."""
    config, pairs = ObjectiveConfig(beta=0.05, use_weighting=True), make_pairs(6)
    reference = reference_of(pairs)
    ours, gradient, _ = step(build("falcon"), pairs, reference, config, 300)
    model = build("falcon")
    plain = plain_losses(model, pairs, [reference[pair.key] for pair in pairs], config)
    assert ours == pytest.approx(plain.tolist(), rel=2e-4)
    assert relative_difference(gradient, gradients(model, plain.mean())) < 2e-5


def test_the_look_ahead_keeps_no_graph_and_leaves_no_gradient():
    pairs, model = make_pairs(6), build_model()
    scorer = Scorer(model, 200)
    batches = scorer.plan([(pair.chosen, pair.rejected) for pair in pairs])
    losses = StepLosses(
        pairs, [batches], scorer, PairLosses(ObjectiveConfig(objective="aot"), reference_of(pairs)), nothing
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    assert losses._whole is not None and not losses._whole[0].requires_grad


def test_a_look_ahead_can_be_stopped_between_batches():
    pairs, calls = make_pairs(10), []
    scorer = Scorer(build_model(), 120)
    batches = scorer.plan([(pair.chosen, pair.rejected) for pair in pairs])

    def stop_at_the_second():
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt

    losses = PairLosses(ObjectiveConfig(objective="aot"), reference_of(pairs))
    with pytest.raises(KeyboardInterrupt):
        StepLosses(pairs, [batches], scorer, losses, stop_at_the_second)
    assert len(calls) == 2 < len(batches)


@pytest.mark.parametrize("objective", ["sigmoid", "aot"])
def test_the_weight_of_a_pair_is_the_slope_of_its_loss(objective):
    """beta * sigmoid(-beta * D), whose D is policy's less reference's log-ratio; of aot, by differences."""
    pairs, model = make_pairs(6), build_model()
    reference, scorer, beta = reference_of(pairs), Scorer(model, 4000), 0.05
    (batch,) = scorer.plan([(pair.chosen, pair.rejected) for pair in pairs])
    config = ObjectiveConfig(objective=objective, beta=beta)
    found = StepLosses(pairs, [[batch]], scorer, PairLosses(config, reference), nothing).backward(batch)
    rows = [reference[pairs[place].key] for place in batch.groups]
    chosen, rejected = (side.whole.double() for side in found.policy)
    ref = [torch.tensor(values, dtype=torch.float64) for values in zip(*[row[:2] for row in rows], strict=True)]
    difference = (chosen - ref[0]) - (rejected - ref[1])
    if objective == "sigmoid":
        assert torch.allclose(found.weights.double(), beta * torch.sigmoid(-beta * difference), rtol=1e-5)
    else:

        def total(d):
            """Sorted policy ratios against sorted reference ratios."""
            gaps = (chosen - rejected + d).sort().values - (ref[0] - ref[1]).sort().values
            return torch.nn.functional.softplus(-beta * gaps).sum()

        for place in range(len(pairs)):
            step = torch.zeros(len(pairs), dtype=torch.float64)
            step[place] = 1e-4
            slope = (total(step) - total(-step)) / 2e-4
            assert found.weights[place].item() == pytest.approx(abs(slope.item()), rel=1e-3)


def test_going_through_for_nothing_adds_nothing():
    pairs, model = make_pairs(4), build_model()
    scorer = Scorer(model, 4000)
    (batch,) = scorer.plan([(pair.chosen, pair.rejected) for pair in pairs])
    losses = StepLosses(pairs, [[batch]], scorer, PairLosses(ObjectiveConfig(), reference_of(pairs)), nothing)
    losses.backward_nothing(batch)
    assert all(not parameter.grad.any() for parameter in model.parameters())
