"""What a study remembers of the packages it was begun with, how another machine differs, and what to type then."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from packaging.requirements import Requirement

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.doctor import checks as doctor
from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held
from petskin_tune.packages import decisive, differences, installation, pins, said
from petskin_tune.study import attributes
from petskin_tune.study import environment as study_environment
from petskin_tune.study.environment import of_study, render
from petskin_tune.study.study import Study
from petskin_tune.worker.environment import EnvironmentCheck, LeftToOthers, keep_in
from tests.support.leased_studies import UID, new_study
from tests.support.studies import a_spec, a_study, add

VERSIONS = {
    "petskin-tune": "0.1.0",
    "python": "3.11",
    "ultralytics": "8.4.190",
    "torch": "2.14.0+cu128",
    "torchvision": "0.29.1",
    "numpy": "2.4.6",
    "opencv-python": "5.0.0.93",
}
T4 = {"versions": VERSIONS, "snapshot_format": 1, "cuda": "12.8", "device_model": "Tesla T4", "threads": 2}


def but(**changes: Any) -> dict[str, Any]:
    """The machine above with other packages (``ultralytics="8.4.185"``) or other things."""
    packages = {name.replace("_", "-"): value for name, value in changes.items() if name not in T4}
    others = {name: value for name, value in changes.items() if name in T4}
    return {**T4, "versions": {**VERSIONS, **packages}, **others}


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (but(), ""),
        (but(ultralytics="8.4.185"), "ultralytics 8.4.185 instead of 8.4.190"),
        (but(snapshot_format=2), "snapshot format 2 instead of 1"),
        (but(torch="2.13.0+cu128"), "torch 2.13.0+cu128 instead of 2.14.0+cu128"),
        (but(torch="2.14.0+cpu"), "torch 2.14.0+cpu instead of 2.14.0+cu128"),
        (but(torch="2.14.0"), ""),  # PyPI's wheel of the same release
        (but(torchvision="0.28.0"), "torchvision 0.28.0 instead of 0.29.1"),
        (but(numpy="2.5.0"), "numpy 2.5.0 instead of 2.4.6"),
        (but(opencv_python="5.1.0.1"), "opencv-python 5.1.0.1 instead of 5.0.0.93"),
        (but(python="3.12"), "python 3.12 instead of 3.11"),
        (but(petskin_tune="0.2.0"), "petskin-tune 0.2.0 instead of 0.1.0"),
        (but(cuda="13.0"), "CUDA 13.0 instead of 12.8"),
        (but(device_model="NVIDIA L4"), "device NVIDIA L4 instead of Tesla T4"),
        (but(threads=8), "threads 8 instead of 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_thing_that_training_depends_on_is_compared(machine: dict[str, Any], expected: str) -> None:
    assert said(differences(T4, machine)) == expected
    mixes = expected.startswith(("ultralytics", "snapshot format"))
    assert bool(decisive(T4, machine)) == mixes, "only Ultralytics and the snapshots' format may not be mixed"


def test_what_a_worker_does_not_know_of_its_machine_is_not_compared() -> None:
    assert differences(T4, {"versions": VERSIONS, "snapshot_format": 1}) == []
    assert said(differences({"versions": VERSIONS}, but(snapshot_format=2))) == ""


def test_the_command_names_what_pip_installs_and_nothing_else() -> None:
    machine = but(ultralytics="8.4.185", torch="2.13.0", python="3.12", threads=8, petskin_tune="0.2.0")
    assert installation(differences(T4, machine)) == "pip install ultralytics==8.4.190 torch==2.14.0"
    assert installation(differences(T4, but(threads=8))) == ""


# ---- environment.txt -------------------------------------------------------------------------------------------------


def requirements(text: str) -> list[Requirement]:
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_file_pins_what_an_index_has_and_says_the_rest_in_comments() -> None:
    text = render("small", T4)
    assert [f"{found.name}{found.specifier}" for found in requirements(text)] == [
        "ultralytics==8.4.190",
        "torch==2.14.0",
        "torchvision==0.29.1",
        "numpy==2.4.6",
        "opencv-python==5.0.0.93",
    ]
    comments = [line for line in text.splitlines() if line.startswith("#") or " # " in line]
    for comment in ("petskin-tune 0.1.0", "python 3.11", "CUDA 12.8", "device Tesla T4", "2.14.0+cu128", "study small"):
        assert any(comment in line for line in comments), comment


def test_on_another_python_only_ultralytics_is_asked_for() -> None:
    """Wheels of the others may not exist there, and a user whose machine has changed would be stuck."""
    found = requirements(render("small", T4))
    elsewhere = [one.name for one in found if one.marker is None or one.marker.evaluate({"python_version": "3.13"})]
    assert elsewhere == ["ultralytics"]


@pytest.mark.parametrize("evil", ["8.4.190\n--index-url http://evil", "8.4.190 --hash", "@ http://evil/x.whl", ""])
def test_what_a_database_says_never_becomes_an_option_of_pip(evil: str) -> None:
    environment = but(ultralytics=evil, torch=evil, device_model=evil, python=evil)
    assert {"ultralytics", "torch"}.isdisjoint(pins(environment))
    text = render(f"small{evil}", environment)
    assert [found.name for found in requirements(text)] == ["torchvision", "numpy", "opencv-python"]
    assert not any(line.startswith("-") for line in text.splitlines())
    assert "evil" not in installation(differences(environment, T4))


# ---- what a study has recorded ---------------------------------------------------------------------------------------


def test_a_study_from_before_takes_what_its_first_trial_recorded() -> None:
    study = a_study(a_spec())
    assert of_study(study.user_attrs, study.trials) is None
    add(study, "FAIL")
    add(study, "COMPLETE", 0.1, versions=VERSIONS, device_model="Tesla T4")
    add(study, "RUNNING", versions={**VERSIONS, "ultralytics": "8.4.191"}, device_model="NVIDIA L4")
    environment = of_study(study.user_attrs, study.trials)
    assert environment is not None
    assert environment["versions"] == VERSIONS
    assert (environment["device_model"], environment["snapshot_format"]) == ("Tesla T4", 1)


def test_the_first_trial_adds_the_device_to_what_was_recorded_before_its_birth() -> None:
    study = a_study(a_spec())
    packages = {"versions": VERSIONS, "snapshot_format": 1}
    study.set_user_attr(attributes.ENVIRONMENT, packages)
    assert of_study(study.user_attrs, study.trials) is None, "nothing was trained with them"
    add(study, "RUNNING", versions={**VERSIONS, "torch": "2.1"}, device_model="Tesla T4", cuda="12.8")
    device = {"cuda": "12.8", "device_model": "Tesla T4"}
    assert of_study(study.user_attrs, study.trials) == {**packages, **device}


# ---- one worker ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('environment') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


class Machines:
    """One study and workers of it, each with the packages that a test gives it (nobody can install them all here)."""

    def __init__(self, storage: PetskinStorage, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.home = SimpleNamespace(folder=home, network=False)
        self.said: list[str] = []
        self._patch = patch
        self._leased = new_study(storage)
        self._optuna = self._leased.optuna
        self._storage = storage

    @property
    def study(self) -> Study:
        return Study(self._storage, self._optuna, a_spec(), UID, self._optuna.user_attrs)

    def worker(self, *, allowed: bool = False, **packages: str) -> EnvironmentCheck:
        machine = {"versions": {**VERSIONS, **packages}, "snapshot_format": 1}
        self._patch.setattr("petskin_tune.packages.here", lambda: machine)
        return EnvironmentCheck(self.study, cast(Home, self.home), allowed=allowed, say=self.said.append)

    def trained(self) -> None:
        """The study was begun with the packages above, and a trial has trained with them."""
        assert self.worker().begin()
        add(self.study.optuna, "RUNNING", versions=VERSIONS, device_model="Tesla T4", cuda="12.8")

    def claims(self, name: str) -> Claims:
        return self._leased.worker(name)

    def environment(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.study.attributes[attributes.ENVIRONMENT])

    def file(self) -> str:
        return (self.home.folder / "environment.txt").read_text()


@pytest.fixture
def machines(storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(storage, tmp_path, monkeypatch)


def trains(claims: Claims, held: Held, **packages: str) -> HeldTrial:
    """The held trial says that it has started."""
    trial = HeldTrial(claims, held)
    machine = {"versions": {**VERSIONS, **packages}, "device_model": "Tesla T4", "cuda": "12.8"}
    trial.describe({attributes.PREFIX + key: value for key, value in machine.items()})
    return trial


def claimed(claims: Claims) -> Held:
    held = claims.next_trial(10)
    assert held is not None
    return held


def test_of_two_workers_that_begin_a_study_with_different_releases_one_waits_and_is_refused(machines: Machines) -> None:
    first, second = machines.worker(), machines.worker(ultralytics="8.4.191")
    assert first.require()
    assert second.require()  # nothing is recorded yet
    assert first.begin()
    claims = machines.claims("first")
    held = claimed(claims)
    assert first.begin(own=held.trial_id)
    second = machines.worker(ultralytics="8.4.191")
    assert not second.begin()
    assert not second.require()
    assert machines.said == [
        "this machine has ultralytics 8.4.191 instead of 8.4.190, with which another worker begins the study: waiting "
        "whether its training starts"
    ]
    assert machines.file() == render("petskin", {"versions": VERSIONS})
    trains(claims, held)
    with pytest.raises(UsageError) as refused:
        second.begin()
    line = f"pip install -r {machines.home.folder / 'environment.txt'}"
    assert str(refused.value) == (
        "This machine has ultralytics 8.4.191 instead of 8.4.190, with which the study petskin was begun: type "
        f"`{line}`, or go on with --allow-different-machine, which is recorded."
    )
    assert machines.environment()["versions"] == VERSIONS
    assert machines.file() == render("petskin", T4)


def test_packages_with_which_nothing_was_trained_are_replaced_by_the_next_workers(machines: Machines) -> None:
    broken, claims = machines.worker(), machines.claims("broken")
    assert broken.begin()
    held = claimed(claims)
    assert broken.begin(own=held.trial_id)
    HeldTrial(claims, held).release("machine: its packages are broken")
    mended = machines.worker(ultralytics="8.4.191")
    assert mended.require()
    assert mended.begin()
    assert machines.environment()["versions"]["ultralytics"] == "8.4.191"
    assert "ultralytics==8.4.191\n" in machines.file()


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_trial_that_somebody_may_hold_keeps_its_packages_in_force(machines: Machines, *, is_gone: bool) -> None:
    first = machines.worker()
    assert first.begin()
    held = claimed(machines.claims("first"))
    gone = {(held.trial_id, held.token)} if is_gone else set()
    other = machines.worker(ultralytics="8.4.191")
    assert other.require(gone) == other.begin(gone) == is_gone
    assert machines.environment()["versions"]["ultralytics"] == ("8.4.191" if is_gone else "8.4.190")


def test_a_trial_that_trained_and_was_given_back_in_that_instant_keeps_its_packages(machines: Machines) -> None:
    first, claims = machines.worker(), machines.claims("first")
    assert first.begin()
    held = claimed(claims)
    other = machines.worker(ultralytics="8.4.191")
    other._recorded = lambda: None  # type: ignore[method-assign]  # it has just read that nothing was trained
    trains(claims, held).release("SIGTERM")
    assert not other.begin()
    assert machines.environment()["versions"] == VERSIONS


def test_who_replaced_packages_unseen_is_not_overwritten_when_its_trial_trains(machines: Machines) -> None:
    first = machines.worker()
    assert first.begin()
    second, claims = machines.worker(ultralytics="8.4.191"), machines.claims("second")
    assert second.begin()
    trains(claims, claimed(claims), ultralytics="8.4.191")
    with pytest.raises(UsageError, match=r"ultralytics 8\.4\.190 instead of 8\.4\.191"):
        first.require()
    assert machines.environment()["versions"]["ultralytics"] == "8.4.191"
    assert machines.environment()["device_model"] == "Tesla T4"


ORDERS = sorted({"".join(order) for order in itertools.permutations("aaabbb")})


@pytest.mark.parametrize("order", ORDERS)
def test_in_whatever_order_two_workers_begin_they_train_with_one_release(order: str, machines: Machines) -> None:
    """Each records its packages, claims a trial and looks again, as a worker does; and gives it back where it must."""
    releases = {"a": "8.4.190", "b": "8.4.191"}
    assert machines.worker(ultralytics="8.4.1").begin()  # whoever came before has trained nothing
    training = []

    def worker(name: str) -> Iterator[None]:
        check, claims = machines.worker(ultralytics=releases[name]), machines.claims(name)
        may_claim = check.begin()
        yield
        if not may_claim:
            return
        held = claimed(claims)
        yield
        if check.begin(own=held.trial_id):
            training.append(name)
        else:
            HeldTrial(claims, held).release("others were faster")
        yield

    workers = {name: worker(name) for name in releases}
    for name in order:
        next(workers[name], None)
    (winner,) = training
    assert machines.environment()["versions"]["ultralytics"] == releases[winner]


def test_another_torch_is_not_refused_and_the_study_keeps_its_own(machines: Machines) -> None:
    machines.trained()
    other = machines.worker(torch="2.99.0", numpy="9")
    other.begin()
    assert machines.study.attributes[attributes.ENVIRONMENT]["versions"] == VERSIONS
    assert "torch==2.14.0" in machines.file()


def test_another_release_that_a_person_allows_goes_on_and_the_study_remembers_each_once(machines: Machines) -> None:
    machines.trained()
    for release in ("8.4.191", "8.4.192", "8.4.191"):
        machines.worker(allowed=True, ultralytics=release).begin()
    study = machines.study
    assert study.attributes[attributes.OTHER_RELEASES] == ["8.4.191", "8.4.192"]
    lines, _ = study_environment.news(study.name, study.attributes, study.trials(), machines.home.folder)
    assert lines[0] == "trained with ultralytics 8.4.190 and, as a person allowed, with 8.4.191 and 8.4.192"
    with pytest.raises(UsageError):
        machines.worker(ultralytics="8.4.191").require()


def test_the_file_is_of_the_study_that_was_worked_on_last(machines: Machines, storage: PetskinStorage) -> None:
    machines.trained()
    machines.worker().require()
    own = machines.file()
    keep_in(cast(Home, machines.home), render("another study", but(ultralytics="8.4.100")))
    with pytest.raises(UsageError, match=r"environment\.txt"):
        machines.worker(ultralytics="8.4.191").require()
    assert machines.file() == own


def test_where_the_home_refuses_the_file_the_packages_are_named(machines: Machines) -> None:
    machines.trained()
    (machines.home.folder / "environment.txt").unlink()
    (machines.home.folder / "environment.txt").mkdir()
    with pytest.raises(UsageError, match=r"type `pip install ultralytics==8\.4\.190`, or"):
        machines.worker(ultralytics="8.4.191").require()
    assert any("environment.txt could not be written" in line for line in machines.said)


def test_a_study_from_before_environments_is_held_to_its_first_trial_and_every_home_gets_the_file(
    machines: Machines, tmp_path: Path
) -> None:
    add(machines.study.optuna, "RUNNING", versions=VERSIONS, device_model="Tesla T4")
    for home in ("first", "second"):
        machines.home.folder = tmp_path / home
        machines.home.folder.mkdir()
        with pytest.raises(UsageError, match=rf"pip install -r \S+/{home}/environment\.txt"):
            machines.worker(ultralytics="8.4.191").require()
        assert "ultralytics==8.4.190\n" in machines.file()
        assert "# device Tesla T4\n" in machines.file()
    assert machines.study.attributes[attributes.ENVIRONMENT]["versions"] == VERSIONS


def test_a_network_home_gets_the_file_too_without_a_rename(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.home.network = True
    monkeypatch.setattr(Path, "replace", _no_rename)
    monkeypatch.setattr("os.replace", _no_rename)
    machines.trained()
    machines.worker().require()
    before = machines.file()
    keep_in(cast(Home, machines.home), "# another\n")
    machines.worker().require()
    assert machines.file() == before
    assert [path.name for path in machines.home.folder.iterdir()] == ["environment.txt"]


def _no_rename(*_: object) -> None:
    raise AssertionError("renamed on a network disk")


@pytest.mark.parametrize(
    ("packages", "verdict", "said"),
    [
        ({}, "ok", "the packages that the study was begun with, ultralytics 8.4.190"),
        ({"torch": "2.13.0"}, "warning", "a trial that goes on here is no longer exactly as undisturbed"),
        ({"ultralytics": "8.4.191"}, "problem", "a worker here is refused: type `pip install -r "),
    ],
    ids=["the same", "another torch", "another ultralytics"],
)
def test_the_doctor_says_what_a_worker_here_would_do(
    machines: Machines, packages: dict[str, str], verdict: str, said: str
) -> None:
    assert doctor._environment(machines.study, cast(Home, machines.home)) is None, "nothing was trained yet"
    machines.trained()
    machines.worker().require()
    machines.worker(**packages)
    check = doctor._environment(machines.study, cast(Home, machines.home))
    assert check is not None
    assert check.verdict == verdict
    assert said in check.message


def test_another_snapshot_format_is_refused_with_what_to_install(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.trained()
    later = machines.worker()
    later._here = {"versions": {**VERSIONS, "petskin-tune": "0.2.0"}, "snapshot_format": 2}
    with pytest.raises(UsageError, match=r"snapshot format 2 instead of 1, .*: install petskin-tune 0\.1\.0 again, or"):
        later.require()


def test_what_is_left_to_other_machines_is_said_with_the_trials_of_one_reason_together() -> None:
    left = LeftToOthers()
    for trial_id, reason in ((11, "no GPU"), (12, "no GPU"), (13, "old torch")):
        left.add(trial_id, trial_id - 10, reason)
    assert left.trials == {11, 12, 13}
    assert left.sentence("small", {11, 12}) == (
        "What is left of the study small is for another machine, trial 1, 2: no GPU."
    )
    assert left.sentence("small", {12, 13}).endswith("trial 2: no GPU; trial 3: old torch.")


def test_nothing_heavy_is_imported_to_compare_packages() -> None:
    code = (
        "import sys; from petskin_tune import packages as e; e.here(); import petskin_tune.worker.environment; "
        "print([name for name in ('torch', 'ultralytics', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
