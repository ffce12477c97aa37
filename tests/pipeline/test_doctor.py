"""`pipeline doctor`: every finding says what there is and what to do, and the exit code says whether jobs can run."""

import importlib.metadata
import json
import shutil
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.chain import Options, run_command
from pipeline.config import load_config
from pipeline.doctor.configured import configured_findings, extras_needed
from pipeline.doctor.findings import Finding, examined, message, ok, problem, warning
from pipeline.doctor.fits import memory_fits
from pipeline.doctor.job import machine_findings, report
from pipeline.doctor.machine import (
    GIB,
    core_quota,
    disk_finding,
    memory_finding,
    memory_limit,
    processor_findings,
    usable_memory,
)
from pipeline.doctor.packages import EXTRAS, missing_of, package_findings, requirements
from pipeline.doctor.torch_build import device_memory, torch_findings
from pipeline.version import __version__
from tests.tiny import ROOT, unchanged_process

BLOCK = "import sys; sys.modules.update(torch=None, polars=None); from pipeline.__main__ import main; main()"


def project_that_needs(folder: Path, *requires: str, python: str = ">=3.11", version: str = __version__):
    """An installed distribution of our name with these requirements, as pip leaves it."""
    place = folder / "project.dist-info"
    place.mkdir(exist_ok=True)
    lines = ["Metadata-Version: 2.4", "Name: offline-preference-pipeline", f"Version: {version}"]
    lines += [f"Requires-Python: {python}", *(f"Requires-Dist: {each}" for each in requires)]
    (place / "METADATA").write_text("\n".join(lines) + "\n")
    return importlib.metadata.Distribution.at(place)


def by_subject(findings) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_what_is_needed_comes_from_the_projects_own_metadata():
    project = importlib.metadata.distribution("offline-preference-pipeline")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = by_subject(package_findings(project))
    assert {each.name for each in requirements(project)} <= found.keys()
    assert {f"extra {name}" for name in EXTRAS} <= found.keys()
    for_work = {"dev", "demo", "bench"}
    assert {*declared["optional-dependencies"]} - for_work == EXTRAS.keys()
    assert found["numpy"] == ok("numpy", importlib.metadata.version("numpy"))
    assert found["this program"].what.startswith(__version__)


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("numpy>=1", None),
        ("numpy>=900", problem("numpy", "{}, and >=900 is needed", "pip install 'numpy>=900'")),
        ("numpy<1", warning("numpy", "{} is newer than what was tried (<1)", "pip install 'numpy<1' if it fails")),
        ("absent-here>=2", problem("absent-here", "not installed", "pip install 'absent-here>=2'")),
        ("absent-here>=2; python_version < '3'", "left out"),
    ],
)
def test_a_package_that_is_missing_too_old_or_too_new(tmp_path, requirement, expected):
    found = by_subject(package_findings(project_that_needs(tmp_path, requirement)))
    name, version = requirement.split(">")[0].split("<")[0], importlib.metadata.version("numpy")
    if expected == "left out":
        assert name not in found
    else:
        expected = expected or ok("numpy", "{}")
        assert found[name] == expected._replace(what=expected.what.format(version))


def test_python_and_a_version_that_is_not_what_was_installed(tmp_path):
    found = by_subject(package_findings(project_that_needs(tmp_path, python=">=4", version="0.0.7")))
    assert found["Python"].level == "problem" and found["Python"].what.endswith(", and >=4 is needed")
    assert found["this program"].level == "warning" and "installed when it was 0.0.7" in found["this program"].what
    not_installed = by_subject(package_findings(None))["this program"]
    assert not_installed.level == "warning" and not_installed.do == f"pip install -e {ROOT}"


def test_an_extra_that_is_not_installed_says_what_for_and_how_to_get_it(tmp_path):
    needs = ('numpy>=1; extra == "lora"', 'absent-here>=2; extra == "qlora"', 'numpy>=900; extra == "8bit"')
    project = project_that_needs(tmp_path, *needs)
    found = by_subject(package_findings(project))
    assert found["extra lora"] == ok("extra lora", f"numpy {importlib.metadata.version('numpy')}")
    assert found["extra qlora"] == ok(
        "extra qlora",
        "not installed (absent-here>=2); for reference.quantization",
        "pip install 'offline-preference-pipeline[qlora]'",
    )
    assert missing_of(project, "8bit") == ["numpy>=900"]


