"""Likelihood displacement (arXiv 2410.08847, 2402.13228): margins grow while chosen responses become less likely.

A margin is a difference: it also grows where both sides fall, the rejected one further. What the policy then says
instead of either is nobody's choice.
"""

import math
from collections.abc import Iterable

from stages.objectives.config import ObjectiveConfig
from stages.training.recent import STEPS, Line, Recent

NATS = 1.0
"""How far the mean of chosen has to fall. Log-ratios of pairs differ by some nats, so their mean over 20 steps of 16
pairs is known to a few tenths: a nat is no noise, and a response is by then e times less likely."""
_REMEDIES = {
    "dpop": "dpop, which charges for it",
    "apo_zero": "apo_zero, which raises the chosen",
    "sft": "a sum with sft ({sigmoid: 1, sft: 0.2})",
}


class Displacement:
    """Watches a run for it, and names it once."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self._beta = config.beta
        used = {term.objective.name for term in config.terms()}
        self._wanted = "apo_down" in used  # it lowers the chosen on purpose
        self._remedies = [text for name, text in _REMEDIES.items() if name not in used]
        self._recent = Recent()
        self._said = False

    def replay(self, lines: Iterable[Line]) -> None:
        """Take in the lines of metrics.jsonl that were written before: what was named then is not named again."""
        for line in lines:
            self.observe(line)

    def observe(self, line: Line) -> str | None:
        """The sentence that names it, after the first step at which it is there."""
        self._recent.add(line)
        chosen, margin = self._recent.mean("rewards/chosen"), self._recent.mean("rewards/margins")
        if self._said or self._wanted or not self._recent.full or chosen is None or margin is None:
            return None
        fall = -chosen / self._beta
        if fall < NATS or margin <= 0:
            return None
        self._said = True
        return (
            f"Likelihood displacement: by step {line['step']} the chosen responses have become less likely than "
            f"under the reference, by {fall:.1f} nats ({_times(fall)}; mean chosen reward {chosen:+.2f} over the last "
            f"{STEPS} steps), while margins grow ({margin:+.2f}): the rejected ones fall further. Where that is not "
            f"wanted, train.objective helps: {', or '.join(self._remedies)}. See docs/metrics.md."
        )


def _times(nats: float) -> str:
    return f"{math.exp(nats):.1f} times" if nats < 5 else f"e^{nats:.0f} times"
