"""The reference report: by hand on a few pairs, and on SmolLM2-135M-Instruct under right and wrong templates."""

import json
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

from data.rows.canonical import canonical_pair
from data.schema import Response, SourceRow, TokenPair, unique_responses
from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from data.tokens.token_pairs import TokenPairs
from data.tokens.tokenization import PairTokenizer, load_tokenizer
from stages.evaluation import reference_report as module
from stages.evaluation.reference_report import first_look, reference_report
from stages.reference_rows import ReferenceLogps
from stages.units import pair_table, response_table

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / ".models" / "SmolLM2-135M-Instruct"
END = [2]


def response(prompt, ids, mask=None) -> Response:
    scored = np.ones(len(ids), dtype=np.bool_) if mask is None else np.array(mask, dtype=np.bool_)
    return Response(np.array(prompt, np.int32), np.array(ids, np.int32), scored)


def stored(tmp_path, pairs, logps, parts=1) -> tuple[ReferenceStore, dict[str, ReferenceLogps]]:
    """A store in which these pairs have these token log-probs (by response key), in so many parts."""
    store = ReferenceStore(LocalStorage(tmp_path / "store"), "r" * 64)
    for part in range(parts):
        unit = list(pairs)[part::parts]
        store.commit(pair_table(unit, logps), {}, response_table(unique_responses(unit), logps))
    sums = {key: float(np.sum(values, dtype=np.float64)) for key, values in logps.items()}
    return store, {pair.key: ReferenceLogps(sums[pair.chosen.key], sums[pair.rejected.key]) for pair in pairs}


@pytest.fixture
def by_hand():
    """Three pairs of two prompts; one response is cut, one ends in a token that is not scored."""
    chosen, cut = response([1, 4], [7, 8, 2]), response([1, 4], [9, 9, 9, 9])
    other, unscored = response([1, 5], [8, 2]), response([1, 5], [7, 6, 2], [1, 1, 0])
    logps = {
        chosen.key: np.log(np.array([0.5, 0.25, 0.8], np.float32)),
        cut.key: np.full(4, -1.0, np.float32),
        other.key: np.log(np.array([0.1, 0.4], np.float32)),
        unscored.key: np.full(2, -3.0, np.float32),
    }
    pairs = [
        TokenPair(0, "a:1", chosen, cut, truncated=5),
        TokenPair(1, "a:2", other, unscored),
        TokenPair(2, "a:3", cut, chosen),
    ]
    return pairs, logps


@pytest.mark.parametrize(("order", "parts"), [([0, 1, 2], 1), ([2, 0, 1], 3)])
def test_figures_are_those_of_the_hand(tmp_path, by_hand, order, parts):
    pairs, logps = by_hand
    pairs = [pairs[i] for i in order]
    store, reference = stored(tmp_path, pairs, logps, parts)
    report = reference_report(TokenPairs.of(pairs), reference, store, END)
    chosen, other = -log(0.5 * 0.25 * 0.8), -log(0.1 * 0.4)
    assert report == {
        "n_pairs": 3,
        "chosen_nll": pytest.approx((chosen / 3 + other / 2 + 1) / 3),
        "rejected_nll": pytest.approx((1 + 3 + chosen / 3) / 3),
        "chosen_nll_by_token": pytest.approx((chosen + other + 4) / (3 + 2 + 4)),
        "rejected_nll_by_token": pytest.approx((4 + 6 + chosen) / (4 + 2 + 3)),
        "ranking_accuracy": pytest.approx(2 / 3),  # the third pair is the first one, turned round
        "first_token_nll": pytest.approx((log(2) + 1 - log(0.1) + 3) / 4),
        "end_probability": pytest.approx(
            (0.8 + 0.4) / 2
        ),  # of two responses: one was cut, one is not scored at its end
        "n_ends": 2,
        "warnings": [],
    }


def test_the_report_does_not_depend_on_order_or_parts_to_the_last_bit(tmp_path):
    generator = np.random.default_rng(0)
    pairs, logps = many_pairs(60, generator, end=0.3, first=3.0, middle=1.3)
    store, reference = stored(tmp_path / "one", pairs, logps)
    other_store, _ = stored(tmp_path / "other", pairs[::-1], logps, parts=7)
    first = reference_report(TokenPairs.of(pairs), reference, store, END)
    turned = dict(reversed(reference.items()))
    assert reference_report(TokenPairs.of(pairs[::-1]), turned, other_store, END) == first


