"""What the store costs, each step a process of its own: `python benchmarks/store.py [--model FOLDER]`.

First a million synthetic keys in parts of 256 (`--keys`): the digest check, the anti-join and the load for training.
Then the real job over 100,000 pairs (`--pairs`) and a model of one narrow layer: the first pass, a rerun with nothing
to do, a night with 1 % more, the rows in another order. With a model: what of a pass over 512 pairs is not the model.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pipeline  # noqa: F401 - finds our packages
from data.identity import document_key
from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # tests/tiny.py builds the model and the rows
IDENTITY = {"attention": "packs", "weights": ["synthetic"]}
UNIT = 256
OVERHEAD_PAIRS = 512


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        step, folder = arguments.child
        print(json.dumps(STEPS[step](Path(folder), arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS if arguments.model else [step for step in STEPS if step != "overhead"]:
            child = [sys.executable, __file__, "--keys", str(arguments.keys), "--pairs", str(arguments.pairs)]
            child += ["--model", str(arguments.model)] if arguments.model else []
            done = subprocess.run([*child, "--child", step, folder], check=True, capture_output=True, text=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            print(f"{step:<10}", ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)


def write_keys(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A store of synthetic rows."""
    import pyarrow as pa

    from data.store.parts import PAIR_SCHEMA

    store, started = synthetic(folder), time.perf_counter()
    for first in range(0, arguments.keys, UNIT):
        numbers = range(first, min(first + UNIT, arguments.keys))
        columns = {name: [-1.5] * len(numbers) for name in PAIR_SCHEMA.names if name.endswith("logps")}
        columns |= {name: [9] * len(numbers) for name in PAIR_SCHEMA.names if name.startswith("n_")}
        columns |= {name: [key(name, i) for i in numbers] for name in PAIR_SCHEMA.names if name.endswith("_key")}
        store.commit(pa.table(columns, schema=PAIR_SCHEMA), {"device": "none"})
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    return {"parts": len(store.part_names()), "MB": round(size / 1e6), "seconds": seconds_since(started)}


def check_digests(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Reading and hashing alone, on one core."""
    store = synthetic(folder)
    names = [f"{store.reference_id}/parts/{name}" for name in store.part_names()]
    started, size = time.perf_counter(), 0
    for name in names:
        content = store.storage.read(name)
        assert f"{hashlib.sha256(content).hexdigest()}.parquet" == name.rpartition("/")[2]
        size += len(content)
    return {"GB/s": round(size / 1e9 / (time.perf_counter() - started), 2), "seconds": seconds_since(started)}


def load(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What training does with the store: check, anti-join, and a dictionary of sums."""
    from stages.reference import BoundReference, ReferenceConfig
    from stages.reference_rows import reference_logps

    store = synthetic(folder)
    bound = BoundReference(ReferenceConfig(model="synthetic"), store.reference_id, IDENTITY, None)
    wanted = [key("pair_key", i) for i in range(arguments.keys)]
    started, before = time.perf_counter(), peak_mb()
    found = reference_logps(wanted, store, bound, "")
    assert len(found) == arguments.keys
    return {"seconds": seconds_since(started), "MB before": before, "MB at most": peak_mb()} | torch_loaded()


def first_pass(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The real job over pairs that nobody has scored."""
    import_module("tests.tiny").save_model(folder / "model", num_hidden_layers=1)
    write_rows(folder, arguments.pairs)
    return job(folder)


def rerun(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """The same command again."""
    return job(folder)


def night(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One per cent more pairs."""
    write_rows(folder, arguments.pairs + arguments.pairs // 100)
    return job(folder)


def rerun_again(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same pairs in another order."""
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(reversed(lines)))
    return job(folder)


def overhead(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All of a pass that is not the model: looking up, summing, packing, hashing, writing, syncing."""
    from pipeline.config import load_config
    from pipeline.control import ProcessControl
    from pipeline.inputs import Inputs
    from pipeline.reference_job import precomputation
    from stages.precompute_ref import find_work, precompute_ref
    from stages.scoring.scorer import load_scorer
    from stages.units import ALL

    write_rows(folder, OVERHEAD_PAIRS)
    control = ProcessControl(quiet=True)
    inputs = Inputs(load_config(None, assignments(folder / "real", arguments.model, folder / "rows.jsonl")), control)
    bound = inputs.bind()
    work = precomputation(inputs, bound, inputs.pairs(bound.folder).all, ALL, accept_drift=False)
    scorer = load_scorer(arguments.model, work.numerics, [])
    started = time.perf_counter()
    report = precompute_ref(work, find_work(work), control, scorer)
    whole = time.perf_counter() - started
    figures = {"pairs": report.pairs, "seconds": round(whole, 2), "of the store": round(whole - report.seconds, 3)}
    return figures | {"share": f"{1 - report.seconds / whole:.2%}"}


def assignments(work: Path, model: Path, rows: Path) -> list[str]:
    """The configuration of a job."""
    settings = {"workdir": work, "reference.model": model, "reference.dtype": "float32", "data.train": rows}
    return [
        f"{key}={value}" for key, value in (settings | {"data.max_length": 256, "scoring.backend": "segments"}).items()
    ]


def job(folder: Path) -> dict[str, Any]:
    """`pipeline precompute-ref` as a process, its wall time with start-up."""
    every = assignments(folder / "work", folder / "model", folder / "rows.jsonl")
    options = [part for assignment in every for part in ("--set", assignment)]
    command = [sys.executable, "-m", "pipeline", "precompute-ref", *options, "--json", "--quiet"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    figures = {"wall seconds": seconds_since(started), "scoring seconds": round(document["seconds"], 2)}
    return figures | {name: document[name] for name in ("pairs", "pairs_scored", "responses_scored")}


def write_rows(folder: Path, n: int) -> None:
    """Rows of short, distinct texts."""
    tiny = import_module("tests.tiny")
    tiny.write_jsonl(folder / "rows.jsonl", tiny.example_rows(n))


def synthetic(folder: Path) -> ReferenceStore:
    """The store of synthetic rows."""
    return ReferenceStore(LocalStorage(folder / "keys"), document_key(IDENTITY))


def key(name: str, number: int) -> str:
    """Any key."""
    return hashlib.sha256(f"{name}{number}".encode()).hexdigest()


def seconds_since(started: float) -> float:
    """Rounded."""
    return round(time.perf_counter() - started, 2)


def peak_mb() -> int:
    """Most memory that this process has had resident, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def torch_loaded() -> dict[str, Any]:
    """Whether torch was imported."""
    return {"torch imported": "torch" in sys.modules}


STEPS = {
    "write": write_keys,
    "digests": check_digests,
    "load": load,
    "first": first_pass,
    "rerun": rerun,
    "night": night,
    "reorder": rerun_again,
    "overhead": overhead,
}

if __name__ == "__main__":
    main()
