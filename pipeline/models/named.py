"""What `eval.model` names: a run of the work folder, a folder, or a model of the Hub; and where its results go."""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data.errors import StoreError
from pipeline.inputs import Inputs
from stages.model_files import locate
from stages.reference import BoundReference, tokenizer_owner
from stages.run_folder import RunFolder

_LONGEST = 48  # characters of a folder's name, beside the id


class NamedModel(NamedTuple):
    """A policy, and the name that the configuration has for it."""

    name: str
    folder: Path
    policy_id: str

    @property
    def evaluation(self) -> str:
        """Name of the folder of its evaluation: one component, whatever the model is called."""
        words = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(Path(self.name).parts[-2:])).strip("-.")
        return f"{words[-_LONGEST:].strip('-.') or 'model'}-{self.policy_id[:8]}"


def bind_for_models(inputs: Inputs) -> BoundReference:
    """The reference that models are held against, or, where none is, what makes tokens of their pairs."""
    config = inputs.config
    if config.evaluates_against_reference:
        bound = inputs.bind(hold_to_lock=True)
    else:
        bound = tokenizer_owner(
            config.reference, config.scoring.backend, inputs.workspace.lock, download=not inputs.dry_run
        )
    # Packs that are right for the reference need not be for a model of another architecture: it is tried.
    return bound if bound.attention == "rows" else replace(bound, settled=False)


def find_model(inputs: Inputs, bound: BoundReference, name: str) -> NamedModel | None:
    """The model of this name; None where it is neither here nor, as far as this job may look, on the Hub.

    Raises:
        ConfigError: it is no usable model. StoreError: it is a run whose training is not finished.
    """
    folder = _policy_of_run(inputs.workspace.runs, name)
    if folder is None:
        hub_id, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
        folder = locate(hub_id, revision or None, download=not inputs.dry_run)
    return None if folder is None else NamedModel(name, folder, inputs.model_id(folder, bound))


def _policy_of_run(runs: Path, name: str) -> Path | None:
    """The policy of the run of this name, if there is one."""
    run = RunFolder(runs / name)
    if name != Path(name).name or name.startswith(".") or not run.path.is_dir():
        return None
    if not run.is_trained:
        raise StoreError(
            f"eval.model: {name} is a run in {runs}, and it has no trained policy. Let its training finish, or name a "
            f"folder of that name with its path: ./{name}."
        )
    return run.policy
