#!/bin/sh
# Submits the three jobs, each to start when the one before has ended well. Run it beside pipeline.yaml, on a file system
# that all nodes share, with `pipeline` in PATH. Prints the ids of the jobs; what is given goes to each sbatch:
#
#   ./submit.sh --partition=gpu --account=ours
set -eu
cd "$(dirname "$0")"
mkdir -p logs

score=$(sbatch --parsable "$@" score.sbatch)
train=$(sbatch --parsable --dependency="afterok:$score" --kill-on-invalid-dep=yes "$@" train.sbatch)
evaluation=$(sbatch --parsable --dependency="afterok:$train" --kill-on-invalid-dep=yes "$@" eval.sbatch)
echo "precompute-ref $score, train $train, eval $evaluation"
