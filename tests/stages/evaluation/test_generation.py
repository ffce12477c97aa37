"""Generation checks: greedy and nothing else, once for each prompt, and never both models at a time."""

import json
import weakref
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from data.errors import ConfigError, EnvironmentProblem, Interrupted
from data.schema import Response, TokenPair
from data.tokens.token_pairs import TokenPairs
from stages.evaluation import greedy
from stages.evaluation.generation import GenerateConfig, Generation, Speaker, generate_checks
from stages.evaluation.greedy import Decoding, greedy_responses
from stages.evaluation.responses import Speech, generation_metrics, repetition, response_columns
from stages.metrics.intervals import wilson
from stages.metrics.names import GENERATION_NAMES
from stages.scoring.config import Numerics
from stages.scoring.model import load_model
from tests.tiny import build_tokenizer, save_adapter, save_model

NUMERICS = Numerics("float32", "auto", 512)
END = [2]


class Hands:
    """A Control without a screen; it asks to stop once it was asked `patience` times."""

    def __init__(self, patience: int = 10**9) -> None:
        self.patience, self.prompts, self.tokens, self.bars = patience, 0.0, 0, 0

    @contextmanager
    def bar(self, label, pairs, stored=0):
        self.bars += 1
        yield self

    def advance(self, pairs, tokens):
        self.prompts, self.tokens = self.prompts + pairs, self.tokens + tokens

    def worked(self, on, seconds, tokens):
        assert on == "evaluation" and seconds > 0

    def stop_requested(self):
        self.patience -= 1
        return self.patience < 0


def some_pairs(n: int, start: int = 0, seed: int = 0) -> TokenPairs:
    """Pairs with prompts of many lengths, and two pairs for each."""
    generator = np.random.default_rng(seed)
    pairs = []
    for i in range(start, start + n):
        prompt = np.array([1, 3 + i, *generator.integers(3, 300, 2 + i * 5 % 17)], np.int32)
        for extra in (0, 1):
            sides = [
                Response(prompt, np.array([side, 7 + extra, 2], np.int32), np.ones(3, dtype=np.bool_))
                for side in (10, 20)
            ]
            pairs.append(TokenPair(2 * i + extra, f"prefs.jsonl:{2 * i + extra + 1}", *sides))
    return TokenPairs.of(pairs)


def generation(tmp_path, hands=None, tokenizer=None, **config) -> Generation:
    settings = GenerateConfig(**{"prompts": 8, "max_new_tokens": 12} | config)
    return Generation(
        settings, NUMERICS, Speech(tokenizer or build_tokenizer(), END), tmp_path / "kept", hands or Hands()
    )


def one_by_one(model, prompt: list[int], most: int, end: list[int]) -> list[int]:
    """Greedy decoding as it is defined: the most probable token, until one of them ends the turn."""
    response: list[int] = []
    with torch.no_grad():
        while len(response) < most and not (response and response[-1] in end):
            logits = model(torch.tensor([prompt + response]), use_cache=False).logits[0, -1]
            response.append(int(logits.argmax()))
    return response


