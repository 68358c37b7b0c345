"""The files for schedulers: what they say of a worker's signals and exit codes, and that their parsers take them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from petskin_tune.errors import EXIT_SUSPENDED, EXIT_USAGE
from tests.support.documents import PROGRAMS, parse
from tests.support.places import PROJECT

DEPLOY = PROJECT / "deploy"
PATIENCE = 240


@pytest.fixture
def job() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())


def test_a_job_replaces_suspended_workers_and_does_not_end_because_of_one_that_cannot_run(job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert "completions" not in spec  # or pods would be started until so many have exited 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # a failure policy asks for it
    actions = {
        code: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", [])
    }
    assert actions == {EXIT_SUSPENDED: "Ignore"}
    assert EXIT_USAGE not in actions  # counted: one broken node must not end the workers of all others
    assert "FailJob" not in {rule["action"] for rule in spec["podFailurePolicy"]["rules"]}
    # Enough for every worker to fail a few times in an outage, and not for one that cannot run to be tried for days.
    assert 5 * spec["parallelism"] <= spec["backoffLimit"] <= 10 * spec["parallelism"]
    names = {container["name"] for container in spec["template"]["spec"]["containers"]}
    assert {
        rule["onExitCodes"]["containerName"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    } <= names
    assert {"type": "DisruptionTarget", "status": "True"} in [
        condition for rule in spec["podFailurePolicy"]["rules"] for condition in rule.get("onPodConditions", [])
    ]


def test_kubernetes_own_schema_takes_the_job_and_nothing_that_is_mistyped(job: dict[str, Any]) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for release in ("1.31", schemas.latest_version()):  # the first in which a Job's failure policy is stable
        schemas.validate(job, release, strict=True)
    job["spec"]["podFailurePolicy"]["rules"][0]["onExitCode"] = {}
    with pytest.raises(schemas.ValidationError, match="onExitCode"):
        schemas.validate(job, "1.31", strict=True)


@pytest.mark.parametrize(
    ("code", "is_disrupted", "action"),
    [
        (EXIT_SUSPENDED, False, "Ignore"),  # `petskin-tune stop`, --max-trials, a person who deletes the pod
        (EXIT_SUSPENDED, True, "Ignore"),  # a preempted node, in time
        (128 + signal.SIGTERM, True, "Ignore"),  # at its very beginning
        (128 + signal.SIGKILL, True, "Ignore"),  # its snapshot took longer than the node gave
        (None, True, "Ignore"),  # the node is gone without a word: nobody knows how the container ended
        (128 + signal.SIGKILL, False, "Count"),  # no memory left
        (EXIT_USAGE, False, "Count"),
        (1, False, "Count"),
    ],
)
def test_what_preemptions_do_to_a_pod_uses_up_no_limit(
    job: dict[str, Any], code: int | None, is_disrupted: bool, action: str
) -> None:
    """The first rule that fits a failed pod says what becomes of it, as Kubernetes reads them; else it is counted."""
    conditions = [{"type": "DisruptionTarget", "status": "True"}] if is_disrupted else []

    def fits(rule: dict[str, Any]) -> bool:
        codes = rule.get("onExitCodes", {"operator": "In", "values": []})
        assert codes["operator"] == "In"
        return code in codes["values"] or any(one in conditions for one in rule.get("onPodConditions", []))

    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert next((rule["action"] for rule in rules if fits(rule)), "Count") == action


def test_a_jobs_worker_is_one_that_can_be_typed_with_time_to_suspend_and_no_secret_in_the_file(
    job: dict[str, Any],
) -> None:
    pod = job["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    parse(worker["command"])
    assert pod["terminationGracePeriodSeconds"] >= 60
    known = {variable["name"]: variable["value"] for variable in worker["env"]}
    assert set(known) == {"TUNE_CHECKPOINTS", "TUNE_HOME", "TUNE_GRACE_SECONDS", "TUNE_PATIENCE_SECONDS"}
    assert 60 <= float(known["TUNE_GRACE_SECONDS"]) < pod["terminationGracePeriodSeconds"]
    assert worker["envFrom"] == [{"secretRef": {"name": "petskin-tune"}}]
    mounted = {mount["name"] for mount in worker["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_images_user_is_a_number_because_a_job_must_not_run_as_root(job: dict[str, Any]) -> None:
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    assert worker["securityContext"]["runAsNonRoot"] is True  # which Kubernetes cannot tell of a name
    users = re.findall(r"^USER (\S+)$", (PROJECT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert users
    assert all(user.isdigit() and int(user) > 0 for user in users)


def test_a_spot_machine_starts_a_worker_again_only_while_there_is_work_left() -> None:
    task = yaml.safe_load((DEPLOY / "skypilot.yaml").read_text())
    assert task["resources"]["use_spot"] is True
    assert task["secrets"] == {"TUNE_STORAGE": None}
    assert all(isinstance(value, str) for value in task["envs"].values())  # as SkyPilot's schema asks
    checked = subprocess.run(["bash", "-n"], input=task["run"], text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert re.findall(r"\$code\" = (\d+)", task["run"]) == [str(EXIT_SUSPENDED)]
    (line,) = [line.strip() for line in task["run"].splitlines() if "tune-worker" in line]
    parse([word.strip('"') for word in line.removeprefix("~/venv/bin/").removesuffix(" && break").split()])


@pytest.mark.parametrize("script", sorted(path.name for path in DEPLOY.glob("*.sh")))
def test_the_shell_takes_a_script(script: str) -> None:
    checked = subprocess.run(["bash", "-n", DEPLOY / script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


# ---- deploy/slurm.sh -------------------------------------------------------------------------------------------------


def as_task(folder: Path, worker: str, scontrol: str = 'echo "scontrol $*"', **variables: str) -> subprocess.Popen[str]:
    """Run slurm.sh with a `tune-worker` and a `scontrol` that are scripts."""
    for name, script in {"tune-worker": worker, "scontrol": scontrol}.items():
        fake = folder / name
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_ARRAY_JOB_ID": "17",
        "SLURM_ARRAY_TASK_ID": "3",
        **variables,
    }
    return subprocess.Popen(
        ["bash", DEPLOY / "slurm.sh", "petskin", "--max-hours", "4"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(("code", "task", "requeued"), [(0, 0, False), (75, 0, True), (2, 2, False), (1, 1, False)])
def test_a_task_requeues_itself_while_there_is_work_left(tmp_path: Path, code: int, task: int, requeued: bool) -> None:
    process = as_task(tmp_path, f'echo "$@"; exit {code}')
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == task
    typed = output.splitlines()[0]
    assert typed == "--study petskin --name slurm-17-3 --max-hours 4"
    parse(["tune-worker", *typed.split()])
    assert ("scontrol requeue 17_3" in output) is requeued


def test_a_job_that_is_no_array_is_requeued_by_its_own_number(tmp_path: Path) -> None:
    alone = {"SLURM_ARRAY_JOB_ID": "", "SLURM_ARRAY_TASK_ID": "", "SLURM_JOB_ID": "23"}
    output, _ = as_task(tmp_path, "exit 75", **alone).communicate(timeout=PATIENCE)
    assert output.splitlines() == ["scontrol requeue 23", "work is left: requeued"]


def test_a_task_that_cannot_be_requeued_does_not_say_so(tmp_path: Path) -> None:
    process = as_task(tmp_path, "exit 75", scontrol="exit 1")
    output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (75, "")


def test_a_task_that_is_told_to_end_lets_its_worker_suspend_first(tmp_path: Path) -> None:
    worker = "trap 'echo suspended; exit 75' TERM; echo ready; while :; do sleep 0.1; done"
    process = as_task(tmp_path, worker)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert output.splitlines() == ["suspended", "scontrol requeue 17_3", "work is left: requeued"]


def test_a_signal_at_the_workers_very_beginning_reaches_it(tmp_path: Path) -> None:
    slowly = tmp_path / "slowly"
    slowly.write_text("trap 'sleep 0.2' DEBUG\n")  # before each command of slurm.sh: the worker is ahead of it
    worker = "trap 'echo suspended; exit 75' TERM; kill -TERM $PPID; while :; do sleep 0.1; done"
    output, _ = as_task(tmp_path, worker, BASH_ENV=str(slowly)).communicate(timeout=PATIENCE)
    assert output.splitlines() == ["suspended", "scontrol requeue 17_3", "work is left: requeued"]


def test_a_task_whose_worker_dies_of_the_signal_before_it_can_take_it_is_requeued(tmp_path: Path) -> None:
    output, _ = as_task(tmp_path, "kill -TERM $PPID; sleep 0.2; kill -TERM $$").communicate(timeout=PATIENCE)
    assert output.splitlines() == ["scontrol requeue 17_3", "work is left: requeued"]


def test_a_worker_that_somebody_else_ends_is_a_failure(tmp_path: Path) -> None:
    process = as_task(tmp_path, "kill -TERM $$")
    output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "scontrol" in output) == (128 + signal.SIGTERM, False)


def test_the_limit_of_a_task_leaves_time_to_suspend() -> None:
    script = (DEPLOY / "slurm.sh").read_text()
    (seconds,) = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", script, re.MULTILINE)
    assert int(seconds) >= 60
    assert "#SBATCH --requeue\n" in script
    assert set(PROGRAMS) & set(re.findall(r"^[\w-]+", script, re.MULTILINE)) == {"tune-worker"}
