"""What objectives there are: what each is for, reads and takes. No torch here: configurations are checked by it."""

import math
from collections.abc import Mapping
from typing import NamedTuple

Value = float | bool
_OF_THE_REFERENCE = frozenset({"c", "r", "D", "ref_margin"})


class Parameter(NamedTuple):
    """A number (or yes and no) that an objective takes."""

    default: Value
    meaning: str
    least: float = float("-inf")
    above: float = float("-inf")
    below: float = float("inf")

    def check(self, where: str, value: object) -> None:
        """Raise ValueError for what it cannot be."""
        kind = bool if isinstance(self.default, bool) else float
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, bool) if kind is bool else number):
            raise ValueError(f"{where} is {value!r}, not {'true or false' if kind is bool else 'a number'}")
        assert isinstance(value, int | float)
        if kind is float and not math.isfinite(value):
            raise ValueError(f"{where} is {value}; it has to be finite")
        if kind is float and not (self.least <= value < self.below and value > self.above):
            raise ValueError(f"{where} is {value}; it has to be {self.limits}")

    @property
    def limits(self) -> str:
        """What it has to be, in words; empty where anything goes."""
        lower = f"at least {self.least:g}" if self.least > float("-inf") else ""
        lower = f"above {self.above:g}" if self.above > float("-inf") else lower
        upper = f"below {self.below:g}" if self.below < float("inf") else ""
        return " and ".join(filter(None, (lower, upper)))


class Objective(NamedTuple):
    """An objective; its formula is the docstring of its loss. `reads`: the loss's arguments, which PairSums has."""

    name: str
    source: str
    use: str
    reads: tuple[str, ...]
    parameters: Mapping[str, Parameter] = {}
    whole_step: bool = False
    """Whether the loss of a pair depends on the other pairs of the step."""
    takes_beta: bool = True
    usual_beta: float | None = None
    """What beta usually is, where that is far from the default."""

    @property
    def reference_free(self) -> bool:
        """Whether the loss reads nothing of the reference."""
        return not _OF_THE_REFERENCE & set(self.reads)


_SMOOTHING = Parameter(0.0, "assumed share of flipped labels", least=0.0, below=0.5)
_SUMS = ("c", "r")
_MEANS = ("c", "r", "chosen_tokens", "rejected_tokens")
_ALL = (
    Objective(
        "sigmoid",
        "arXiv 2305.18290 eq. 7; e: Mitchell 2023, conservative DPO; m: ODPO, arXiv 2402.10571",
        "DPO: start here. e where labels are noisy, m where it is known by how much a response is better.",
        ("D", "m"),
        {"label_smoothing": _SMOOTHING},
    ),
    Objective(
        "robust",
        "arXiv 2403.00409",
        "A known share e of labels is flipped: the mean over flips is the clean loss. Unbounded below.",
        ("D",),
        {"label_smoothing": _SMOOTHING},
    ),
    Objective(
        "hinge",
        "SLiC-HF, arXiv 2305.10425",
        "Pairs that are apart by 1/b are left alone.",
        ("D",),
    ),
    Objective(
        "ipo",
        "arXiv 2310.12036 eq. 17",
        "Labels that are nearly certain, where DPO would push margins without end. Margins are drawn to 1/(2b).",
        _MEANS,
        {"average": Parameter(True, "log-ratios a token; false: sums, as the paper prints it")},
    ),
    Objective(
        "sigmoid_norm",
        "Tülu 3, arXiv 2411.15124",
        "Length-normalised DPO: where the longer response wins too often.",
        _MEANS,
        usual_beta=5.0,
    ),
    Objective(
        "exo_pair",
        "arXiv 2402.00856 eq. 16",
        "Reverse KL instead of forward: seeks the mode of what is preferred.",
        ("D",),
        {"label_smoothing": Parameter(1e-3, "what the label leaves to the rejected response", above=0.0, below=0.5)},
    ),
    Objective(
        "nca_pair",
        "arXiv 2402.05369",
        "Keeps the likelihood of the chosen response from falling.",
        _SUMS,
    ),
    Objective(
        "bco_pair",
        "arXiv 2404.04656",
        "Each side is a label of its own: thumbs up, thumbs down.",
        _SUMS,
        {"bco_delta": Parameter(0.0, "reward from which on a response counts as good")},
    ),
    Objective(
        "sppo_hard",
        "arXiv 2405.00675 eq. 4.7 at P = 1 and 0",
        "A step of self-play: rounds of sampling, labelling and training.",
        _SUMS,
    ),
    Objective(
        "aot",
        "arXiv 2406.05882",
        "Margins better as a distribution, not pair by pair. Wants many pairs a step.",
        ("policy_margin", "ref_margin"),
        {"label_smoothing": _SMOOTHING},
        whole_step=True,
    ),
    Objective(
        "aot_unpaired",
        "arXiv 2406.05882",
        "As aot, for good and bad responses that are no pairs.",
        _SUMS,
        {"label_smoothing": _SMOOTHING},
        whole_step=True,
    ),
    Objective(
        "apo_zero",
        "arXiv 2408.06266 eq. 7",
        "Chosen responses better than what the model writes: raises them, lowers the rejected.",
        _SUMS,
    ),
    Objective(
        "apo_down",
        "arXiv 2408.06266 eq. 8",
        "Chosen responses worse than what the model writes: lowers both, the rejected more.",
        _SUMS,
    ),
    Objective(
        "discopop",
        "arXiv 2406.08414 eq. 5",
        "A loss that a search found. Not monotonic: from D = 0 it first pulls the wrong way, see below.",
        ("D",),
        {"discopop_tau": Parameter(0.05, "how sharply it turns from one to the other", above=0.0)},
    ),
    Objective(
        "dpop",
        "Smaug, arXiv 2402.13228",
        "Responses that differ in a few tokens, where DPO lowers both (displacement).",
        ("D", "c"),
        {"dpop_lambda": Parameter(50.0, "price of a chosen response that falls below the reference", least=0.0)},
    ),
    Objective(
        "sft",
        "the mean over tokens of the step",
        "A comparison, or beside others in a sum.",
        ("chosen_logps", "chosen_tokens_per_pair"),
        takes_beta=False,
    ),
    Objective(
        "simpo",
        "arXiv 2405.14734",
        "A comparison without a reference: nothing holds the policy.",
        ("policy_chosen", "policy_rejected", "chosen_tokens", "rejected_tokens"),
        {"simpo_gamma": Parameter(0.5, "margin that is asked for")},
        usual_beta=2.0,
    ),
    Objective(
        "naive",
        "DPO with a constant for a reference",
        "A comparison: shows what the reference buys.",
        ("policy_margin",),
    ),
)

OBJECTIVES: dict[str, Objective] = {objective.name: objective for objective in _ALL}
"""By name."""
PARAMETERS = tuple(sorted({name for objective in _ALL for name in objective.parameters}))
"""What some objective takes, `label_smoothing` included."""