@pytest.fixture(scope="module")
def talkative(tmp_path_factory):
    """A model whose own settings would have it sample, search, and neither repeat nor end."""
    folder = save_model(tmp_path_factory.mktemp("talkative") / "model", seed=3)
    own = {"do_sample": True, "temperature": 3.0, "repetition_penalty": 5.0, "no_repeat_ngram_size": 2,
           "min_new_tokens": 9, "num_beams": 3, "suppress_tokens": [4, 5], "eos_token_id": 9}  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(own))
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another model of the kind: a reference."""
    return save_model(tmp_path_factory.mktemp("other") / "model", seed=4)


def decoded(folder, prompts, end, most=10, pack_tokens=512, stop=lambda: False) -> list[list[int]]:
    """The responses in the order of the prompts."""
    found: dict[int, list[int]] = {}
    numerics = Numerics("float32", "auto", pack_tokens)
    for batch in greedy_responses(folder, numerics, prompts, Decoding(most, end, stop)):
        found |= batch
    return [found[place] for place in sorted(found)]


def prompts_of(pairs) -> dict[str, list[int]]:
    return {pair.prompt_key: pair.chosen.prompt_ids.tolist() for pair in pairs}


@pytest.mark.parametrize("pack_tokens", [16, 60, 4096])
def test_responses_are_those_of_the_plain_loop_whatever_the_batches(talkative, pack_tokens):
    """pad = eos stands in prompts, too: only an explicit mask tells padding from prompt."""
    generator = np.random.default_rng(1)
    prompts = [[1, *generator.integers(3, 300, n).tolist(), 2, 5] for n in (1, 9, 3, 20, 2, 2, 15)]
    model = load_model(talkative, "float32")
    end = [2, one_by_one(model, prompts[0], 10, [])[5]]  # with this one some end early
    wanted = [one_by_one(model, prompt, 10, end) for prompt in prompts]
    assert 0 < sum(response[-1] in end for response in wanted) < len(wanted)
    assert decoded(talkative, prompts, end, pack_tokens=pack_tokens) == wanted


def test_an_adapter_answers_as_its_model(talkative, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", talkative)
    prompts = list(prompts_of(some_pairs(5)).values())
    wanted = [one_by_one(load_model(adapter, "float32"), prompt, 8, END) for prompt in prompts]
    assert decoded(adapter, prompts, END, 8) == wanted != decoded(talkative, prompts, END, 8)


def test_random_numbers_go_on_as_if_nothing_had_been(talkative, monkeypatch):
    """Whatever a model draws when it is built."""
    load = greedy.load_model
    monkeypatch.setattr(greedy, "load_model", lambda *arguments: (load(*arguments), torch.rand(1))[0])
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    decoded(talkative, [[1, 5], [1, 7, 9]], END)
    assert torch.equal(torch.rand(3), wanted)


def test_batches_have_like_lengths_and_no_more_tokens_than_they_may():
    prompts = [[1] * n for n in (30, 2, 31, 3, 100, 2)]
    assert greedy._batches(prompts, 62, 10) == [[1, 5, 3], [0, 2], [4]]
    assert greedy._batches(prompts, 10_000, 10) == [[1, 5, 3, 0, 2, 4]]
    assert greedy._batches([[1]] * 5, 10, 79) == [[0], [1], [2], [3], [4]]  # 8 passes of 10 hold one of 80 tokens


def test_where_memory_runs_out_a_batch_is_halved_and_one_prompt_is_too_much(talkative, monkeypatch):
    prompts = [[1, 5, n] for n in range(5)]
    wanted, decode, sizes = decoded(talkative, prompts, END), greedy._decode, []

    def short_of_memory(model, batch, decoding):
        sizes.append(len(batch))
        if len(batch) > room:
            raise torch.OutOfMemoryError("no more")
        return decode(model, batch, decoding)

    monkeypatch.setattr(greedy, "_decode", short_of_memory)
    room = 2
    assert decoded(talkative, prompts, END) == wanted and sizes == [5, 2, 3, 1, 2]
    room = 0
    with pytest.raises(EnvironmentProblem, match=r"while the model .* answered a single prompt. Lower eval.generate"):
        decoded(talkative, prompts, END)


def test_a_model_that_reads_only_is_refused(talkative, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedModel.can_generate", classmethod(lambda cls: False))
    with pytest.raises(ConfigError, match=r"cannot generate text\. Take eval.generate out"):
        decoded(talkative, [[1]], END)


def test_figures_are_those_of_the_hand(tokenizer):
    said = tokenizer("The quick brown fox", add_special_tokens=False)["input_ids"]
    space = tokenizer(" \n", add_special_tokens=False)["input_ids"]
    answers = [[*said, 2], [2], [*space, 2], [5, 6, 7, 8, 5, 6, 7, 8, 5], [5, 5, 5, 5, 5, 5, 2]]
    speech = Speech(tokenizer, END)
    frame = pl.DataFrame(response_columns("policy", answers, 5, speech))
    assert frame["policy"][0] == "The quick brown fox" and frame["policy"][1] == ""
    assert frame["policy_tokens"].to_list() == [len(said) + 1, 1, len(space) + 1, 9, 7]
    assert frame["policy_ended"].to_list() == [True, True, True, False, True]
    assert frame["policy_empty"].to_list() == [False, True, True, False, False]
    # 5 6 7 8 | 6 7 8 5 | 7 8 5 6 | 8 5 6 7 | 5 6 7 8 | 6 7 8 5: two of six were there; 5 5 5 5 thrice: two of three
    assert frame["policy_repetition"].to_list() == pytest.approx([0, 0, 0, 2 / 6, 2 / 3])
    metrics = generation_metrics(frame, "policy")
    assert metrics["generation_length"] == pytest.approx(frame["policy_tokens"].mean())
    assert metrics["generation_ended"] == pytest.approx(4 / 5) and metrics["generation_empty"] == pytest.approx(2 / 5)
    assert metrics["generation_repetition"] == pytest.approx((2 / 6 + 2 / 3) / 5)
    assert (metrics["generation_ended_low"], metrics["generation_ended_high"]) == pytest.approx(wilson(4, 5))
    assert set(metrics) == {name for name in GENERATION_NAMES if not name.startswith("ref_")}
    assert repetition([1, 2, 3]) == 0.0
    absent = pl.DataFrame(response_columns("reference", None, 2, speech))
    assert absent.height == 2 and absent.null_count().row(0) == (2,) * 5


def test_both_models_answer_the_same_prompts_side_by_side(talkative, other, tmp_path, tokenizer):
    pairs, hands = some_pairs(12), Hands()
    metrics, frame = generate_checks(
        pairs, Speaker("p", talkative), Speaker("r", other), generation(tmp_path, hands, tokenizer)
    )
    prompts = prompts_of(pairs)
    assert frame["prompt_key"].to_list() == sorted(prompts)[:8]
    for side, folder in (("policy", talkative), ("reference", other)):
        model = load_model(folder, "float32")
        for row in frame.iter_rows(named=True):
            ids = one_by_one(model, prompts[row["prompt_key"]], 12, END)
            assert row[side] == tokenizer.decode(ids, skip_special_tokens=True)
            assert (row[f"{side}_tokens"], row[f"{side}_ended"]) == (len(ids), ids[-1] == 2)
    assert set(metrics) == set(GENERATION_NAMES)
    assert metrics["ref_generation_length"] == pytest.approx(frame["reference_tokens"].mean())
    assert frame["policy"].to_list() != frame["reference"].to_list()
    assert {pair.prompt_key: pair.location for pair in list(pairs)[::-1]}.items() >= dict(
        frame.select("prompt_key", "location").iter_rows()
    ).items()
    assert frame["prompt"][0] == tokenizer.decode(prompts[frame["prompt_key"][0]])
    assert (
        hands.prompts == 16
        and hands.tokens == frame.select("policy_tokens", "reference_tokens").sum().sum_horizontal()[0]
    )


def test_order_and_growth_of_the_data_move_the_choice_no_more_than_needed(talkative, tmp_path):
    pairs = some_pairs(12)
    job = generation(tmp_path)
    metrics, frame = generate_checks(pairs, Speaker("p", talkative), None, job)
    turned = generate_checks(pairs.take(np.arange(len(pairs))[::-1]), Speaker("p", talkative), None, job)
    assert turned[0] == metrics and turned[1].drop("location").equals(frame.drop("location"))
    grown = TokenPairs.of([*pairs, *some_pairs(6, 50)])
    chosen = set(generate_checks(grown, Speaker("p", talkative), None, job)[1]["prompt_key"])
    new = chosen - prompts_of(pairs).keys()
    assert chosen - new == set(sorted(prompts_of(pairs))[: 8 - len(new)]) and 0 < len(new) < 8


def test_where_no_token_ends_a_turn_every_response_is_cut_off(talkative):
    """As of a tokenizer without an end token: shorter prompts are filled up with a token that the mask hides."""
    prompts = [*prompts_of(some_pairs(4)).values()]
    model = load_model(talkative, "float32")
    assert decoded(talkative, prompts, [], most=6) == [one_by_one(model, prompt, 6, []) for prompt in prompts]


def test_what_was_generated_once_is_not_generated_again(talkative, other, tmp_path, monkeypatch):
    """The second evaluation loads no model; the next night asks new prompts only, and of one model."""
    pairs, asked = some_pairs(12), []
    real = greedy.greedy_responses

    def counted(folder, numerics, prompts, decoding):
        asked.append((folder, len(prompts)))
        return real(folder, numerics, prompts, decoding)

    monkeypatch.setattr(greedy, "greedy_responses", counted)
    speakers = Speaker("p", talkative), Speaker("r", other)
    first = generate_checks(pairs, *speakers, generation(tmp_path))
    assert asked == [(talkative, 8), (other, 8)]
    again = generate_checks(pairs, *speakers, generation(tmp_path))
    assert len(asked) == 2 and again[0] == first[0] and again[1].equals(first[1])
    more = generate_checks(pairs, *speakers, generation(tmp_path, prompts=10))
    assert asked[2:] == [(talkative, 2), (other, 2)] and more[1].height == 10
    generate_checks(pairs, Speaker("next", talkative), speakers[1], generation(tmp_path, prompts=10))
    assert asked[4:] == [(talkative, 10)]
    generate_checks(pairs, *speakers, generation(tmp_path, max_new_tokens=5))
    assert asked[5:] == [(talkative, 8), (other, 8)]
    other_end = replace(generation(tmp_path), speech=Speech(build_tokenizer(), [2, 9]))
    generate_checks(pairs, speakers[0], None, other_end)
    assert asked[7:] == [(talkative, 8)]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}", None])
def test_kept_responses_that_cannot_be_read_are_generated_again(talkative, tmp_path, caplog, content):
    pairs, job = some_pairs(6), generation(tmp_path)
    first = generate_checks(pairs, Speaker("p", talkative), None, job)
    (file,) = (tmp_path / "kept" / "p").iterdir()
    if content is None:
        pl.DataFrame({"prompt_key": ["x"], "ids": ["not ids"]}).write_parquet(file)
    else:
        file.write_bytes(content)
    again = generate_checks(pairs, Speaker("p", talkative), None, job)
    assert again[0] == first[0] and f"{file} cannot be read" in caplog.text


def test_a_reference_out_of_reach_is_left_out_with_a_sentence_unless_it_answered_before(
    talkative, other, tmp_path, caplog
):
    pairs = some_pairs(6)
    metrics, frame = generate_checks(pairs, Speaker("p", talkative), Speaker("r", None), generation(tmp_path))
    assert not any(name.startswith("ref_") for name in metrics) and frame["reference"].null_count() == 6
    assert "the reference is out of reach, so what it would answer to 6 prompts is not known" in caplog.text
    both = generate_checks(pairs, Speaker("p", talkative), Speaker("r", other), generation(tmp_path))
    gone = generate_checks(pairs, Speaker("p", talkative), Speaker("r", None), generation(tmp_path))
    assert gone[0] == both[0] and gone[1].equals(both[1])
    assert generate_checks(pairs, Speaker("p", talkative), None, generation(tmp_path))[0] == metrics


def test_prompts_that_leave_no_room_are_not_chosen(tmp_path, caplog):
    short = save_model(tmp_path / "short", max_position_embeddings=20)
    pairs = some_pairs(12)
    caplog.set_level("INFO", logger="stages")
    _, frame = generate_checks(pairs, Speaker("p", short), None, generation(tmp_path, max_new_tokens=12))
    fitting = sorted(key for key, ids in prompts_of(pairs).items() if len(ids) + 12 <= 20)
    assert frame["prompt_key"].to_list() == fitting[:8] and len(fitting) < 12
    assert f"{12 - len(fitting)} held-out prompts are too long to be answered" in caplog.text
    message = (
        "no held-out prompt leaves room for 17 new tokens in the 20 that the model can read: the shortest prompt has 4"
    )
    with pytest.raises(ConfigError, match=message):
        generate_checks(pairs, Speaker("p", short), None, generation(tmp_path, max_new_tokens=17))


def test_a_signal_stops_between_tokens_and_what_is_finished_is_kept(talkative, tmp_path, monkeypatch):
    monkeypatch.setattr(greedy, "_batches", lambda prompts, *_: [[place] for place in range(len(prompts))])
    pairs = some_pairs(6)
    with pytest.raises(Interrupted, match="Stopped by a signal while responses were generated; 2 of them are kept"):
        # asked before a batch, after each of its tokens, and after it
        generate_checks(pairs, Speaker("p", talkative), None, generation(tmp_path, Hands(2 * 14 + 5)))
    kept = pl.read_parquet(next((tmp_path / "kept" / "p").iterdir()))
    assert kept.height == 2
    hands = Hands()
    whole = generate_checks(pairs, Speaker("p", talkative), None, generation(tmp_path, hands))
    assert hands.prompts == 4
    assert whole[1].equals(generate_checks(pairs, Speaker("q", talkative), None, generation(tmp_path))[1])


def test_one_model_is_in_memory_at_a_time(talkative, other, tmp_path, monkeypatch):
    alive: list[weakref.ref] = []
    load = greedy.load_model

    def watched(*arguments):
        assert all(model() is None for model in alive)
        model = load(*arguments)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(greedy, "load_model", watched)
    generate_checks(some_pairs(4), Speaker("p", talkative), Speaker("r", other), generation(tmp_path))
    assert len(alive) == 2 and alive[1]() is None
