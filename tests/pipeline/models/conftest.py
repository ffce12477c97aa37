import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import Work, save_adapter, save_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Work:
    """A work folder with a run called `own`; tests add evaluations to it."""
    work = Work(tmp_path_factory.mktemp("trained"), model_folder)
    work.run("run", "run=own")
    return work


@pytest.fixture(scope="module")
def models(trained: Work, model_folder: Path) -> dict[str, Path]:
    """Policies that were trained elsewhere: the run's, an adapter, another model, one that is broken."""
    place = trained.folder / "elsewhere"
    shutil.copytree(trained.root / "runs" / "own" / "policy", place / "copy")
    save_adapter(place / "adapter", model_folder)
    save_model(place / "other", seed=5)
    shutil.copytree(model_folder, place / "broken")
    (place / "broken" / "model.safetensors").write_bytes(b"no weights")
    return {path.name: path for path in sorted(place.iterdir())}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of models that are loaded from now on."""
    from stages.scoring import scorer

    found: list[Path] = []
    load: Callable[..., Any] = scorer.load_model

    def counted(folder: Path, *numerics: Any) -> Any:
        found.append(folder)
        return load(folder, *numerics)

    monkeypatch.setattr(scorer, "load_model", counted)
    return found
