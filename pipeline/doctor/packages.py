"""Python and packages, held against what this distribution says that it needs. Nothing of them is imported."""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from pipeline.doctor.findings import Finding, ok, problem, warning
from pipeline.revision import PROGRAM, own_revision
from pipeline.version import __version__

PROJECT = "offline-preference-pipeline"
EXTRAS = {
    "lora": "train.lora, and models that are adapters",
    "qlora": "reference.quantization",
    "8bit": "train.optim: adamw_8bit",
    "plot": "the figures of a report, the picture of a sweep",
    "s3": "store.url: s3://...",
    "trackio": "train.report_to: trackio",
    "wandb": "train.report_to: wandb",
    "tensorboard": "train.report_to: tensorboard",
}
"""Those that users need, and what for; others are for work on this project."""


def installed_project() -> Distribution | None:
    """The distribution as pip knows it; None where the program runs from a folder that was never installed."""
    try:
        return distribution(PROJECT)
    except PackageNotFoundError:
        return None


def package_findings(project: Distribution | None) -> Iterator[Finding]:
    """Python, this program, what it needs, and what it may have besides."""
    if project is None:
        yield ok("Python", platform.python_version())
        yield warning(
            "this program",
            f"{_own_version()}, not installed: what it needs cannot be told",
            f"pip install -e {PROGRAM}",
        )
        return
    wanted = SpecifierSet(project.metadata["Requires-Python"] or "")
    python = platform.python_version()
    if wanted.contains(python, prereleases=True):
        yield ok("Python", python)
    else:
        yield problem("Python", f"{python}, and {wanted} is needed", f"make a virtual environment with Python {wanted}")
    if project.version == __version__:
        yield ok("this program", _own_version())
    else:
        yield warning(
            "this program",
            f"{_own_version()}, installed when it was {project.version}: what it needs may have changed since",
            f"pip install -e {PROGRAM}",
        )
    for requirement in requirements(project):
        yield _required(requirement)
    for extra in EXTRAS:
        yield _optional(extra, missing_of(project, extra), [each.name for each in requirements(project, extra)])


def requirements(project: Distribution, extra: str | None = None) -> list[Requirement]:
    """What it needs on this machine; with `extra`, only what that adds."""
    every = [Requirement(line) for line in project.requires or ()]
    plain = [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]
    if extra is None:
        return plain
    return [each for each in every if each not in plain and each.marker and each.marker.evaluate({"extra": extra})]


def missing_of(project: Distribution, extra: str) -> list[str]:
    """What of an extra is not installed, or too old: `peft>=0.21`."""
    wanted = requirements(project, extra)
    return [f"{each.name}{each.specifier}" for each in wanted if not _fits(each, _version(each.name))]


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{PROJECT}[{extra}]'"


def _required(requirement: Requirement) -> Finding:
    name, found = requirement.name, _version(requirement.name)
    wanted = f"{name}{requirement.specifier}"
    if found is None:
        return problem(name, "not installed", f"pip install '{wanted}'")
    if _fits(requirement, found):
        return ok(name, found)
    floors = [Version(each.version) for each in requirement.specifier if each.operator in (">=", ">")]
    if any(Version(found) < floor for floor in floors):
        return problem(name, f"{found}, and {requirement.specifier} is needed", f"pip install '{wanted}'")
    return warning(
        name, f"{found} is newer than what was tried ({requirement.specifier})", f"pip install '{wanted}' if it fails"
    )


def _optional(extra: str, missing: Sequence[str], names: Sequence[str]) -> Finding:
    subject = f"extra {extra}"
    if not missing:
        return ok(subject, ", ".join(f"{name} {_version(name)}" for name in names))
    return ok(subject, f"not installed ({', '.join(missing)}); for {EXTRAS[extra]}", install(extra))


def _fits(requirement: Requirement, found: str | None) -> bool:
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _own_version() -> str:
    """The version, and the revision where the program lies in a repository."""
    revision = own_revision()
    return __version__ if revision is None else f"{__version__} (revision {revision})"
