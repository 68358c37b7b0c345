"""The stack's files: what they publish, what they keep secret, and how a worker's end becomes a restart or none."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.places import PROJECT

DOCKER = PROJECT / "docker"


@pytest.fixture
def stack() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_every_published_port_is_on_loopback_and_only_the_login_has_one(stack: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in stack["services"].items() if "ports" in service}
    assert list(published) == ["login"]
    here = ("127.0.0.1:", "${TLS_ADDRESS:-127.0.0.1}:")  # others only where somebody says so, and by https
    assert all(port.startswith(here) for ports in published.values() for port in ports)
    inside = published["login"][0].rsplit(":", 1)[1]
    assert f"listen {inside};" in (DOCKER / "login/dashboard.conf.template").read_text()


def test_the_dashboard_may_end_and_start_again_in_the_network_of_the_login(stack: dict[str, Any]) -> None:
    """Whoever joins a container's network is cut off when that container starts again."""
    joined = {name: of["network_mode"] for name, of in stack["services"].items() if "network_mode" in of}
    assert joined == {"dashboard": "service:login", "tls": "service:login"}
    for name in joined:  # compose itself restarts them with their network
        assert stack["services"][name]["depends_on"]["login"]["restart"] is True
    login = (DOCKER / "login/dashboard.conf.template").read_text()
    (port,) = re.findall(r"proxy_pass http://127\.0\.0\.1:(\d+);", login)
    assert stack["services"]["dashboard"]["command"][-2:] == ["--port", port]


def test_no_service_waits_for_itself(stack: dict[str, Any]) -> None:
    TopologicalSorter({name: of.get("depends_on", {}) for name, of in stack["services"].items()}).prepare()


def test_one_service_builds_the_image_which_nobody_pulls_from_a_registry(stack: dict[str, Any]) -> None:
    ours = {name: of for name, of in stack["services"].items() if of["image"] == stack["services"]["init"]["image"]}
    assert set(ours) == {"init", "worker", "worker-gpu", "tools", "tools-gpu", "dashboard", "backup-store"}
    assert [name for name, of in stack["services"].items() if "build" in of] == ["init"]  # two of one tag would race
    assert {of["pull_policy"] for of in ours.values()} == {"never"}


def test_no_secret_has_a_default_and_each_is_named_in_the_example(stack: dict[str, Any]) -> None:
    text = (DOCKER / "compose.yaml").read_text()
    secrets = {name for name in re.findall(r"\$\{(\w+)", text) if "PASSWORD" in name}
    example = (DOCKER / ".env.example").read_text()
    assert secrets == {"POSTGRES_PASSWORD", "DASHBOARD_PASSWORD"}
    for name in secrets:
        assert all(default == "?" for default in re.findall(rf"\$\{{{name}:(.)", text))
        assert f"\n{name}=\n" in example


def test_every_variable_of_the_stack_is_explained_in_the_example_or_has_a_default() -> None:
    example = (DOCKER / ".env.example").read_text()
    for file in DOCKER.glob("compose*.yaml"):
        for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", file.read_text()):
            assert rest.startswith(":-") or f"{name}=" in example


def test_a_variable_has_one_default_whichever_service_and_file_names_it() -> None:
    defaults: dict[str, set[str]] = {}
    for file in DOCKER.glob("compose*.yaml"):
        for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", file.read_text()):
            defaults.setdefault(name, set()).add(default)
    assert "STUDY" in defaults
    assert {name: found for name, found in defaults.items() if len(found) > 1} == {}


def test_an_index_of_torch_wheels_is_recommended_beside_pypi_not_instead_of_it() -> None:
    recommended = [
        line
        for file in (DOCKER / "Dockerfile", DOCKER / ".env.example")
        for line in file.read_text().splitlines()
        if "PIP_ARGS=" in line and "index-url" in line
    ]
    assert len(recommended) == 2
    for line in recommended:
        assert re.search(r'PIP_ARGS="?--extra-index-url ', line)


def test_everything_that_others_wait_for_has_a_health_check_and_what_may_train_has_time_to_suspend(
    stack: dict[str, Any],
) -> None:
    services = stack["services"]
    for service in services.values():
        for name, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
    for name in ("worker", "worker-gpu", "tools", "tools-gpu"):
        assert services[name]["stop_grace_period"] == "3m", name
        assert services[name]["shm_size"] == "2gb", name
        assert services[name]["init"] is True  # or a process of pid 1 ignores SIGTERM


