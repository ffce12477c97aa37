"""Error of a token's log-prob over a large vocabulary in fp32, against fp64: `python benchmarks/log_softmax.py`."""

import torch
from torch.nn.functional import log_softmax

import pipeline  # noqa: F401 - finds our packages
from stages.scoring.head import logits_logps

ROWS, VOCABULARY = 682, 49_152  # SmolLM2's vocabulary


def main() -> None:
    """Print the mean (the bias) and the largest error of both ways."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, VOCABULARY, generator=generator) * 3
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    rows = torch.arange(ROWS)
    exact = log_softmax(logits.double(), dim=-1)[rows, targets]
    ways = {
        "log_softmax": log_softmax(logits, dim=-1)[rows, targets],
        "ours (logsumexp)": logits_logps(logits, targets),
    }
    for name, logps in ways.items():
        error = logps.double() - exact
        print(f"{name:<18} mean error {float(error.mean()):+.1e}, largest {float(error.abs().max()):.1e} nats")


if __name__ == "__main__":
    main()
