"""The page that leads from the terms of the paper to the lines of the code."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Term(NamedTuple):
    """A term of the paper, and a line of the code that is this term."""

    paper: str
    variable: str
    file: str
    line: str
    """A text that stands in one line of the file."""


MATH_PAGE = """# From the paper to the code

Made by `python docs/generate.py`; a test finds every line again. "Paper" is arXiv 2305.18290 (DPO). All of it in nats.

## Terms

| paper | in the code | where |
|---|---|---|
{terms}

Z(x), the normaliser of the optimal policy, is nowhere: it is the same for both responses to a prompt and cancels in D.

## From a row to a step

{path}

## The optimum

Minimised over all policies, the loss on Bradley-Terry preferences of rewards R has its optimum at
pi*(y) = ref(y) exp(R(y)/b) / Z, which is the policy that maximises reward less b KL(pi || ref): what RLHF is after.
`test_the_optimum_of_the_loss_is_the_optimum_of_rlhf` trains a table of five responses and finds it within 1e-6.

## The gradient

d loss / d log pi(y+) = -b s(-bD), and the opposite for y-. By tokens that is a cross-entropy on chosen and one on
rejected with the opposite sign, both with the weight b s(-bD): the more the pair is already won, the less it counts
(`test_the_gradient_is_two_signed_and_weighted_cross_entropies`).

## Often printed otherwise

| what one reads | what is right | test |
|---|---|---|
{slips}
"""
_SUMS = "stages/objectives/pair_sums.py"
_PREFERENCE = "stages/objectives/preference.py"
TERMS = (
    Term("x, the prompt", "`Response.prompt_ids`", "data/schema.py", "    prompt_ids: TokenIds"),
    Term("y_w, y_l", "`TokenPair.chosen`, `.rejected`", "data/schema.py", "    chosen: Response"),
    Term("which tokens count", "`Response.mask`", "data/schema.py", "    mask: Mask"),
    Term(
        "log pi(y_t given x, y_<t)",
        "`chosen - normaliser`",
        "stages/scoring/head.py",
        "return chosen - normaliser, None",
    ),
    Term("log pi(y given x), summed over t", "`prefix_sums`, last", "stages/scoring/scorer.py", "tokens.cumsum(dim=1"),
    Term("log pi_ref(y given x)", "`ref_chosen_logps`", "data/store/parts.py", '("ref_chosen_logps", pa.float32())'),
    Term("log pi_theta / pi_ref of y_w", "`PairSums.c`", _SUMS, "self.policy_chosen - self.ref_chosen"),
    Term("log pi_theta / pi_ref of y_l", "`PairSums.r`", _SUMS, "self.policy_rejected - self.ref_rejected"),
    Term("their difference", "`PairSums.D`", _SUMS, "return self.c - self.r"),
    Term("beta", "`train.beta`", "stages/objectives/config.py", "beta: float = Field"),
    Term("log sigma(beta D), eq. 7", "`sigmoid`", "stages/objectives/losses.py", "return _smoothed(beta * D - m"),
    Term("reward, after eq. 5", "`implicit_rewards`", _PREFERENCE, "return beta * (policy_chosen_logps"),
    Term("mean over the data", "over the step", "stages/training/step_losses.py", "losses.sum() / len(self._pairs)"),
)
PATH = (
    ("a line of a source", "data/sources/source.py", "def read_lines("),
    ("one normal form", "data/rows/canonical.py", "def canonical_pair("),
    ("token ids and mask", "data/tokens/tokenization.py", "    def tokenize("),
    ("what the store knows", "stages/reference_rows.py", "def reference_logps("),
    ("the pairs of a step", "stages/training/order.py", "    def step("),
    ("batches of whole groups", "stages/scoring/scorer.py", "    def plan("),
    ("log-probs of tokens", "stages/scoring/scorer.py", "    def token_logps("),
    ("sums of pairs", "stages/policy_sums.py", "def sums_of_batch("),
    ("losses of pairs", "stages/pair_losses.py", "    def __call__("),
    ("the objective", "stages/objectives/preference.py", "def summed_losses("),
    ("gradient of the step", "stages/training/step_losses.py", "    def backward("),
    ("the update", "stages/training/optimizer.py", "    def step("),
)
SLIPS = (
    ("robust DPO as [-log s(bD) + log s(-bD)] / (1-2e)",
     "with (1-e) and e before the two terms; only so the mean over flipped labels is the clean loss",
     "test_the_mean_of_robust_over_flipped_labels_is_the_clean_loss"),
    ("log-probs gathered at the response's own positions",
     "token t is predicted at t-1; the first token of a response at the last of the prompt, and it counts",
     "test_the_first_token_of_a_response_is_predicted_by_the_last_of_the_prompt"),
    ("log s(z) + log s(-z) = 0", "s(z) + s(-z) = 1; the logarithms add up to -2 ln 2 at most",
     "test_log_s_of_z_and_of_minus_z_do_not_cancel"),
    ("d loss / dz = s(-z)", "-s(-z): the loss falls as z grows",
     "test_the_slope_of_the_loss_by_z_is_minus_s_of_minus_z"),
    ("a high beta is aggressive", "beta is the brake: the larger, the nearer the optimum stays to the reference",
     "test_beta_is_the_brake"),
    ("the reference takes a length bias out of the gradient",
     "it changes the weight of the pair; the direction is that of the naive loss",
     "test_a_reference_changes_the_weight_of_a_pair_and_not_the_direction_of_its_gradient"),
    ("IPO of sums", "common implementations take means over tokens, another loss; both are here (`average`)",
     "test_ipo_of_sums_and_of_means_are_two_losses"),
    ("-softplus(-x) as the loss", "softplus(-x) is the loss, -softplus(-x) is log s(x)",
     "test_softplus_of_minus_x_is_the_loss"),
)  # fmt: skip


def math_page() -> str:
    """Terms of the paper, the path of a row, and what is often printed otherwise."""
    return MATH_PAGE.format(
        terms="\n".join(f"| {t.paper} | {t.variable} | {_link(t.file, t.line)} |" for t in TERMS),
        path="\n".join(f"{i}. {what}: {_link(file, line)}" for i, (what, file, line) in enumerate(PATH, start=1)),
        slips="\n".join(f"| {said} | {right} | `{test}` |" for said, right, test in SLIPS),
    )


def _link(file: str, text: str) -> str:
    """A link to the one line of the file that has this text."""
    lines = (ROOT / file).read_text().splitlines()
    (number,) = (i for i, line in enumerate(lines, start=1) if text in line)
    return f"[{file}:{number}](../{file}#L{number})"
