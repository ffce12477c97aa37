"""The jobs by name, each from its configuration to its report."""

from collections.abc import Callable

from pipeline.config_job import run_config
from pipeline.doctor.job import run_doctor
from pipeline.eval_job import run_eval
from pipeline.exchange_jobs import run_export, run_import
from pipeline.init.job import run_init
from pipeline.inputs import Inputs
from pipeline.inspect_job import run_inspect
from pipeline.models.job import run_eval_models
from pipeline.reference_job import run_precompute_ref
from pipeline.report.job import run_report
from pipeline.snapshots import since_last
from pipeline.store_jobs import run_gc, run_status, run_verify
from pipeline.sweep.job import run_sweep
from pipeline.train_job import run_train
from pipeline.workers import shard_of
from stages.job import JobReport
from stages.model_files import locate

_SHOWN_REJECTS = 100  # rows in the document of `validate`; all of them stand in rejects.parquet


def run_validate(inputs: Inputs) -> JobReport:
    """Read configuration and data, account for every row; loads no model."""
    reference = inputs.config.reference
    folder = locate(reference.model, reference.revision, download=True, weights=False)
    prepared = inputs.pairs(folder)
    report = JobReport("validate", pairs=prepared.coverage.used)
    report.outputs = {"prepared": str(inputs.workspace.pairs.path), "rejects": str(inputs.workspace.pairs.rejects)}
    rejected = [vars(rejection) for rejection in prepared.rejections[:_SHOWN_REJECTS]]
    report.details = {"coverage": prepared.coverage.document(), "rejected_rows": rejected, "example": prepared.example}
    report.details |= since_last(inputs.workspace, prepared)
    return report


def run_evaluation(inputs: Inputs) -> JobReport:
    """Job three: of the run's policy, or of the models that `eval.model` names in its place."""
    if not inputs.config.eval.model:
        return run_eval(inputs)
    return run_eval_models(inputs) if shard_of(None).index == 0 else JobReport("eval", "nothing_to_do")


JOBS: dict[str, Callable[..., JobReport]] = {
    "validate": run_validate,
    "inspect": run_inspect,
    "precompute-ref": run_precompute_ref,
    "train": run_train,
    "eval": run_evaluation,
    "report": run_report,
    "sweep": run_sweep,
    "status": run_status,
    "verify": run_verify,
    "gc": run_gc,
    "export": run_export,
    "import": run_import,
}
WITHOUT_CONFIG: dict[str, Callable[..., JobReport]] = {
    "config": run_config,
    "doctor": run_doctor,
    "init": run_init,
}
"""Those that need no configuration: each gets the file and the assignments as they were given, and its arguments."""

CHAIN = ("precompute-ref", "train", "eval")
IN_SEVERAL_PROCESSES = ("precompute-ref", "train", "eval", "sweep")
"""What torchrun brings more hands to; any other job is the first process's."""
