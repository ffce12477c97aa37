"""Compiled layers and head: the same scores and gradients, in few graphs, whatever wraps the layers besides.

The graphs are run as they are traced; what the compiler makes of them is its own business, and takes half a minute.
"""

from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.utils import counters

from data.errors import ConfigError
from pipeline.config import load_config
from pipeline.control import ProcessControl
from pipeline.inputs import Inputs
from stages.scoring import compiled
from stages.scoring.scorer import Scorer, scorer_of
from stages.scoring.tile import TileFunctions, tile_sums
from stages.training.gradient_checkpointing import checkpoint_layers
from tests.families import build, random_responses
from tests.tiny import build_model


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    """Graphs are run by torch itself, and nothing of earlier ones is kept."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield


BATCHES = [random_responses(n, siblings=2, seed=n) for n in (4, 6, 10)]
"""Packs of three lengths."""


def scores_and_gradients(scorer, batches):
    """Of batches one after the other: sums, and the gradient of all weights."""
    found = []
    for responses in batches:
        sums = scorer.logps(responses)
        sums.sum().backward()
        found.append(sums.detach())
    return torch.cat(found), torch.cat([p.grad.flatten() for p in scorer.model.parameters()])


def n_graphs():
    return counters["stats"]["unique_graphs"]


def test_scores_and_gradients_are_those_of_plain_layers_in_graphs_that_layers_and_packs_share():
    plain, ours = (
        Scorer(build_model(num_hidden_layers=3), 512),
        Scorer(build_model(num_hidden_layers=3), 512, compiled=True),
    )
    graphs = []
    with torch.inference_mode():
        for responses in BATCHES:
            torch.testing.assert_close(ours.logps(responses), plain.logps(responses), rtol=1e-5, atol=1e-5)
            graphs.append(n_graphs())
    expected = scores_and_gradients(plain, BATCHES)
    first = scores_and_gradients(ours, BATCHES[:1])
    graphs.append(n_graphs())
    for parameter in ours.model.parameters():
        parameter.grad = None
    torch.testing.assert_close(scores_and_gradients(ours, BATCHES), expected, rtol=1e-4, atol=1e-4)
    assert len(first[0]) == 4 and graphs[0] == graphs[2] and graphs[3] == n_graphs() <= 16
    assert ours.stack()["compile"] == "layers and head" and "compile" not in plain.stack()
    assert not ours.reproduces(ours.stack()) and plain.reproduces(plain.stack())


def test_gradient_checkpointing_goes_around_what_is_compiled():
    plain, ours = Scorer(build_model(), 512), Scorer(build_model(), 512, compiled=True)
    checkpoint_layers(ours.model)
    found, expected = (scores_and_gradients(scorer, BATCHES[:1]) for scorer in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.real  # for its twenty seconds
def test_several_models_are_compiled_one_after_the_other():
    """As in a sweep or a leaderboard: torch leaves what it has compiled too often as it was."""
    for width, dtype in ((16, torch.float32), (32, torch.bfloat16), (48, torch.float32)):
        scorer = Scorer(build_model(hidden_size=width).to(dtype), 512, compiled=True)
        with torch.inference_mode():
            scorer.logps(BATCHES[0])
        scores_and_gradients(scorer, BATCHES[:1])


def test_layers_that_compute_something_else_are_refused(monkeypatch):
    def wrong(graph, _):
        return lambda *inputs: [
            2 * out if isinstance(out, torch.Tensor) and out.is_floating_point() else out for out in graph(*inputs)
        ]

    monkeypatch.setattr(compiled, "BACKEND", wrong)
    refused = r"scoring.compile: the layers of LlamaForCausalLM cannot be compiled: .*they differ by .* of their norm"
    with pytest.raises(ConfigError, match=refused):
        Scorer(build_model(), 256, compiled=True)


def test_an_output_layer_that_computes_something_else_is_refused(monkeypatch):
    def shifted(*of_tile):
        sums = tile_sums(*of_tile)
        return sums._replace(log_sum=sums.log_sum + 1e-3)

    monkeypatch.setattr(compiled, "compiled", lambda _: TileFunctions(sums=shifted))
    refused = r"scoring.compile: the output layer of LlamaForCausalLM cannot be compiled: .*differ by 1.0e-03 nats\."
    with pytest.raises(ConfigError, match=refused):
        Scorer(build_model(), 256, compiled=True)


def test_a_compiler_that_fails_at_the_output_layer_is_told(monkeypatch):
    def fails(*_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiled, "compiled", lambda _: TileFunctions(sums=fails))
    with pytest.raises(ConfigError, match=r"the output layer of LlamaForCausalLM cannot be compiled: .*no C\+\+"):
        Scorer(build_model(), 256, compiled=True)


def test_a_compiler_that_fails_is_told(monkeypatch):
    def broken(graph, _):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    with pytest.raises(ConfigError, match=r"cannot be compiled: .*no C\+\+ compiler.* Set scoring.compile: false."):
        Scorer(build_model(), 256, compiled=True)


def test_the_key_reaches_every_job(tmp_path):
    settings = [f"reference.model={tmp_path}", "data.train=a.jsonl", "scoring.compile=true"]
    inputs = Inputs(load_config(None, settings), ProcessControl(quiet=True))
    bound = SimpleNamespace(settled=False, own=True, attention="packs")
    assert inputs.numerics(bound).compile
    with pytest.raises(ConfigError, match=r"FalconForCausalLM is scored in rows"):
        scorer_of(build("falcon"), inputs.numerics(bound), [])


def test_rows_are_not_compiled():
    with pytest.raises(ConfigError, match=r"scoring\.compile: FalconForCausalLM is scored in rows"):
        Scorer(build("falcon"), 256, compiled=True)
