"""How long `pipeline` takes to answer where it has no work to do: help, version, and a run that is finished already.

    python benchmarks/startup.py [CONFIG]

With a configuration whose three jobs are done, the run that finds nothing to do is timed too.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 5


def main() -> None:
    """Time each command and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", nargs="?", type=Path, help="configuration of a finished workspace")
    config: Path | None = parser.parse_args().config
    commands = [["--help"], ["--version"]]
    if config is not None:
        check_finished(config)
        commands.append(["run", "--config", str(config)])
    print(f"seconds of wall time, {RUNS} runs each; Python {platform.python_version()}, {os.cpu_count()} CPUs\n")
    width = max(len(" ".join(["pipeline", *arguments])) for arguments in commands)
    print(f"{'command':<{width}}  median  fastest  slowest")
    for arguments in commands:
        seconds = [time_once(arguments) for _ in range(RUNS)]
        name = " ".join(["pipeline", *arguments])
        print(f"{name:<{width}}  {statistics.median(seconds):6.3f}  {min(seconds):7.3f}  {max(seconds):7.3f}")


def time_once(arguments: list[str]) -> float:
    """Seconds from the start of the process to its end."""
    started = time.perf_counter()
    process = answer(arguments)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"pipeline {' '.join(arguments)} ended with code {process.returncode}:\n{process.stderr}")
    return seconds


def check_finished(config: Path) -> None:
    """End the program unless a run of `config` would do nothing; a dry run tells, so that nothing is trained here."""
    process = answer(["run", "--config", str(config), "--dry-run", "--json"])
    plan = json.loads(process.stdout or "{}")
    last = plan.get("jobs", [{}])[-1]
    if plan.get("pairs_scored") == 0 and (last.get("job"), last.get("status")) == ("eval", "nothing_to_do"):
        return
    raise SystemExit(
        f"A run of {config} is not without work, and this would have timed the work. Finish it first: pipeline run "
        f"--config {config}\n{process.stderr}".rstrip()
    )


def answer(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
