"""examples/container: the compose file against the schema of such files, and its commands in the order it gives."""

import os
import re
import shlex
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from tests.examples.conftest import EXAMPLES
from tests.tiny import ROOT

COMPOSE = EXAMPLES / "container" / "compose.yaml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]


def in_order():
    """Names of the services, each behind those that it waits for."""
    graph = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    return list(TopologicalSorter(graph).static_order())


def entrypoint():
    """What the image starts: the exec form, so that a signal reaches the program and no shell."""
    (line,) = set(re.findall(r"^ENTRYPOINT (.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    return yaml.safe_load(line)


def run(work, commands):
    """Exit codes of the services, until one has to wait for another that failed."""
    codes = {}
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}"}
    for name in in_order():
        waits_for = SERVICES[name].get("depends_on", {})
        if any(codes.get(other) != 0 for other in waits_for):
            continue
        command = [*entrypoint(), *shlex.split(SERVICES[name]["command"])]
        codes[name] = subprocess.run(command, cwd=work.folder, env=environment, timeout=120).returncode
    return codes


def test_the_services_are_the_three_jobs_one_after_the_other(copied, commands):
    work = copied("container")
    assert run(work, commands) == {"precompute-ref": 0, "train": 0, "eval": 0}
    assert (work.root / "passed/policy/model.safetensors").is_file()


def test_no_service_is_started_behind_one_that_failed(copied, commands):
    work = copied("container")
    work.data.unlink()
    assert run(work, commands) == {"precompute-ref": 3}
    conditions = [wait["condition"] for each in SERVICES.values() for wait in each.get("depends_on", {}).values()]
    assert conditions == ["service_completed_successfully"] * 2


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little_and_has_time_to_save(name):
    service = SERVICES[name]
    assert service["read_only"] is True and service["tmpfs"] == ["/tmp"] and service["cap_drop"] == ["ALL"]
    assert service["user"] == "${UID:-1000}:${GID:-1000}"
    assert service["volumes"] == [".:/workspace"] and "WORKDIR /workspace" in (ROOT / "Dockerfile").read_text()
    assert service["stop_grace_period"] == "120s"
    assert "privileged" not in service


def test_the_schema_of_compose_files_is_kept(tmp_path):
    checker = Path(sys.executable).with_name("check-jsonschema")
    if not checker.exists():
        pytest.skip("check-jsonschema is not installed (`make lint` does it)")

    def check(text):
        (tmp_path / "compose.yaml").write_text(text)
        command = [checker, "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml"]
        return subprocess.run(command, capture_output=True, text=True).returncode

    assert check(COMPOSE.read_text()) == 0
    assert check(COMPOSE.read_text().replace("service_completed_successfully", "completed")) == 1
