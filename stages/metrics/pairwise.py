"""What one pair says about a policy: rewards, margin, and who won."""

import math
from typing import NamedTuple


class PairScores(NamedTuple):
    """Summed log-probs of one pair, in nats, under policy and reference."""

    policy_chosen: float
    policy_rejected: float
    ref_chosen: float = math.nan
    """Not a number, as the rewards then, where there is no reference."""
    ref_rejected: float = math.nan

    def chosen_reward(self, beta: float) -> float:
        """Implicit reward of the chosen response."""
        return beta * (self.policy_chosen - self.ref_chosen)

    def rejected_reward(self, beta: float) -> float:
        """Implicit reward of the rejected response."""
        return beta * (self.policy_rejected - self.ref_rejected)

    def margin(self, beta: float) -> float:
        """Chosen reward less rejected reward."""
        return self.chosen_reward(beta) - self.rejected_reward(beta)

    @property
    def win(self) -> float:
        """1 where the chosen response has the larger reward, 0 where the rejected one has, one half for a tie."""
        return win(self.margin(1.0))


def win(difference: float) -> float:
    """1, 0, or one half for a tie."""
    return 0.5 if difference == 0 else float(difference > 0)