def test_imported_rows_have_no_tokens_and_no_figures_of_tokens(tmp_path, by_hand):
    pairs, logps = by_hand
    _, reference = stored(tmp_path, pairs, logps)
    report = reference_report(TokenPairs.of(pairs), reference, ReferenceStore(LocalStorage(tmp_path), "other"), END)
    assert {"first_token_nll", "end_probability", "n_ends"}.isdisjoint(report)
    assert report["ranking_accuracy"] == pytest.approx(2 / 3) and report["warnings"] == []


def test_a_damaged_part_is_named_and_believed_in_nothing(tmp_path, by_hand, caplog):
    pairs, logps = by_hand
    store, reference = stored(tmp_path, pairs, logps)
    (part,) = (tmp_path / "store").rglob("tokens/*.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    report = reference_report(TokenPairs.of(pairs), reference, store, END)
    assert "end_probability" not in report and f"{part.name} is damaged" in caplog.text


def test_a_look_at_some_parts_reads_no_others_and_pairs_that_are_not_given_do_not_count(tmp_path):
    pairs, logps = many_pairs(40, np.random.default_rng(0), end=0.3, first=3.0, middle=1.3)
    store, reference = stored(tmp_path, pairs, logps, parts=4)
    some = dict(list(reference.items())[:7])
    report = reference_report(TokenPairs.of(pairs), some, store, END, most_parts=1)
    assert report["n_pairs"] == 7 and report["n_ends"] == 20


def many_pairs(n, generator, *, end, first, middle):
    """Pairs whose responses begin at `first` nats, go on at about `middle` a token, and end with probability `end`."""
    pairs, logps = [], {}
    for i in range(n):
        sides = []
        for side in (0, 1):
            each = response([1, 5 + i], [*generator.integers(3, 300, 4 + i % 3).tolist(), 100 + side, 2])
            values = -middle * generator.uniform(0.9, 1.1, each.n_scored)
            values[0], values[-1] = -first, log(end) * generator.uniform(0.999, 1.001)
            logps[each.key] = values.astype(np.float32)
            sides.append(each)
        pairs.append(TokenPair(i, f"a:{i + 1}", *sides))
    return pairs, logps


GOOD = {"end": 0.3, "first": 4.0, "middle": 1.5}
ENDS = "The reference does not expect responses to end where they do: the token that ends them has a probability of "
BEGINS = "The reference does not expect how responses begin: their first token costs "
IMPROBABLE = "The chosen responses are improbable under the reference: "


@pytest.mark.parametrize(
    ("changed", "openings"),
    [
        ({}, []),
        ({"end": 0.06, "first": 9.5, "middle": 4.0}, []),
        ({"end": 0.04}, [f"{ENDS}0.04 (mean of 24)"]),
        ({"end": 1e-7}, [f"{ENDS}1e-07 (mean of 24)"]),
        ({"first": 10.5}, [f"{BEGINS}10.5 nats"]),
        ({"middle": 8.0}, [IMPROBABLE]),
        ({"end": 1e-7, "first": 12.0, "middle": 12.0}, [f"{IMPROBABLE}", BEGINS, ENDS]),
    ],
)
def test_a_reference_that_looks_wrong_is_told_of_in_plain_words(tmp_path, changed, openings):
    pairs, logps = many_pairs(12, np.random.default_rng(1), **GOOD | changed)
    store, reference = stored(tmp_path, pairs, logps)
    warnings = reference_report(TokenPairs.of(pairs), reference, store, END)["warnings"]
    assert len(warnings) == len(openings)
    for warning, opening in zip(warnings, openings, strict=True):
        assert warning.startswith(opening) and "`pipeline inspect`" in warning and "\n" not in warning


def test_a_handful_of_pairs_warns_of_nothing(tmp_path):
    pairs, logps = many_pairs(4, np.random.default_rng(1), end=1e-7, first=12.0, middle=12.0)
    store, reference = stored(tmp_path, pairs, logps)
    assert reference_report(TokenPairs.of(pairs), reference, store, END)["warnings"] == []


def test_a_first_look_takes_a_little_of_a_large_store(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FEW_PAIRS", 10)
    pairs, logps = many_pairs(60, np.random.default_rng(1), end=1e-3, first=4.0, middle=1.5)
    store, _ = stored(tmp_path, pairs, logps, parts=10)
    halves = TokenPairs([*TokenPairs.of(pairs[:30]).parts, *TokenPairs.of(pairs[30:]).parts])
    report = first_look(halves, store, END)
    assert report["n_pairs"] == 24 and report["n_ends"] == 48  # 8 of 10 parts, half of the pairs
    assert report["warnings"][0].startswith(ENDS)


def test_precompute_ref_warns_once_and_says_what_it_saw(work, capsys):
    """A random model knows neither texts nor ends; the second time nothing is scored, and said."""
    document = work.run("precompute-ref")
    report = document["reference_report"]
    assert report["n_pairs"] == 40 and report["n_ends"] == len(work.prepared().all.responses()["response_key"].unique())
    shown = capsys.readouterr().err
    for warning, opening in zip(report["warnings"], [IMPROBABLE, ENDS], strict=True):
        assert warning.startswith(opening) and f"warning: {warning}\n" in shown
    assert "reference_report" not in work.run("precompute-ref") and "expect" not in capsys.readouterr().err
    rows = work.stored_rows()
    nll = (-rows["ref_chosen_logps"] / rows["n_chosen"]).mean()
    assert report["chosen_nll"] == pytest.approx(nll)


# On the real model: figures of docs/generation.md.

PLAIN = "{% for m in messages %}{{m['content']}}\n{% endfor %}"
USER = (
    "{% for m in messages %}{% if m['role']=='user' %}USER: {{m['content']}}\n"
    "{% elif m['role']=='system' %}{{m['content']}}\n{% else %}ASSISTANT: {{m['content']}}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
OTHER_END = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content']}}"
    "{{'<|endoftext|>' if m['role'] == 'assistant' else '<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.real
@pytest.mark.parametrize(
    ("template", "expected"),
    [("own", []), (PLAIN, [ENDS]), (USER, [BEGINS]), (OTHER_END, [ENDS]), ("permuted", [IMPROBABLE, BEGINS, ENDS])],
    ids=["own", "plain", "user", "other_end", "permuted"],
)
def test_smollm2_is_told_from_itself_under_another_template(tmp_path, request, template, expected):
    """`permuted`: the tokenizer of another model, in effect. `plain` is what a base model is given."""
    from stages.scoring.config import Numerics
    from stages.scoring.scorer import load_scorer

    tokenizer = load_tokenizer(MODEL)
    if template not in ("own", "permuted"):
        tokenizer.chat_template = template
    ends = [tokenizer.eos_token_id, *([0] if template == OTHER_END else [])]
    lines = (ROOT / "examples" / "demo" / "prefs.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    rows = [SourceRow(i, f"prefs.jsonl:{i + 1}", json.loads(line)) for i, line in enumerate(lines)]
    tokenized = PairTokenizer(tokenizer, ends, 256).tokenize(map(canonical_pair, rows))
    pairs = [pair for _, pair in tokenized if isinstance(pair, TokenPair)]
    if template == "permuted":
        other = np.random.default_rng(0).permutation(49152).astype(np.int32)
        pairs = [TokenPair(p.row, p.location, *(Response(other[s.prompt_ids], other[s.ids], s.mask) for s in (p.chosen, p.rejected))) for p in pairs]  # noqa: E501  # fmt: skip
        ends = other[ends].tolist()
    responses = unique_responses(pairs)
    scorer = load_scorer(MODEL, Numerics("float32", "auto", 2048), responses)
    logps = {}
    with torch.inference_mode():
        for batch in scorer.plan([[each] for each in responses]):
            for each, values in zip(batch.responses, scorer.token_logps(batch.responses), strict=True):
                logps[each.key] = values[: each.n_scored].numpy()
    store, reference = stored(tmp_path, pairs, logps)
    report = reference_report(TokenPairs.of(pairs), reference, store, ends)
    figures = {name: report[name] for name in ("chosen_nll", "first_token_nll", "end_probability")}
    print(request.node.name, *(f"{name} {value:.3g}" for name, value in figures.items()), sep="; ")  # noqa: T201
    opened = zip(report["warnings"], expected, strict=True)
    assert all(warning.startswith(opening) for warning, opening in opened), report
