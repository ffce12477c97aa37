"""The data step at scale: flat memory, tokens a second a core, a finished rerun, a night with 1 % new rows.

    python benchmarks/data_step.py --model FOLDER [--rows 1000000] [--workers 2]

Writes synthetic rows (words of this project's documentation, as frequent as there; prompts and responses of log-normal
length), runs `pipeline validate` over them as a process of its own, and watches the memory of that process and its
children (PSS: a shared page counts once). Against it: `tokenizers`' own batch encode of the prompts and responses, each
once, in as many processes of one thread as there are workers, all at the same time, before and after.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROBE = 4000  # rows that the library's own encode is timed on
REPEATS = 5
LOOK_EVERY = 5.0  # seconds at most: a look at the memory of a process holds it up (every second: by a tenth)


def words() -> list[str]:
    """Words of the documentation, each as often as it stands there."""
    texts = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    return re.findall(r"[A-Za-z][a-z'-]*[,.]?", " ".join(texts))


def write_rows(path: Path, n: int, seed: int) -> None:
    """Preference rows: medians of 40 words for a prompt and 60 for a response."""
    chance, pool = random.Random(seed), words()

    def text(median: int) -> str:
        return " ".join(chance.choices(pool, k=min(400, max(3, int(chance.lognormvariate(0, 0.6) * median)))))

    with path.open("a") as file:
        for i in range(n):
            row = {"prompt": f"{seed} {i}: {text(40)}?", "chosen": text(60), "rejected": text(60)}
            file.write(json.dumps(row) + "\n")


class Memory(threading.Thread):
    """The most memory that a process and its descendants had at once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.parts = pid, 0, ""

    def run(self) -> None:
        """Look until the process is gone, often at first."""
        pause = 0.1
        while Path(f"/proc/{self.pid}/smaps_rollup").exists():
            each = {pid: anonymous(pid) for pid in family(self.pid)}
            if sum(each.values()) > self.peak:
                self.peak = sum(each.values())
                self.parts = " + ".join(f"{size / 1e6:.0f}" for size in sorted(each.values(), reverse=True))
            time.sleep(pause)
            pause = min(LOOK_EVERY, 1.1 * pause)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def anonymous(pid: int) -> int:
    """Bytes of memory in use by the process, its share of what it shares included."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def validate(config: Path, *options: str) -> tuple[float, Memory, dict[str, Any]]:
    """Seconds, memory and the document of one `pipeline validate`."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pipeline", "validate", "--config", str(config), "--json", "--quiet", *options]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, env=os.environ | {"PYTHONPATH": str(ROOT)})
        memory = Memory(process.pid)
        memory.start()
        process.wait()
        out.seek(0)
        document = json.loads(out.read())
    assert document["exit_code"] == 0, document
    return time.perf_counter() - began, memory, document


def encode_rate(model: Path, rows: Path) -> float:
    """Tokens a second of the library's batch encode on one thread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    texts: list[str] = []
    with rows.open() as file:
        for _, line in zip(range(PROBE), file, strict=False):
            row = json.loads(line)
            texts += [row["prompt"], row["chosen"], row["rejected"]]
    rates = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        rates.append(sum(len(each.ids) for each in encoded) / (time.perf_counter() - began))
    return statistics.median(rates)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, config = Path(folder) / "rows.jsonl", Path(folder) / "pipeline.yaml"
        write_rows(rows, arguments.rows, seed=0)
        config.write_text(
            f"workdir: {folder}/work\nreference: {{model: {arguments.model}, dtype: float32}}\n"
            f"data: {{train: {rows}, workers: {arguments.workers}}}\n"
        )
        print(f"{arguments.rows:,} rows, {rows.stat().st_size / 1e9:.2f} GB")
        measure(arguments, rows, config)


def measure(arguments: argparse.Namespace, rows: Path, config: Path) -> None:
    """Each of the promises."""
    probes = [(arguments.model, rows)] * arguments.workers
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        rates = pool.starmap(encode_rate, probes)
    seconds, memory, document = validate(config)
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        rate = statistics.median([*rates, *pool.starmap(encode_rate, probes)])
    tokens = document["coverage"]["tokens"]
    ours = tokens / seconds / arguments.workers
    print(f"first run: {seconds:.0f} s, {tokens / 1e6:.0f} million tokens, prompts counted once")
    print(f"  {ours / 1e6:.3f} million tokens/s a core; encode_batch {rate / 1e6:.3f}: {ours / rate:.0%}")
    print(f"  memory at most {memory.peak / 1e6:,.0f} MB ({memory.parts})")
    seconds, memory, _ = validate(config)
    print(f"finished rerun: {seconds:.2f} s, memory at most {memory.peak / 1e6:,.0f} MB")
    write_rows(rows, arguments.rows // 100, seed=1)
    seconds, memory, _ = validate(config)
    print(f"1 % more rows: {seconds:.1f} s, memory at most {memory.peak / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
