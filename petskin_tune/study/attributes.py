"""The names under which trials and studies keep what Optuna has no column for. Views and notebooks read them."""

# ---- user attributes of a trial (plain values; seen in the dashboard) ----------------------------------------------
WORKER = "worker"  # name of the worker that holds or finished it
DEVICE = "device"  # "cpu", "0", …
DEVICE_MODEL = "device_model"  # "Tesla T4", a CPU's name
VERSIONS = "versions"  # {"ultralytics": "8.4.190", "torch": …, "petskin-tune": …}
CUDA = "cuda"  # version of CUDA that torch computes with; null on a CPU
THREADS = "threads"  # torch threads
SECONDS = "seconds"  # spent training, over all workers
EPOCHS = "epochs"  # epochs done
BEST_EPOCH = "best_epoch"  # 1-based
METRICS = "metrics"  # all metrics of the best epoch
SECONDS_COLUMN = "seconds"  # of the history: what an epoch took, validation included
HISTORY = "history"  # {column: [one value an epoch]}: the trial's results.csv
ARGUMENTS = "arguments"  # Ultralytics' arguments in force
BATCH = "batch"  # effective batch in force
RESUMES = "resumes"  # how often another process went on with it
FAILURE = "failure"  # {"kind": FailureKind, "message": …, "detail": …, "log": file}: what ended it
GIVEN_BACK = "given_back"  # the same of what it was given back for; None once it trains again
NOTES = "notes"  # [decisions and incidents worth remembering, oldest first]
FINDINGS = "findings"  # {"stuck": sentence, …}: what its curves showed when it ended, as `diagnose` says it
WEIGHTS = "weights"  # store key of its best weights, while they are kept
FIXED = "fixed"  # {argument: value} that this trial alone trains with, beside its parameters
ORIGIN = "origin"  # "start point", "person", "search"

# ---- system attributes of a trial -----------------------------------------------------------------------------------
MARK = "petskin-tune:nonce"  # created by one of our workers, in the transaction that made its lease
POINT = "fixed_params"  # Optuna's own: searched names and values that were chosen before the trial began
ENQUEUED = "petskin-tune:enqueued"  # nonce of the call that enqueued it

# ---- attributes of a study ------------------------------------------------------------------------------------------
UID = "petskin-tune:uid"  # tells this study from others of the same name, in stores and on local disks
BASE = "petskin-tune:folder"  # where the study file lay; relative paths are looked up there, too
SPEC = "petskin-tune:spec"  # the StudySpec in force, as JSON (user attribute)
STORE = "petskin-tune:checkpoints"  # the store's URL, without credentials
FINGERPRINT = "petskin-tune:data"  # the data set's fingerprint
MODEL = "petskin-tune:model"  # name and SHA-256 of the model file that the first trial began with
ENVIRONMENT = "petskin-tune:environment"  # {"versions": …, "snapshot_format": 1, "cuda": …, "device_model": …}
OTHER_RELEASES = "petskin-tune:other-releases"  # of Ultralytics, with which a person allowed workers to go on
STOP_REQUESTED = "petskin-tune:stop"  # how often `petskin-tune stop` was typed; a worker suspends when it goes up
