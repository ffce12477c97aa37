"""Runs a workflow of GitHub Actions as far as a machine without GitHub can: its steps in order, a folder for each job.

`run:` steps are run by the shell that GitHub uses, with $GITHUB_STEP_SUMMARY. Checking out is copying a folder;
artifacts and the cache are folders. An artifact is kept as GitHub keeps it: without links, as what they lead to. A step
that installs something is left out. What is used beyond that (an action, an expression, a key) is an error.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

KNOWN_JOB_KEYS = {"needs", "runs-on", "timeout-minutes", "steps"}
KNOWN_STEP_KEYS = {"name", "uses", "with", "run", "if"}
STEP_RUNS = {
    "success()": lambda well: well,
    "always()": lambda well: True,
    "failure() || cancelled()": lambda well: not well,
}


@dataclass
class Workflow:
    """One workflow file, the repository that it lies in, and what GitHub keeps for it."""

    file: Path
    repository: Path
    kept: Path  # artifacts, the cache, summaries
    environment: dict[str, str]
    values: dict[str, str] = field(default_factory=dict)  # of expressions, by their text
    output: str = ""

    def run(self, night: int = 1) -> dict[str, str | int]:
        """How each job ended: the exit code of the step that failed, 0, or "skipped"."""
        document = yaml.safe_load(self.file.read_text())
        self.values |= {"github.run_id": str(night), "github.run_attempt": "1"}
        environment = {name: self.expand(value) for name, value in document["env"].items()}
        assert document["defaults"] == {"run": {"shell": "bash"}}
        ends: dict[str, str | int] = {}
        for name, job in document["jobs"].items():
            assert set(job) <= KNOWN_JOB_KEYS
            needed = job.get("needs", [])
            needed = [needed] if isinstance(needed, str) else needed
            if all(ends[other] == 0 for other in needed):
                ends[name] = self.run_job(f"{night}-{name}", job["steps"], environment)
            else:
                ends[name] = "skipped"
        return ends

    def run_job(self, name: str, steps: list[dict[str, Any]], environment: dict[str, str]) -> int:
        folder = self.kept / "runners" / name
        folder.mkdir(parents=True)
        code = 0
        for step in steps:
            assert set(step) <= KNOWN_STEP_KEYS
            if not STEP_RUNS[step.get("if", "success()")](code == 0):
                continue
            if "uses" in step:
                options = {key: self.expand(value) for key, value in step.get("with", {}).items()}
                self.use(step["uses"].partition("@")[0], options, folder)
            elif "pip install" not in step["run"]:
                summary = {"GITHUB_STEP_SUMMARY": str(self.kept / f"{name}.md")}
                code = code or self.shell(step["run"], folder, environment | summary)
        return code

    def shell(self, script: str, folder: Path, environment: dict[str, str]) -> int:
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        self.output += done.stdout
        return done.returncode

    def use(self, action: str, options: dict[str, Any], folder: Path) -> None:
        artifact = self.kept / "artifacts" / str(options.get("name"))
        cached = sorted(
            (self.kept / "cache").glob(f"{options.get('restore-keys')}*"), key=lambda path: path.stat().st_mtime
        )
        match action:
            case "actions/checkout":
                shutil.copytree(self.repository, folder, dirs_exist_ok=True)
            case "actions/setup-python":
                pass
            case "actions/upload-artifact":
                keep(folder / options["path"], artifact)
            case "actions/download-artifact":
                shutil.copytree(artifact, folder, dirs_exist_ok=True)
            case "actions/cache/save":
                shutil.copytree(folder / options["path"], self.kept / "cache" / options["key"], symlinks=True)
            case "actions/cache/restore":
                if cached:
                    shutil.copytree(cached[-1], folder / options["path"], symlinks=True, dirs_exist_ok=True)
            case _:
                raise AssertionError(f"{action} is not known here")

    def expand(self, value: Any) -> Any:
        """A value with its expressions replaced."""
        return (
            re.sub(r"\$\{\{ (.*?) \}\}", lambda found: self.values[found[1]], value)
            if isinstance(value, str)
            else value
        )


def keep(path: Path, artifact: Path) -> None:
    """Put a file or a folder into an artifact."""
    shutil.rmtree(artifact, ignore_errors=True)
    if path.is_dir():
        shutil.copytree(path, artifact, symlinks=False)
    else:
        artifact.mkdir(parents=True)
        shutil.copy(path, artifact)
