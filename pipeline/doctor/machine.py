"""Processor, memory and disks, as Linux tells of them; elsewhere what Python knows.

A container sees the whole machine in /proc, and what it may have of it in its control groups.
"""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.doctor.findings import Finding, ok, problem, warning

GIB = 2**30
LITTLE_DISK = 2 * GIB
_ROOT = Path("/")
_BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "bf16": "BF16", "svebf16": "BF16"}
"""Processor flags of bf16 arithmetic: of x86, and of Arm."""


def processor_findings(environment: Mapping[str, str], root: Path = _ROOT) -> Iterator[Finding]:
    """Cores that this process may use, and which `reference.dtype` is fast on them."""
    cores, share = usable_cores(), core_quota(root)
    threads = environment.get("OMP_NUM_THREADS")
    said = f"{cores} usable" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    if share is not None and share < cores and threads is None:
        yield warning(
            "cores",
            f"{said}, but the container may use the time of {share:g}: as many threads as cores wait for one another",
            f"export OMP_NUM_THREADS={max(1, int(share))}",
        )
    else:
        yield ok("cores", said)
    kinds = [name for flag, name in _BF16.items() if flag in processor_flags(root)]
    if kinds:
        yield ok("processor", f"{kinds[0]}: on the CPU reference.dtype: bfloat16 is the faster")
    elif processor_flags(root):
        yield ok(
            "processor",
            "no bf16 arithmetic: on the CPU reference.dtype: float32 is as fast or faster (bfloat16 is computed in "
            "fp32, and takes less memory)",
        )
    else:
        yield ok("processor", f"{platform.machine()}; whether it has bf16 arithmetic cannot be told here")


def memory_finding(root: Path = _ROOT) -> Finding:
    """Of this machine, or what the container may have of it."""
    usable = usable_memory(root)
    if usable is None:
        return ok("memory", "cannot be told here")
    limit, whole = memory_limit(root), machine_memory(root)
    limited = limit is not None and whole is not None and limit < whole
    of = f", a limit of this container on a machine with {gib(whole)}" if limited and whole else ""
    return ok("memory", f"{gib(usable)}{of}")


def disk_finding(subject: str, folder: Path, advice: str) -> Finding:
    """Whether a folder, which need not be there yet, can be written to, and what is free there."""
    place = nearest_existing(folder)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return problem(subject, f"{folder} cannot be written to", advice)
    free = shutil.disk_usage(place).free
    if free < LITTLE_DISK:
        return warning(subject, f"{gib(free)} free for {folder}", f"free some space, or {advice}")
    return ok(subject, f"{gib(free)} free for {folder}")


def nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def usable_memory(root: Path = _ROOT) -> int | None:
    """Bytes that this process and its like may have; None where that cannot be told."""
    known = [each for each in (machine_memory(root), memory_limit(root)) if each is not None]
    return min(known) if known else None


def usable_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def machine_memory(root: Path = _ROOT) -> int | None:
    """Bytes of the whole machine."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if root == _ROOT else None
    except (ValueError, OSError):
        return None


def memory_limit(root: Path = _ROOT) -> int | None:
    """The least limit in bytes of the control groups around this process; None where there is none."""
    texts = _settings(root, "memory", "memory.max", "memory.limit_in_bytes")
    return min((int(text) for text in texts if text.isdigit()), default=None)


def core_quota(root: Path = _ROOT) -> float | None:
    """Cores whose time the control groups around this process allow; None: all."""
    shares = []
    for text in _settings(root, "cpu", "cpu.max", "cpu.cfs_quota_us"):
        parts = text.split()  # "200000 100000", "max 100000"; of version 1 the quota alone, -1 for none
        period = float(parts[1]) if len(parts) > 1 else 100_000.0
        if parts and parts[0].isdigit():
            shares.append(int(parts[0]) / period)
    return min(shares, default=None)


def processor_flags(root: Path = _ROOT) -> set[str]:
    """What the processor can do, in Linux's words."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(flags.split())
    return set()


def gib(count: int) -> str:
    """Bytes for people."""
    return f"{count / GIB:,.1f} GiB"


def _settings(root: Path, controller: str, unified: str, older: str) -> Iterator[str]:
    """A setting of each control group that this process is in, up to the root; of both versions of groups."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controllers and controller)
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if text := _read(folder / (older if controllers else unified)).strip():
                yield text
            if folder == base:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