def test_only_the_profiles_that_are_named_run(stack: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles") for name, service in stack["services"].items()}
    assert {name: of for name, of in profiles.items() if of} == {
        "worker": ["cpu"],
        "worker-gpu": ["gpu"],
        "tools": ["tools"],
        "tools-gpu": ["tools-gpu"],
        "tls": ["tls"],
        "backup": ["backup"],
        "backup-store": ["backup"],
    }
    assert "\nCOMPOSE_PROFILES=cpu\n" in (DOCKER / ".env.example").read_text()
    gpu = stack["services"]["worker-gpu"]
    assert gpu["command"][-2:] == ["--device", "all"]
    assert gpu["depends_on"] == stack["services"]["worker"]["depends_on"]


def test_a_command_can_have_the_gpus_of_the_workers(stack: dict[str, Any]) -> None:
    tools, gpu = stack["services"]["tools"], stack["services"]["tools-gpu"]
    assert gpu["deploy"]["resources"] == stack["services"]["worker-gpu"]["deploy"]["resources"]
    of_its_own = ("deploy", "profiles")  # nobody who has the commands without GPUs is asked for one
    assert {name: of for name, of in gpu.items() if name not in of_its_own} == {
        name: of for name, of in tools.items() if name not in of_its_own
    }


def test_studies_are_mounted_and_what_comes_out_lies_in_a_folder(stack: dict[str, Any]) -> None:
    for name in ("init", "worker", "worker-gpu", "tools", "tools-gpu"):
        mounts = dict(
            volume.rsplit(":", 2)[-2:] if volume.endswith(":ro") else (volume.rsplit(":", 1)[1], "rw")
            for volume in stack["services"][name]["volumes"]
        )
        assert mounts["/work/studies"] == mounts["/work/datasets"] == "ro"
    assert "${OUT:-./out}:/work/out" in stack["services"]["tools"]["volumes"]
    for name in ("init", "worker", "tools"):
        assert "TUNE_CHECKPOINTS" in stack["services"][name]["environment"]
        assert stack["services"][name]["env_file"] == [{"path": "bucket.env", "required": False}]


def test_https_is_in_front_of_the_login_and_asks_it_for_everything(stack: dict[str, Any]) -> None:
    https = (DOCKER / "tls/https.conf.template").read_text()
    login = (DOCKER / "login/dashboard.conf.template").read_text()
    (door,) = re.findall(r"listen (\d+);", login)
    assert re.findall(r"proxy_pass (\S+);", https) == [f"http://127.0.0.1:{door}"]
    (inside,) = re.findall(r"listen (\d+) ssl;", https)
    assert f"${{TLS_ADDRESS:-127.0.0.1}}:${{TLS_PORT:-8443}}:{inside}" in stack["services"]["login"]["ports"]
    assert "*.pem" in (DOCKER / "tls/.gitignore").read_text()


@pytest.mark.parametrize("script", sorted(path.name for path in DOCKER.glob("*.sh")))
def test_a_plain_shell_takes_a_script(script: str) -> None:
    checked = subprocess.run(["sh", "-n", DOCKER / script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_no_env_file_gets_into_the_image() -> None:
    lines = (DOCKER.parent / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    assert not any(".env" in line for line in lines)


def test_no_study_of_a_person_gets_into_the_image_and_no_weights() -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("not a checkout: nobody knows whose the studies are")
    listed = subprocess.run(["git", "ls-files", "studies"], cwd=PROJECT, capture_output=True, text=True, check=True)
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    admitted = [line.removeprefix("!") for line in lines if line.startswith("!studies")]
    assert sorted(admitted) == sorted(listed.stdout.split())


# ---- docker/worker.sh -----------------------------------------------------------------------------------------------


def as_container(tmp_path: Path, script: str) -> subprocess.Popen[str]:
    """Run worker.sh with a `tune-worker` that is ``script``."""
    fake = tmp_path / "tune-worker"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.Popen(
        ["sh", str(DOCKER / "worker.sh"), "--study", "demo"], env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("worker", "container"), [(0, 0), (75, 0), (2, 0), (1, 1), (137, 137)])
def test_only_an_end_that_a_restart_can_mend_is_told_to_docker(tmp_path: Path, worker: int, container: int) -> None:
    process = as_container(tmp_path, f'echo "$@"; exit {worker}')
    output, _ = process.communicate(timeout=240)
    assert process.returncode == container
    assert output.startswith("--study demo\n")
    assert ("not restarted" in output) is (worker in (2, 75))


def test_a_stopped_container_lets_its_worker_suspend_and_waits_for_it(tmp_path: Path) -> None:
    process = as_container(
        tmp_path,
        "trap 'echo suspending; sleep 1; echo suspended; exit 75' TERM; echo ready; while :; do sleep 0.1; done",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert output.splitlines() == ["suspending", "suspended", "tune-worker ended with exit code 75: not restarted"]


def test_the_lock_has_every_dependency_in_a_release_that_is_allowed_and_each_with_its_hashes() -> None:
    locked = {}
    for entry in re.split(r"\n(?=\S)", (DOCKER / "requirements.lock").read_text().strip()):
        assert re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
        name, version = entry.split(" ")[0].split("==")
        locked[canonicalize_name(name)] = version
    asked_for = [Requirement(line) for line in metadata.requires("petskin-tune") or ()]
    in_image = [one for one in asked_for if any(_is_needed(one, extra) for extra in ("", "s3", "gcs"))]
    assert len(in_image) > 10
    for one in in_image:
        assert one.specifier.contains(locked[canonicalize_name(one.name)]), one
    assert "hatchling" in locked  # it builds our own package, without a look at the index


def _is_needed(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
