#!/usr/bin/env bash
# One worker for each task of an array; each goes on by itself until the study is done:
#     sbatch --array=1-8 deploy/slurm.sh STUDY [options of tune-worker]
# TUNE_STORAGE, TUNE_CHECKPOINTS and the bucket's keys come from the environment of sbatch (or a file that you source here).
#SBATCH --job-name=petskin-tune
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
# The last line: 180 s before the time limit this script gets SIGTERM, as it does when the task is preempted.
set -u
export TUNE_GRACE_SECONDS="${TUNE_GRACE_SECONDS:-170}" TUNE_PATIENCE_SECONDS="${TUNE_PATIENCE_SECONDS:-1800}"
study=${1:?name the study: sbatch --array=1-8 slurm.sh STUDY}
shift

stopped=
stop() { # the worker is known by `$!`, which is set as soon as it exists; a variable of ours would be set too late
    stopped=yes
    [ -z "${!-}" ] || kill -TERM "$!" 2>/dev/null
}
trap stop TERM

tune-worker --study "$study" --name "slurm-${SLURM_ARRAY_JOB_ID:-0}-${SLURM_ARRAY_TASK_ID:-0}" "$@" &
worker=$!
[ -z "$stopped" ] || stop # the signal came before the worker existed
wait "$worker"
code=$?
while kill -0 "$worker" 2>/dev/null; do # a signal ended the wait, not the worker
    wait "$worker"
    code=$?
done

if [ -n "$stopped" ] && [ "$code" = 143 ]; then # the signal ended the worker before it could take it
    code=75
fi
if [ "$code" = 75 ]; then # suspended with work left
    task="${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-0}}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    case "$(scontrol show job "$task" 2>/dev/null)" in
    *JobState=CANCELLED* | *JobState=COMPLETING*) echo "cancelled: not requeued" && exit 75 ;; # by scancel, which is how to stop it
    esac
    scontrol requeue "$task" || exit 75
    echo "work is left: requeued"
    exit 0
fi
exit "$code"
