"""One measurement of against_trl.py, in a process of its own: `python benchmarks/workloads.py SPEC`, SPEC being JSON.

The last line on standard output is a JSON object: seconds, useful work, peak memory, the matrix-product rates of this
machine right before and right after, and how it was configured. Loading, tokenisation, start-up and a warm-up come
before the timed part: two pairs in scoring, a step on the longest pairs in training.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import combinations, count, islice
from pathlib import Path
from random import Random

import pipeline  # noqa: F401 - finds our packages
from data.rows.bad_rows import BadRow
from data.rows.canonical import canonical_pair
from data.schema import PreferencePair, SourceRow, TokenPair
from data.sources.source import Source, read_rows
from data.tokens.tokenization import PairTokenizer, end_ids, load_tokenizer
from measurement import MAX_LENGTH, Pairs, Spec, facts
from our_side import our_scoring, our_training
from trl_side import trl_scoring, trl_training

WORDS = """time people way water day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home room mother area"""


def main() -> None:
    """Measure and print."""
    spec = Spec(**json.loads(sys.argv[1]))
    pairs = load_pairs(spec)
    if spec.trl is not None:
        report = trl_training(spec, pairs) if spec.task == "training" else trl_scoring(spec, pairs)
    else:
        report = our_training(spec, pairs) if spec.task == "training" else our_scoring(spec, pairs)
    print(json.dumps(report | {"facts": facts(spec)}))


def load_pairs(spec: Spec) -> Pairs:
    """The first usable rows."""
    folder = Path(spec.model)
    tokenizer = load_tokenizer(folder)
    generation = folder / "generation_config.json"
    eos = json.loads(generation.read_bytes()).get("eos_token_id") if generation.is_file() else None
    rows = shared_rows() if spec.file is None else read_rows(Source(path=spec.file))
    outcomes = PairTokenizer(tokenizer, end_ids(tokenizer, eos), MAX_LENGTH).tokenize(canonical_pairs(rows))
    usable = ((text, tokens) for text, tokens in outcomes if isinstance(tokens, TokenPair))
    first = list(islice(usable, spec.pairs))
    if len(first) < spec.pairs:
        raise SystemExit(f"Only {len(first)} of the {spec.pairs} pairs asked for are there; lower --pairs.")
    return Pairs(*zip(*first, strict=True))


def canonical_pairs(rows: Iterable[SourceRow]) -> Iterator[PreferencePair]:
    """The rows that have a normal form."""
    for row in rows:
        try:
            yield canonical_pair(row)
        except BadRow:
            continue


def shared_rows() -> Iterator[SourceRow]:
    """Four answers a prompt, every two of them a pair; prompts of about 60 tokens, answers of 40 to 120."""
    random, words = Random(0), WORDS.split()
    for number in count():
        prompt = f"{' '.join(random.choices(words, k=28))}?"  # the template adds about 30 tokens
        answers = [" ".join(random.choices(words, k=random.randint(38, 118))) for _ in range(4)]
        for chosen, rejected in combinations(answers, 2):
            content = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            yield SourceRow(number, f"synthetic:{number}", content)


if __name__ == "__main__":
    main()
