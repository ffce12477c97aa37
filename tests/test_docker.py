"""The Dockerfile as it is written: what its two targets start from, run as and are asked. No image is built here."""

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.tiny import ROOT

DOCKERFILE = ROOT / "Dockerfile"
TARGETS = ("cpu", "gpu")
LOCKS = {"cpu": "requirements-cpu.lock", "gpu": "requirements.lock"}


def instructions():
    """(instruction, its arguments on one line), without comments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages():
    """Name of a stage -> (what it is built on, its instructions). Bases in build arguments are put in."""
    arguments, found, inside = {}, {}, None
    for instruction, rest in instructions():
        if instruction == "ARG" and inside is None:
            name, _, value = rest.partition("=")
            arguments[f"${{{name}}}"] = value
        elif instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            inside = found[name] = (arguments.get(base, base), [])
        else:
            inside[1].append((instruction, rest))
    return found


def only(target, instruction):
    (rest,) = [rest for each, rest in stages()[target][1] if each == instruction]
    return rest


def context():
    """Paths of the files that .dockerignore lets through."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*" and lines[-1] == "**/__pycache__"
    let_through = [ROOT / line.removeprefix("!") for line in lines[1:-1]]
    files = [path for each in let_through for path in ([each] if each.is_file() else each.rglob("*")) if path.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def files_of_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {name.replace(".", "/") for name in settings["packages"]}
    data = {f"{package}/{pattern}" for package, patterns in settings["package-data"].items() for pattern in patterns}
    return {
        path
        for path in context()
        if (path.endswith(".py") and str(Path(path).parent) in folders) or any(fnmatch(path, each) for each in data)
    }


def test_every_base_is_named_and_pinned_by_its_digest():
    bases = [base for base, _ in stages().values()]
    assert bases.count("scratch") == 1 and len(bases) == 3
    pinned = re.compile(r"[a-z/]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}")
    assert [base for base in bases if base != "scratch" and not pinned.fullmatch(base)] == []
    assert stages()["gpu"][0].startswith("nvidia/cuda:13.0.1-base-ubuntu24.04@")
    assert list(stages())[-1] == "gpu"  # what `docker build` makes without --target


@pytest.mark.parametrize("target", TARGETS)
def test_the_process_is_nobody_and_hears_the_signal_itself(target):
    user, group = map(int, only(target, "USER").split(":"))
    assert user > 0 and group > 0
    assert json.loads(only(target, "ENTRYPOINT")) == ["pipeline"]  # the exec form: no shell between it and a signal
    assert only(target, "STOPSIGNAL") == "SIGTERM"
    assert isinstance(json.loads(only(target, "CMD")), list)
    assert [each for each, _ in stages()[target][1]].index("USER") > [each for each, _ in stages()[target][1]].index(
        "RUN"
    )


@pytest.mark.parametrize("target", TARGETS)
def test_packages_come_from_the_lock_file_with_hashes_and_before_the_project(target):
    runs = [rest for instruction, rest in stages()[target][1] if instruction == "RUN"]
    packages, project = [run for run in runs if "pip install" in run]
    assert f"source={LOCKS[target]}," in packages and "--require-hashes" in packages
    assert "--no-index --no-deps --no-build-isolation" in project  # nothing that is not locked
    assert all("--no-cache-dir" in run for run in (packages, project))
    assert all("rm -rf /var/lib/apt/lists/*" in run for run in runs if "apt-get" in run)


def test_the_targets_differ_in_base_lock_file_and_driver_alone():
    def plain(target):
        lines = [f"{instruction} {rest}" for instruction, rest in stages()[target][1]]
        return [
            line.replace("NVIDIA_DRIVER_CAPABILITIES=compute,utility ", "").replace("-cpu.lock", ".lock")
            for line in lines
        ]

    assert plain("cpu") == plain("gpu")


def test_the_context_is_the_wheel_and_the_lock_files():
    beside = {"pyproject.toml", "README.md", "LICENSE", *LOCKS.values()}
    assert context() == files_of_the_wheel() | beside
    assert [path for path in beside if not (ROOT / path).is_file()] == []


def test_what_is_copied_or_mounted_is_in_the_context():
    copied = [rest.split()[:-1] for _, body in stages().values() for instruction, rest in body if instruction == "COPY"]
    assert copied == [["."]]
    mounted = re.findall(r"--mount=type=bind,source=([^,]+),", DOCKERFILE.read_text())
    assert set(mounted) <= context() and len(mounted) == len(TARGETS)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc, as the check in the image does")
def test_the_health_check_tells_a_process_that_works_from_one_that_stands_still(tmp_path):
    options, command = only("gpu", "HEALTHCHECK").split(" CMD ")
    assert "--interval=5m" in options and "--timeout=" in options

    def verdicts(program):
        """Exit codes of the first check and of one a while later."""
        with subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.05)  # its last ticks of starting up are counted
            script = command.replace("/proc/1/", f"/proc/{process.pid}/").replace("/tmp/", f"{tmp_path}/{process.pid}")
            check = [shutil.which(json.loads(script)[0]), *json.loads(script)[1:]]
            codes = []
            for pause in (0.1, 0):
                codes.append(subprocess.run(check).returncode)
                time.sleep(pause)
            process.kill()
        return codes

    assert verdicts("print('here', flush=True)\nwhile True: pass") == [0, 0]
    assert verdicts("import time; print('here', flush=True); time.sleep(60)") == [0, 1]
