"""A step whose loss or gradient is not finite: it is left out, and a few in a row end the run."""

import logging
import math

from data.errors import PipelineError
from stages.training.step import StepResult

MAX_SKIPPED = 3  # in a row
_SHOWN = 10  # rows that a message names

logger = logging.getLogger(__name__)


def tell_of_skipped_step(step: int, result: StepResult, norm: float, in_a_row: int) -> None:
    """Name the step and its rows.

    Raises:
        PipelineError: it is one too many.
    """
    name, value = ("gradient norm", norm) if math.isfinite(result.loss) else ("loss", result.loss)
    rows = ", ".join(pair.location for pair in result.pairs[:_SHOWN])
    logger.warning("step %d was left out: its %s is %s (rows %s)", step, name, value, rows)
    if in_a_row == MAX_SKIPPED:
        raise PipelineError(
            f"Training stopped at step {step}: the {name} is {value}, and the {MAX_SKIPPED - 1} steps before were no "
            "better. None of these updates was applied, and the last checkpoint is kept. The rows of this step: "
            f"{rows}; `pipeline inspect --step {step}` shows what each came to. A lower train.learning_rate, or "
            "reference.dtype: float32, usually helps."
        )
