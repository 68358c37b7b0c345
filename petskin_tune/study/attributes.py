"""The names under which trials and studies keep what Optuna has no column for. Views and notebooks read them.

All begin with :data:`PREFIX`: what a person notes on a trial, under whatever other name, is the person's own.
``stored.py`` reads them back.
"""

PREFIX = "petskin-tune:"

# ---- user attributes of a trial (plain values; seen in the dashboard) ----------------------------------------------
WORKER = "petskin-tune:worker"  # name of the worker that holds or finished it
DEVICE = "petskin-tune:device"  # "cpu", "0", …
DEVICE_MODEL = "petskin-tune:device_model"  # "Tesla T4", a CPU's name
VERSIONS = "petskin-tune:versions"  # {"ultralytics": "8.4.190", "torch": …, "petskin-tune": …}
CUDA = "petskin-tune:cuda"  # version of CUDA that torch computes with; null on a CPU
THREADS = "petskin-tune:threads"  # torch threads
SECONDS = "petskin-tune:seconds"  # spent training, over all workers
EPOCHS = "petskin-tune:epochs"  # epochs done
BEST_EPOCH = "petskin-tune:best_epoch"  # 1-based
METRICS = "petskin-tune:metrics"  # all metrics of the best epoch
HISTORY = "petskin-tune:history"  # {column: [one value an epoch]}: the trial's results.csv
ARGUMENTS = "petskin-tune:arguments"  # Ultralytics' arguments in force
BATCH = "petskin-tune:batch"  # effective batch in force
RESUMES = "petskin-tune:resumes"  # how often another process went on with it
FAILURE = "petskin-tune:failure"  # {"kind": FailureKind, "message": …, "detail": …, "log": file}: what ended it
GIVEN_BACK = "petskin-tune:given_back"  # the same of what it was given back for; None once it trains again
NOTES = "petskin-tune:notes"  # [decisions and incidents worth remembering, oldest first]
FINDINGS = "petskin-tune:findings"  # {"stuck": sentence, …}: what its curves showed when it ended
WEIGHTS = "petskin-tune:weights"  # store key of its best weights, while they are kept
FIXED = "petskin-tune:fixed"  # {argument: value} that this trial alone trains with, beside its parameters
ORIGIN = "petskin-tune:origin"  # "start point", "person", "search", "repeat"
SEED = "petskin-tune:seed"  # of its training, where that is not the study's: of a repetition
ROLE = "petskin-tune:role"  # of a repetition: the settings of the "best" trial, or of the reference, "defaults"
FOREIGN = "petskin-tune:foreign"  # of a run that was imported and not trained here: see `foreign.py`

SECONDS_COLUMN = "seconds"  # of the history: what an epoch took, validation included

# ---- system attributes of a trial -----------------------------------------------------------------------------------
MARK = "petskin-tune:nonce"  # created by one of our workers, in the transaction that made its lease
POINT = "fixed_params"  # Optuna's own: searched names and values that were chosen before the trial began
ENQUEUED = "petskin-tune:enqueued"  # nonce of the call that enqueued it

# ---- system attributes of a study -----------------------------------------------------------------------------------
METRIC_NAMES = "study:metric_names"  # Optuna's own: what its dashboard calls the values
METRIC = "mask mAP50-95"

# ---- attributes of a study ------------------------------------------------------------------------------------------
UID = "petskin-tune:uid"  # tells this study from others of the same name, in stores and on local disks
BASE = "petskin-tune:folder"  # where the study file lay; relative paths are looked up there, too
SPEC = "petskin-tune:spec"  # the StudySpec in force, as JSON (user attribute)
FILE = "petskin-tune:file"  # what the study file said of CHANGEABLE when it was last taken, as JSON
STORE = "petskin-tune:checkpoints"  # the store's URL, without credentials
FINGERPRINT = "petskin-tune:data"  # the data set's fingerprint
MODEL = "petskin-tune:model"  # name and SHA-256 of the model file that the first trial began with
ENVIRONMENT = "petskin-tune:environment"  # {"versions": …, "snapshot_format": 1, "cuda": …, "device_model": …}
OTHER_RELEASES = "petskin-tune:other-releases"  # of Ultralytics, with which a person allowed workers to go on
RECOMMENDED = "petskin-tune:recommended"  # by the model: {"trial": number, "ended": trials by then, "reason": …}
REPEATS = "petskin-tune:repeats"  # of a study of repetitions: which trial of which study, see `best/repeats.py`
GAIN = "petskin-tune:gain"  # what the repetitions of its best trial have shown, see `best/gain.py`
LAST_RUN = "petskin-tune:last-run"  # {"trial": number, "epochs": it had before}; not there while the search goes on
OUTLOOK = "petskin-tune:outlook"  # of the last choice: {"chance": of more within a day, "noise": …, "epochs": of a day}
TOLD = "petskin-tune:told-done"  # with the study's extent behind it: the worker that sent word of its end
STOP_REQUESTED = "petskin-tune:stop"  # how often `petskin-tune stop` was typed; a worker suspends when it goes up
DELETING = "petskin-tune:deleting"  # somebody has begun to delete it: workers and commands leave it alone
