"""A model is loaded the same way in every job: its dtype, its rotary frequencies, no dropout."""

import pytest
import torch

from data.errors import DataError
from stages.scoring.config import Numerics
from stages.scoring.model import load_model
from stages.scoring.scorer import Scorer, load_scorer
from tests.families import build, make_response, naive_sum, random_responses
from tests.tiny import save_model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_in_the_dtype_and_rotary_frequencies_stay_fp32(model_folder, dtype):
    model = load_model(model_folder, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert not model.training and model.config.use_cache is False


def test_bf16_weights_are_the_fp32_weights_rounded(model_folder):
    exact, rounded = load_model(model_folder, "float32"), load_model(model_folder, "bfloat16")
    for one, other in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(one.bfloat16(), other)


def test_the_end_token_has_a_gradient_where_it_is_the_padding_token(tmp_path):
    model = load_model(save_model(tmp_path / "m", tie_word_embeddings=False), "float32")
    assert model.config.pad_token_id == model.config.eos_token_id == 2
    Scorer(model, pack_tokens=256).logps([make_response([5, 2, 7], [8, 9])]).sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient[[5, 2, 7, 8]].any(dim=1).all()


def test_dropout_of_the_configuration_never_happens(tmp_path):
    scorer = Scorer(load_model(save_model(tmp_path / "m", attention_dropout=0.9), "float32"), pack_tokens=256)
    responses = random_responses(4)
    first = scorer.logps(responses)  # with gradients, as in training
    with torch.inference_mode():
        assert torch.equal(first.detach(), scorer.logps(responses))


def test_soft_caps_of_attention_are_never_left_out(tmp_path):
    """Scored in rows, by the model's own attention: torch's, which transformers before 5.21 gives it, knows no caps."""
    exact = build("gemma2", attn_implementation="eager")
    exact.save_pretrained(tmp_path)
    scorer, responses = Scorer(load_model(tmp_path, "float32"), 256, "rows"), random_responses(4)
    with torch.inference_mode():
        theirs = torch.stack([naive_sum(exact, response) for response in responses]).float()
        torch.testing.assert_close(scorer.logps(responses), theirs, atol=1e-4, rtol=0)


def test_a_token_beyond_the_vocabulary_is_refused_before_scoring(model_folder):
    with pytest.raises(DataError, match="and the model has embeddings for 320 tokens"):
        load_scorer(model_folder, Numerics("float32", "auto", 256), random_responses(8, vocab=400))
