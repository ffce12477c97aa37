"""Where models and data sets of the Hub come from: the network, or the cache alone."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.findings import Finding, ok, warning
from pipeline.doctor.machine import disk_finding


def hub_findings() -> Iterator[Finding]:
    """The Hub's cache, and whether anything may be fetched."""
    try:
        from huggingface_hub import constants
    except Exception as error:  # where it is missing, the packages say so
        yield warning("Hub", f"huggingface-hub cannot be imported ({type(error).__name__})", "see the packages above")
        return
    yield disk_finding("Hub cache", Path(constants.HF_HUB_CACHE), "let HF_HOME name a folder that can be written to")
    if constants.HF_HUB_OFFLINE:
        yield ok("Hub", "HF_HUB_OFFLINE is set: only what the cache has, and folders, are found")
    else:
        yield ok("Hub", "models and data sets may be fetched (HF_HUB_OFFLINE=1 keeps to the cache)")


def is_offline() -> bool:
    """Whether nothing may be fetched."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
