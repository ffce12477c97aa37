"""What any command says where a package that all of them need cannot be imported."""

import json
import sys

from data.errors import EnvironmentProblem, one_line
from pipeline.console import error_line, printable
from pipeline.doctor.findings import examined, problem
from stages.job import JobReport


def without_packages(job: str, error: ImportError, *, as_json: bool) -> int:
    """Print the document, or the lines, of a job that cannot begin; `pipeline doctor` tells what is missing."""
    found = _examination(error) if job == "doctor" else _refusal(job, error)
    document = found.document()
    if as_json:
        print(json.dumps(document))  # noqa: T201
    elif "findings" in document:
        print("\n".join(map(printable, examined(document).split("\n"))))  # noqa: T201
    sys.stdout.flush()
    error_line(str(found.message), found.exit_code)
    return found.exit_code


def _refusal(job: str, error: ImportError) -> JobReport:
    said = (
        f"A package that this program needs cannot be imported: {one_line(error)}. `pipeline doctor` says what is "
        "missing and how to install it."
    )
    return JobReport(job, "failed", exit_code=EnvironmentProblem.exit_code, message=said)


def _examination(error: ImportError) -> JobReport:
    try:
        from pipeline.doctor.job import machine_findings, report
        from pipeline.doctor.torch_build import import_torch

        findings = machine_findings(import_torch())
    except ImportError as another:  # packaging itself is missing
        return _refusal("doctor", another)
    what = f"cannot be imported: {one_line(error)}"
    return report([*findings, problem("packages", what, "install what is named; pip check finds what disagrees")])
