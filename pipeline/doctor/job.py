"""`pipeline doctor`: the machine, and with a configuration what that needs of it."""

import os
from collections.abc import Sequence
from pathlib import Path

from data.errors import ConfigError, EnvironmentProblem
from pipeline.doctor.findings import Finding, message, ok, problem
from pipeline.doctor.hub import hub_findings
from pipeline.doctor.machine import disk_finding, memory_finding, processor_findings, usable_memory
from pipeline.doctor.packages import installed_project, package_findings
from pipeline.doctor.torch_build import device_memory, import_torch, nvidia_driver, torch_findings
from pipeline.redaction import redacted
from stages.job import JobReport

_WORKDIR = "let workdir name a folder that can be written to"


def run_doctor(file: Path | None, assignments: Sequence[str]) -> JobReport:
    """Look at everything; exit code 2 where the configuration does not load, 6 where something else stops jobs."""
    torch = import_torch()
    findings = machine_findings(torch)
    exit_code = 0
    if file is None and not assignments:
        findings.append(disk_finding("disk", Path.cwd(), _WORKDIR))
    else:
        try:
            findings += _of_configuration(file, assignments, torch)
        except ConfigError as error:
            findings.append(problem("configuration", str(error), "correct it; pipeline config show has every key"))
            exit_code = ConfigError.exit_code
    return report(findings, exit_code)


def machine_findings(torch: object) -> list[Finding]:
    """What does not depend on a configuration. Needs no package but those that read versions."""
    return [
        *package_findings(installed_project()),
        *torch_findings(torch, nvidia_driver()),
        *processor_findings(os.environ),
        memory_finding(),
        *hub_findings(),
    ]


def report(findings: Sequence[Finding], exit_code: int = 0) -> JobReport:
    """The document of an examination."""
    said = message(findings)
    if said is not None:
        exit_code = exit_code or EnvironmentProblem.exit_code
    details = {"findings": redacted([finding._asdict() for finding in findings])}
    return JobReport("doctor", "failed" if exit_code else "done", exit_code=exit_code, message=said, details=details)


def _of_configuration(file: Path | None, assignments: Sequence[str], torch: object) -> list[Finding]:
    from pipeline.config import load_config  # these need packages that may be what is missing
    from pipeline.doctor.configured import configured_findings, model_folder
    from pipeline.doctor.fits import memory_fits

    config = load_config(file, assignments)
    findings = [ok("configuration", f"{file or 'what --set gives'} is sound")]
    findings.append(disk_finding("workdir", config.workdir, _WORKDIR))
    findings += configured_findings(config, installed_project())
    on_gpu = device_memory(torch)
    memory, folder = on_gpu or usable_memory(), model_folder(config)
    if memory is not None and folder is not None:
        fits = memory_fits(config, folder, memory, on_gpu=on_gpu is not None)
        findings += [] if fits is None else [fits]
    return findings
