"""The choice of a back-end: what it says, what it refuses, and that packs which are wrong do not pass."""

import logging
import re

import numpy as np
import pytest
import torch

from data.errors import ConfigError, StoreError
from stages.scoring import backends
from stages.scoring.attention.segments import SegmentsAttention
from stages.scoring.scorer import Scorer
from tests.families import build

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture
def chosen(caplog):
    """Builds a scorer; returns its back-end and the only line that was logged."""

    def choose(model, **options):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            scorer = Scorer(model, pack_tokens=256, **options)
        (line,) = [record.getMessage() for record in caplog.records if record.name == "stages.scoring.backends"]
        assert "\n" not in line
        return scorer.backend, line

    return choose


@pytest.fixture
def sabotage(monkeypatch):
    """Replaces the segments back-end by one that is given other segments than the pack has."""

    def replace(change):
        def maker(segments, n_tokens, device):
            return SegmentsAttention(change(segments), n_tokens, device)

        monkeypatch.setitem(backends.ATTENTIONS, "segments", maker)

    return replace


def refusal(error, family, **options):
    """What a model is refused with."""
    with pytest.raises(error) as refused:
        Scorer(build(family), pack_tokens=256, **options)
    return str(refused.value)


def test_packs_say_how_well_they_agree(chosen):
    backend, line = chosen(build("llama"))
    match = re.fullmatch(r"attention: segments \(packs differ from plain rows by (\d\.\de-\d\d) of their norm\)", line)
    assert backend == "segments"
    assert match and 0 < float(match[1]) < 1e-5


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("bloom", "BloomForCausalLM cannot be scored in packs (segments: its attention cannot be replaced)"),
        (
            "mamba2",
            (
                "Mamba2ForCausalLM cannot be scored in packs "
                "(segments: 0 of its 4 layers attend through the common interface)"
            ),
        ),
    ],
)
def test_rows_say_why_packs_will_not_do(chosen, family, why):
    assert chosen(build(family)) == ("rows", f"attention: rows, because {why}")


def test_rows_say_that_they_were_asked_for(chosen):
    assert chosen(build("llama"), backend="rows") == ("rows", "attention: rows, because scoring.backend says so")


def test_a_reference_scored_in_rows_gives_rows_without_a_probe(chosen, monkeypatch):
    monkeypatch.setattr(backends, "_try", lambda *_: pytest.fail("the probe ran"))
    model = build("llama")
    own = model.config._attn_implementation
    expected = ("rows", "attention: rows, because the stored reference was scored so")
    assert chosen(model, attention="rows") == expected
    assert chosen(model, attention="rows", backend="auto") == expected
    assert model.config._attn_implementation == own


def test_a_backend_that_does_not_work_is_refused_where_it_was_asked_for():
    assert refusal(ConfigError, "bloom", backend="segments") == (
        "scoring.backend: segments does not work here: BloomForCausalLM cannot be scored in packs (segments: its "
        "attention cannot be replaced). Set scoring.backend: auto, which finds one that does."
    )


def test_a_reference_scored_in_packs_refuses_a_model_that_needs_rows():
    assert refusal(StoreError, "mamba2", attention="packs") == (
        "The reference log-probs in the store were scored in packs, and here Mamba2ForCausalLM cannot be scored in "
        "packs (segments: 0 of its 4 layers attend through the common interface). Train and evaluate with the "
        "versions of torch and transformers that scored them, or set scoring.backend: rows and run "
        "`pipeline precompute-ref` to score them again."
    )


def test_a_reference_scored_in_packs_is_met_with_packs():
    assert Scorer(build("llama"), pack_tokens=256, attention="packs").attention == "packs"


@pytest.mark.parametrize("dtype", DTYPES)
def test_positions_that_run_along_the_pack_are_noticed(chosen, monkeypatch, dtype):
    lay_out = backends.lay_out_pack

    def along_the_row(*arguments):
        layout = lay_out(*arguments)
        layout.position_ids.copy_(torch.arange(layout.position_ids.shape[1]))
        return layout

    assert chosen(build("llama").to(dtype))[0] == "segments"
    monkeypatch.setattr(backends, "lay_out_pack", along_the_row)
    backend, line = chosen(build("llama").to(dtype))
    assert backend == "rows"
    assert line.startswith("attention: rows, because LlamaForCausalLM cannot be scored in packs (segments: packs diff")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_second_response_without_its_prompt_is_noticed(chosen, sabotage, dtype):
    def without_second_prefixes(segments):
        seen = set()
        return [s._replace(prefix_stop=s.prefix_start) if s[2:] in seen or seen.add(s[2:]) else s for s in segments]

    sabotage(without_second_prefixes)
    backend, line = chosen(build("llama").to(dtype))
    assert backend == "rows"
    assert "segments: packs differ from plain rows by" in line


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_response_that_sees_its_sibling_is_noticed(chosen, sabotage, dtype):
    def behind_one_another(segments):
        """Each second response reads everything from its prompt up to itself."""
        return [s._replace(prefix_stop=s.start) if s.prefix_stop > s.prefix_start else s for s in segments]

    sabotage(behind_one_another)
    assert chosen(build("llama").to(dtype))[0] == "rows"


def test_layers_that_attend_otherwise_are_noticed(chosen):
    model = build("llama")
    attention = model.model.layers[1].self_attn
    attention.forward = lambda hidden_states, **_: (torch.zeros_like(hidden_states), None)  # never calls the interface
    backend, line = chosen(model)
    assert backend == "rows"
    assert line.endswith("(segments: 3 of its 4 layers attend through the common interface)")


def test_an_exception_in_the_models_own_code_is_the_reason(chosen):
    model = build("llama")

    def refuse(_, __, inputs):
        if inputs.get("pack") is not None:
            raise ValueError("no packs\nhere")

    model.model.layers[2].register_forward_pre_hook(refuse, with_kwargs=True)
    backend, line = chosen(model)
    assert backend == "rows"
    assert line == (
        "attention: rows, because LlamaForCausalLM cannot be scored in packs (segments: ValueError: no packs here)"
    )


def test_a_model_that_falls_back_keeps_its_own_attention(chosen):
    model = build("mamba2")
    own = model.config._attn_implementation
    assert chosen(model)[0] == "rows" and model.config._attn_implementation == own
    llama = build("llama")
    own = llama.config._attn_implementation
    llama.model.layers[0].self_attn.is_causal = False
    backend, line = chosen(llama)
    assert backend == "rows" and line.endswith("(segments: its attention is not causal)")
    assert llama.config._attn_implementation == own


def test_the_probe_uses_tokens_from_the_whole_vocabulary():
    responses = backends.probe_responses(build("llama"))
    ids = np.concatenate([part for response in responses for part in (response.prompt_ids, response.ids)])
    assert ids.max() > 250 and ids.max() < 320
    assert len({response.prompt_ids.tobytes() for response in responses}) == 2
    assert len({len(response) for response in responses}) == 4
