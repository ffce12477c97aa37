"""vLLM's log-probs of prompts, measured on random weights: what serving software offers to a scoring job.

Written to vLLM's documentation, and not yet run. Prompts that ask for log-probs leave its prefix cache aside, so every
response is computed with its prompt.
"""

import tempfile
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pipeline  # noqa: F401 - finds our packages
from data.schema import TokenPair, unique_responses
from gpu_measure import measured, now, useful_work
from gpu_models import SHAPES, random_model
from gpu_plan import Cell

SHARE = 0.8  # of the GPU's memory that it may take


def vllm_scoring(cell: Cell, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """Every unique response with its prompt, through the engine that plans batches itself."""
    report: dict[str, Any] = {}
    vllm: Any = import_module("vllm")
    with tempfile.TemporaryDirectory() as folder:
        config = SHAPES[cell.model].config()
        config.architectures = [type(random_model(SHAPES[cell.model], cell.dtype, "meta")).__name__]
        config.save_pretrained(folder)
        engine = vllm.LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype=cell.dtype,
            max_model_len=cell.cap + 1,
            gpu_memory_utilization=SHARE,
        )
        report["ready_at"] = now()
        score(vllm, engine, pairs[:1])
        report["first_at"] = now()
        with measured(report, cell.dtype):
            report["mean_logp"] = score(vllm, engine, pairs)
    work = useful_work(random_model(SHAPES[cell.model], cell.dtype, "meta"), "scoring", [pairs])
    return report | work | {"configuration": {"gpu_memory_utilization": SHARE}}


def score(vllm: Any, engine: Any, pairs: Sequence[TokenPair]) -> float:
    """Mean log-prob a token of the responses."""
    responses = unique_responses(pairs)
    prompts = [{"prompt_token_ids": [*r.prompt_ids.tolist(), *r.ids.tolist()]} for r in responses]
    wanted = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    total = 0.0
    for response, answer in zip(responses, engine.generate(prompts, wanted, use_tqdm=False), strict=True):
        scored = answer.prompt_logprobs[len(response.prompt_ids) :]
        total += sum(entry[token].logprob for entry, token in zip(scored, response.ids.tolist(), strict=True))
    return total / sum(response.n_scored for response in responses)