def machine(folder: Path, **files: str) -> Path:
    """The files of a Linux machine, by their paths with `__` for slashes."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_least_limit_of_the_groups_around_a_process_counts(tmp_path):
    root = machine(
        tmp_path,
        proc__meminfo=f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\n",
        proc__self__cgroup="0::/a/b\n",
        sys__fs__cgroup__a__b__memory_DOT_max="max\n",
        sys__fs__cgroup__a__memory_DOT_max=f"{8 * GIB}\n",
        sys__fs__cgroup__a__b__cpu_DOT_max="150000 100000\n",
        sys__fs__cgroup__a__cpu_DOT_max="max 100000\n",
    )
    assert (memory_limit(root), usable_memory(root), core_quota(root)) == (8 * GIB, 8 * GIB, 1.5)
    assert memory_finding(root).what == "8.0 GiB, a limit of this container on a machine with 64.0 GiB"


def test_groups_of_the_older_kind(tmp_path):
    root = machine(
        tmp_path,
        proc__self__cgroup="4:memory:/c\n1:cpu,cpuacct:/c\n",
        sys__fs__cgroup__memory__c__memory_DOT_limit_in_bytes=f"{2 * GIB}\n",
        sys__fs__cgroup__cpu__c__cpu_DOT_cfs_quota_us="-1\n",
    )
    assert (memory_limit(root), core_quota(root)) == (2 * GIB, None)
    assert memory_finding(root).what == "2.0 GiB"
    assert memory_limit(tmp_path / "nothing") is None and usable_memory(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("cpuinfo", "said"),
    [
        ("flags : avx2 avx512f avx512_bf16\n", "AVX512-BF16: on the CPU reference.dtype: bfloat16 is the faster"),
        ("flags : avx512_bf16 amx_bf16\n", "AMX: on the CPU reference.dtype: bfloat16 is the faster"),
        ("Features : asimd bf16\n", "BF16: on the CPU reference.dtype: bfloat16 is the faster"),
        ("flags : avx2 avx512f\n", "no bf16 arithmetic: on the CPU reference.dtype: float32 is as fast or faster"),
        ("", "whether it has bf16 arithmetic cannot be told here"),
    ],
)
def test_the_processor_says_which_dtype_is_fast(tmp_path, cpuinfo, said):
    found = by_subject(processor_findings({}, machine(tmp_path, proc__cpuinfo=cpuinfo)))
    assert said in found["processor"].what


def test_more_threads_than_a_container_has_time_for(tmp_path):
    root = machine(tmp_path, proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_DOT_max="50000 100000\n")
    found = by_subject(processor_findings({}, root))["cores"]
    assert found.level == "warning" and found.do == "export OMP_NUM_THREADS=1" and "the time of 0.5" in found.what
    assert by_subject(processor_findings({"OMP_NUM_THREADS": "1"}, root))["cores"].level == "ok"


def test_a_disk_that_is_full_or_read_only(tmp_path, monkeypatch):
    folder = tmp_path / "not" / "there" / "yet"
    assert disk_finding("disk", folder, "do this").level == "ok" and not folder.exists()
    (tmp_path / "file").touch()
    assert disk_finding("disk", tmp_path / "file" / "x", "do this") == problem(
        "disk", f"{tmp_path}/file/x cannot be written to", "do this"
    )
    monkeypatch.setattr("pipeline.doctor.machine.LITTLE_DISK", 2**80)
    assert disk_finding("disk", folder, "do this").do == "free some space, or do this"


def gpu(capability: int = 9, memory: int = 80 * GIB, **version: str | None):
    """What of torch the examination reads, on a machine with two GPUs; there is none where tests run."""
    properties = SimpleNamespace(name="NVIDIA X", total_memory=memory, major=capability)
    cuda = SimpleNamespace(
        is_available=lambda: memory > 0, device_count=lambda: 2, get_device_properties=lambda _: properties
    )
    versions = SimpleNamespace(**{"cuda": "12.8", "hip": None} | version)
    return SimpleNamespace(__version__="2.10", version=versions, cuda=cuda)


@pytest.mark.parametrize(
    ("torch", "driver", "expected"),
    [
        (gpu(), "570.1", ok("torch build", "2.10, CUDA 12.8, driver 570.1")),
        (gpu(), "570.1", ok("cuda:1", "NVIDIA X, 80.0 GiB, has bf16")),
        (gpu(capability=7), "570.1", warning("cuda:0", "NVIDIA X, 80.0 GiB, has no bf16 arithmetic", "set ref")),
        (gpu(memory=0), None, ok("torch build", "2.10, CUDA 12.8; no GPU here, jobs run on the CPU")),
        (gpu(memory=0), "570.1", warning("torch build", "2.10, CUDA 12.8, driver 570.1, and no GPU is", "see")),
        (gpu(memory=0, cuda=None), "570.1", warning("torch build", "2.10, CPU build, and this machine has an", "inst")),
        (ImportError("no\nfile"), None, problem("torch build", "cannot be imported: ImportError: no file", "pip")),
        (OSError("bad ELF"), None, problem("torch build", "cannot be imported: OSError: bad ELF", "pip install")),
    ],
)  # fmt: skip
def test_builds_of_torch_and_devices(torch, driver, expected):
    found = by_subject(torch_findings(torch, driver))[expected.subject]
    assert found.level == expected.level and found.what.startswith(expected.what)
    assert found.do == expected.do or found.do.startswith(expected.do)


def test_memory_of_the_smallest_device():
    assert device_memory(gpu(memory=7)) == 7
    assert device_memory(gpu(memory=0)) is None and device_memory(ImportError()) is None


def examine(work, *assignments: str, expect: int = 0) -> dict[str, Finding]:
    document = work.run("doctor", *assignments, expect=expect)
    return by_subject(Finding(**finding) for finding in document["findings"])


def test_a_configuration_that_can_run(work):
    found = examine(work)
    of_it = ("configuration", "data.train", "reference.model", "chat template", "store", "memory of training")
    assert {found[subject].level for subject in of_it} == {"ok"}
    assert found["configuration"].what == f"{work.config} is sound"
    assert found["data.train"].what == f"{work.data} is there"
    assert found["reference.model"].what == f"{work.model} is in {work.model}"
    assert found["chat template"].what == f"the tokenizer in {work.model} has one"
    assert found["store"].what == f"{work.root / 'store'} can be written to"
    assert found["memory of training"].what.startswith("at most about 0.")
    assert not work.root.exists()


def test_problems_of_a_configuration_end_with_6(work):
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        assert (work.model / name).is_file()
    found = examine(
        work, "reference.model=./none", "train.model=a/b/c", "data.train=none.jsonl", "store.url=nothing://x", expect=6
    )
    assert found["reference.model"] == problem(
        "reference.model", "there is no folder ./none", "correct reference.model, or copy the model there"
    )
    assert found["train.model"].what == "there is no folder a/b/c"
    assert found["data.train"].what == "none.jsonl is not there"
    assert found["store"].level == "problem" and "store.url: nothing://x cannot be opened" in found["store"].what
    assert "memory of training" not in found


def test_a_configuration_that_does_not_load_ends_with_2_and_the_machine_is_examined_all_the_same(work):
    found = examine(work, "train.bata=1", expect=2)
    assert "train.bata: there is no such key; did you mean beta?" in found["configuration"].what
    assert found["Python"].level == "ok" and "store" not in found
    assert (
        "There is no configuration file"
        in by_subject(Finding(**each) for each in _document(work, Path("none.yaml"))["findings"])["configuration"].what
    )


def _document(work, file: Path) -> dict:
    work.config = file
    return work.run("doctor", expect=2)


def test_models_of_the_hub_and_an_empty_cache(work, monkeypatch):
    found = examine(work, "reference.model=owner/name", "data.train=owner/set", expect=6)  # tests are offline
    assert "owner/name is not in the Hub's cache, and HF_HUB_OFFLINE is set" in found["reference.model"].what
    assert "hf download owner/name" in found["reference.model"].do
    assert found["data.train"].level == "warning"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = examine(work, "reference.model=owner/name", "data.train=owner/set")
    assert found["reference.model"] == warning(
        "reference.model", "owner/name is not in the Hub's cache: the first job fetches it", "hf download owner/name"
    )


def test_a_tokenizer_without_a_template_and_none_at_all(work, tmp_path):
    model = tmp_path / "copy"
    shutil.copytree(work.model, model)
    (model / "chat_template.jinja").unlink()
    found = examine(work, f"reference.model={model}")["chat template"]
    assert found.level == "warning" and found.do.endswith(f"into {model}/chat_template.jinja")
    (model / "tokenizer_config.json").unlink()
    assert "has no tokenizer_config.json" in examine(work, f"reference.model={model}", expect=6)["tokenizer"].what


def test_the_extras_that_this_configuration_needs(work, tmp_path):
    settings = ["train.lora={}", "reference.quantization=nf4", "train.optim=adamw_8bit", "store.url=s3://b/x",
                "train.report_to=[wandb, tensorboard]"]  # fmt: skip
    config = load_config(work.config, settings, {})
    assert extras_needed(config, None) == {
        "lora": "train.lora", "qlora": "reference.quantization", "8bit": "train.optim", "s3": "store.url",
        "wandb": "train.report_to", "tensorboard": "train.report_to",
    }  # fmt: skip
    assert extras_needed(load_config(work.config, (), {}), work.model) == {}
    without = project_that_needs(tmp_path, 'absent-here>=2; extra == "lora"')
    config = load_config(work.config, ["train.lora={}"], {})
    assert problem(
        "train.lora", "needs absent-here>=2, not installed", "pip install 'offline-preference-pipeline[lora]'"
    ) in [*configured_findings(config, without)]


def test_memory_that_is_too_small(work):
    config = load_config(work.config, (), {})
    assert memory_fits(config, work.model, 2**60, on_gpu=False).level == "ok"
    little = memory_fits(config, work.model, 2**25, on_gpu=False)
    assert little.level == "warning" and "pipeline train --dry-run estimates it" in little.do
    least = memory_fits(config, work.model, 2**10, on_gpu=True)
    assert least.level == "problem" and "for weights and optimiser alone; the device has" in least.what
    assert "is optimiser states: train.optim: adamw_8bit, or train.lora (docs/memory.md)" in least.do


def test_a_remote_store_is_written_to_and_left_as_it_was(work):
    import fsspec

    found = examine(work, "store.url=memory://doctor")["store"]
    assert found == ok("store", "memory://doctor can be read and written to (0 references)")
    assert fsspec.filesystem("memory").find("/doctor") == []
    secret = examine(work, "store.url=nothing://key:hunter2@x", expect=6)["store"].what
    assert "hunter2" not in secret and "nothing://[redacted]@x cannot be opened" in secret


def test_people_get_lines_and_the_exit_code(work, capsys):
    with unchanged_process():
        code = run_command("doctor", Options(work.config, ["data.train=none.jsonl"], False, False, False, 0))
    shown = capsys.readouterr()
    assert code == 6 and shown.err.endswith(
        "error: One problem stops jobs here: data.train. The lines above say what to do.\n"
    )
    assert "problem  data.train: none.jsonl is not there\n           correct data.train, or put it there\n" in shown.out
    assert shown.out.rstrip().endswith("things looked at: 0 warnings, 1 problem")
    two = [problem("a", "b", "c"), problem("d", "e", "f")]
    assert message(two) == "2 problems stop jobs here: a, d. The lines above say what to do."
    assert examined(report([ok("a", "b")]).document()) == "ok       a: b\n1 things looked at: 0 warnings, 0 problems"


def test_without_a_configuration_the_machine_is_examined():
    found = by_subject(machine_findings(gpu()))
    assert {"Python", "torch", "cuda:0", "cores", "processor", "memory", "Hub cache", "Hub"} <= found.keys()
    assert "HF_HUB_OFFLINE is set" in found["Hub"].what


def test_where_torch_cannot_be_imported_it_says_so_and_examines_the_rest(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = examine(work, expect=6)
    assert "cannot be imported: ModuleNotFoundError: import of torch halted" in found["torch build"].what
    assert {finding.subject for finding in found.values() if finding.level == "problem"} == {"torch build"}
    assert found["memory of training"].level == "ok"


def test_where_other_packages_are_missing_doctor_still_answers_and_other_commands_point_to_it(work):
    done = work.command("doctor", module=BLOCK)
    assert done.returncode == 6 and "ok       Python: " in done.stdout and "Traceback" not in done.stderr
    assert "problem  packages: cannot be imported: ModuleNotFoundError: import of polars halted" in done.stdout
    assert "problem  torch build: cannot be imported" in done.stdout
    done = work.command("train", "-c", str(work.config), "--json", module=BLOCK)
    assert done.returncode == 6 and json.loads(done.stdout)["job"] == "train"
    assert "`pipeline doctor` says what is missing" in done.stderr and "Traceback" not in done.stderr
