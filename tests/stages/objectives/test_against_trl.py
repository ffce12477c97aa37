"""TRL's own loss beside ours; docs/objectives.md lists where they differ. Skipped where TRL is not installed."""

import math
from types import SimpleNamespace

import pytest
import torch

from docs.objectives_page import TRL
from stages.objectives.preference import preference_loss
from stages.objectives.weighting import length_desensitized, wpo_weights

trainer = pytest.importorskip("trl.trainer.dpo_trainer", reason="the extra `bench` is not installed")

B, T = 6, 12
BETA = 0.3


class Batch:
    """Token log-probs of six pairs under policy and reference, as TRL's model would give them; fp32 as there."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.lengths = torch.tensor([3, 7, 12, 5, 9, 4, 8, 7, 2, 11, 5, 6])  # chosen, then rejected
        mask = torch.arange(T) < self.lengths[:, None]
        self.mask = torch.cat([torch.zeros(2 * B, 1), mask], 1).long()  # one token of prompt
        self.policy, reference = (-(torch.randn(2 * B, T, generator=generator).abs() + 0.2) * mask for _ in range(2))
        self.ref = reference.sum(1)
        self.collisions = -(torch.rand(2 * B, T, generator=generator) + 0.5) * mask
        self.policy.requires_grad_()

    def trl(self, loss_type, weights=(1.0,), **settings) -> torch.Tensor:
        """Its mean loss."""
        outputs = SimpleNamespace(log_probs=self.policy, log_sum_sq_probs=self.collisions)
        outputs.entropy = outputs.mean_logits = torch.zeros(2 * B, T)
        outputs.is_top1 = torch.zeros(2 * B, T).bool()
        model = lambda **_: outputs  # noqa: E731
        accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
        names = [loss_type] if isinstance(loss_type, str) else list(loss_type)
        own = {"beta": BETA, "label_smoothing": 0.0, "ld_alpha": None, "use_weighting": False,
               "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5} | settings  # fmt: skip
        self_ = SimpleNamespace(
            **own, loss_types=names, loss_weights=list(weights), accelerator=accelerator, aux_loss_enabled=False,
            precompute_ref_logps=True, model=SimpleNamespace(training=True), args=SimpleNamespace(discopop_tau=0.05),
            _metrics={"train": Metrics()}, _total_train_tokens=0, _tp_size=1,
        )  # fmt: skip
        inputs = {"input_ids": torch.zeros(2 * B, T + 1).long(), "completion_mask": self.mask,
                  "attention_mask": torch.ones(2 * B, T + 1),
                  "ref_chosen_logps": self.ref[:B], "ref_rejected_logps": self.ref[B:]}  # fmt: skip
        loss: torch.Tensor = trainer.DPOTrainer._compute_loss(self_, model, inputs, False)
        return loss

    def ours(self, name, **parameters) -> torch.Tensor:
        """Our losses."""
        whole = self.policy.sum(1)
        sums = whole[:B], whole[B:], self.ref[:B], self.ref[B:]
        return preference_loss(name, *sums, self.lengths[:B], self.lengths[B:], beta=BETA, **parameters)

    def weights(self) -> torch.Tensor:
        """Of WPO."""
        means = (self.policy.detach() - self.collisions).sum(1) / self.lengths
        return wpo_weights(means[:B], means[B:])


class Metrics(dict):
    """What TRL logs; nobody reads it here."""

    def __missing__(self, name):
        return self.setdefault(name, [])


def gradient(batch: Batch, loss: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(loss, batch.policy)
    return found * batch.mask[:, 1:]


def same(batch, theirs, ours):
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)
    torch.testing.assert_close(gradient(batch, theirs), gradient(batch, ours), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", sorted(TRL))
def test_losses_and_gradients_agree(name):
    batch, theirs, ours = Batch(), {}, {}
    if name == "exo_pair":
        theirs, ours = {"label_smoothing": 1e-3}, {}
    same(batch, batch.trl(name, **theirs), batch.ours(name, **ours).mean())


@pytest.mark.parametrize("name", ["robust", "exo_pair", "aot", "aot_unpaired"])
def test_label_smoothing_agrees(name):
    batch = Batch()
    same(batch, batch.trl(name, label_smoothing=0.2), batch.ours(name, label_smoothing=0.2).mean())


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence", "alpha_divergence"])  # fmt: skip
@pytest.mark.parametrize("name", ["sigmoid", "hinge", "robust", "discopop"])
def test_f_divergences_agree(name, divergence):
    batch, kind = Batch(), {"f_divergence_type": divergence}
    same(batch, batch.trl(name, **kind), batch.ours(name, **kind).mean())


def test_weighted_sums_agree():
    batch = Batch()
    same(
        batch,
        batch.trl(("sigmoid", "bco_pair", "sft"), (0.8, 0.2, 1.0)),
        batch.ours({"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}).mean(),
    )


def test_ld_dpo_agrees():
    batch = Batch()
    shared = torch.minimum(batch.lengths[:B], batch.lengths[B:]).repeat(2)
    first = (torch.arange(T) < shared[:, None]) * batch.policy
    sums = length_desensitized(batch.policy.sum(1), first.sum(1), 0.4)
    losses = preference_loss(
        "sigmoid", sums[:B], sums[B:], batch.ref[:B], batch.ref[B:], batch.lengths[:B], batch.lengths[B:], beta=BETA
    )
    same(batch, batch.trl("sigmoid", ld_alpha=0.4), losses.mean())


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "apo_zero"])
def test_weights_of_wpo_agree(name):
    batch = Batch()
    same(batch, batch.trl(name, use_weighting=True), (batch.ours(name) * batch.weights()).mean())


def test_label_smoothing_that_has_no_effect_is_ignored_there_and_refused_here():
    batch = Batch()
    for name in ("sigmoid", "hinge"):
        assert batch.trl(name, label_smoothing=0.2).item() == batch.trl(name).item()
    assert batch.ours("sigmoid", label_smoothing=0.2).mean().item() != batch.ours("sigmoid").mean().item()
    with pytest.raises(ValueError, match="label_smoothing has no effect on the objective hinge"):
        batch.ours("hinge", label_smoothing=0.2)


def test_sft_under_weights_is_refused_by_torch_there_and_works_here():
    batch = Batch()
    with pytest.raises(RuntimeError, match="single memory location"):
        batch.trl("sft", use_weighting=True)
    assert math.isfinite((batch.ours("sft") * batch.weights()).mean().item())


def test_discopop_overflows_there_and_not_here():
    batch = Batch()
    with torch.no_grad():
        batch.policy[:B] -= 400.0
    assert not math.isfinite(batch.trl("discopop").item()) and math.isfinite(batch.ours("discopop").mean().item())


def test_weights_of_aot_go_to_the_ranks_owner_here_and_to_the_place_there():
    batch = Batch()
    theirs, ours = batch.trl("aot", use_weighting=True), (batch.ours("aot") * batch.weights()).mean()
    assert theirs.item() != pytest.approx(ours.item(), rel=1e-3)
