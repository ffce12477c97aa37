"""On SmolLM2-135M-Instruct, as `make demo` unpacks it: `make test-real`."""

import json
from pathlib import Path

import pytest
import torch

from data.rows.canonical import canonical_pair
from data.schema import SourceRow, TokenPair
from data.tokens.tokenization import PairTokenizer, end_ids, load_tokenizer
from stages.scoring.config import Numerics
from stages.scoring.model import load_model
from stages.scoring.scorer import load_scorer
from tests.families import naive_sum

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "examples" / "demo" / "prefs.jsonl"
MODEL = ROOT / ".models" / "SmolLM2-135M-Instruct"

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(MODEL)


@pytest.fixture(scope="module")
def pairs(tokenizer) -> list[TokenPair]:
    lines = DEMO.read_text(encoding="utf-8").splitlines()[:12]
    rows = [SourceRow(i, f"prefs.jsonl:{i + 1}", json.loads(line)) for i, line in enumerate(lines)]
    tokenized = PairTokenizer(tokenizer, end_ids(tokenizer, None), 256).tokenize(map(canonical_pair, rows))
    found = [pair for _, pair in tokenized if isinstance(pair, TokenPair)]
    assert len(found) == 12
    return found


def test_tokens_are_those_of_the_chat_template(tokenizer, pairs):
    """Prompt and response are what the template writes, less the newline behind the end of the turn."""
    row = json.loads(DEMO.read_text(encoding="utf-8").splitlines()[0])
    conversation = [*row["prompt"], {"role": "assistant", "content": row["chosen"]}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    ours = [*pairs[0].chosen.prompt_ids.tolist(), *pairs[0].chosen.ids.tolist()]
    assert ours == whole[: len(ours)]
    assert ours[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer.decode(whole[len(ours) :]) == "\n"
    assert tokenizer.decode(pairs[0].chosen.prompt_ids).endswith("<|im_start|>assistant\n")


def test_fp32_sums_equal_the_naive_computation(pairs):
    responses = [response for pair in pairs for response in (pair.chosen, pair.rejected)]
    scorer = load_scorer(MODEL, Numerics("float32", "auto", 2048), responses)
    with torch.inference_mode():
        ours = torch.cat([scorer.logps(batch.responses) for batch in scorer.plan([[r] for r in responses])])
        order = [r for batch in scorer.plan([[r] for r in responses]) for r in batch.responses]
        model = load_model(MODEL, "float32")
        naive = torch.stack([naive_sum(model, response) for response in order])
    torch.testing.assert_close(ours.double(), naive, atol=2e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_compiled_layers_give_the_same_sums(pairs):
    """By torch's own compiler, whatever the lengths of packs."""
    responses = [response for pair in pairs for response in (pair.chosen, pair.rejected)]
    plain, compiled = (
        load_scorer(MODEL, Numerics("float32", "auto", 2048, compile=compile_), responses) for compile_ in (False, True)
    )
    with torch.inference_mode():
        for part in (responses[:6], responses[:2], responses[6:]):
            torch.testing.assert_close(compiled.logps(part), plain.logps(part), atol=1e-3, rtol=1e-5)


def test_bf16_sums_lie_near_the_fp32_sums(pairs):
    """The whole model in bf16 costs about half a nat a sequence; a bf16 head or a wrong mask would cost far more."""
    responses = [response for pair in pairs for response in (pair.chosen, pair.rejected)]
    sums = []
    for dtype in ("float32", "bfloat16"):
        scorer = load_scorer(MODEL, Numerics(dtype, "auto", 2048), responses)
        with torch.inference_mode():
            sums.append(scorer.logps(responses).double())
    assert float((sums[0] - sums[1]).square().mean().sqrt()) < 1.0
