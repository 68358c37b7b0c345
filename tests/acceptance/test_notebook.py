"""The Colab notebook: its cells run, the machine is lost, all cells run again, in a real kernel. Drive is a folder.

What the cells use is a wheel of the project, on Drive, which the notebook's own pip has put on the machine's disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, version
from pathlib import Path
from typing import Any

import pytest

import petskin_tune
from petskin_tune import packages
from petskin_tune.home.home import resolve_home
from petskin_tune.study import environment as study_environment
from petskin_tune.worker.environment import keep_in
from tests.support import workers
from tests.support.notebooks import Machine, MachineLost
from tests.support.places import PROJECT
from tests.support.simulated import until

NOTEBOOK = PROJECT / "notebooks" / "colab.ipynb"
NOTEBOOKS = sorted(NOTEBOOK.parent.glob("*.ipynb"))
COLAB_DRIVE = "/content/drive"
PATIENCE = 240.0


class Colab:
    """Runs the first cells of the notebook, up to the installation.

    Attributes:
        wheel: on Drive, what the settings cell names as PACKAGE.
        packages: this machine's site-packages; what the project depends on is installed already, as torch is on Colab.
        pip: pip's options, as its environment variables.
        variables: of the environment, beside Colab's own.
        output: what each cell has printed.
    """

    def __init__(self, drive: Path, disk: Path, wheel: Path) -> None:
        self.drive, self.disk = drive, disk
        self.wheel = Path(shutil.copy(wheel, drive / "MyDrive"))
        self.packages = disk / "site-packages"
        self.pip = {"PIP_NO_DEPS": "1"}
        self.variables: dict[str, str] = {}
        self.output: dict[str, str] = {}

    @property
    def home(self) -> Path:
        """As the settings cell has it."""
        return self.drive / "MyDrive" / "petskin-tune"

    def run_all(self, *, last: str, **settings: str) -> None:
        """Run the cells up to ``last``; ``settings`` replace what the settings cell says."""
        names: dict[str, Any] = {}
        given = {"PACKAGE": repr(str(self.wheel)), "LOCAL": repr(str(self.disk / "local"))}
        self.output.clear()
        with self._colab():
            for cell in json.loads(NOTEBOOK.read_text())["cells"]:
                if cell["cell_type"] == "code":
                    source = "".join(cell["source"]).replace(COLAB_DRIVE, str(self.drive))
                    for name, value in {**given, **settings}.items():
                        source = re.sub(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE)
                    with contextlib.redirect_stdout(io.StringIO()) as printed:
                        exec(compile(source, cell["id"], "exec"), names)
                    self.output[cell["id"]] = printed.getvalue()
                if cell["id"] == last:
                    return

    def environment(self) -> dict[str, str]:
        """Colab's, in which what the notebook has installed comes before the project that is under test here."""
        installed = {
            "PATH": f"{self.packages / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.packages),
            "PIP_TARGET": str(self.packages),
        }
        return workers.environment(
            COLAB_RELEASE_TAG="release",
            TUNE_NETWORK_HOME="1",
            XDG_CACHE_HOME=str(self.disk),
            **installed,
            **self.pip,
            **self.variables,
        )

    @contextlib.contextmanager
    def _colab(self) -> Iterator[None]:
        """What `google.colab` offers to the first cells, and the environment of a Colab machine."""
        drive = types.SimpleNamespace(mount=lambda _: None)
        colab = types.SimpleNamespace(drive=drive, userdata=types.SimpleNamespace(get=self.variables.__getitem__))
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "google.colab", colab)
            for name, value in self.environment().items():
                patch.setenv(name, value)
            yield


NOTHING_FETCHED = ("--no-deps", "--no-build-isolation")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the settings cell says how to make."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", *NOTHING_FETCHED, "-w", folder, PROJECT], check=True)
    (wheel,) = folder.iterdir()
    return wheel


@pytest.fixture
def colab(tmp_path: Path, wheel: Path) -> Colab:
    for name in ("drive/MyDrive", "disk"):
        (tmp_path / name).mkdir(parents=True)
    return Colab(tmp_path / "drive", tmp_path / "disk", wheel)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    (tmp_path / "drive/MyDrive").mkdir(parents=True)
    return tmp_path / "drive"


def new_machine(drive: Path, **variables: str) -> Machine:
    """A machine with an empty disk."""
    disk = drive.with_name("disk")
    disk.mkdir()
    return Machine(drive, disk, variables)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_run_all_the_machine_is_lost_run_all_again_on_a_fresh_disk_ends_the_demo(drive: Path, wheel: Path) -> None:
    on_drive = shutil.copy(wheel, drive / "MyDrive")
    form = {"PACKAGE": repr(str(on_drive)), "FOLLOW_MINUTES": "30"}
    # The trial's process stands still in its fourth epoch, so that the machine is lost in the middle of a trial.
    first = new_machine(drive, TUNE_FAULTS="batch-done=stop@104", TUNE_FAULTS_LOG=str(drive.with_name("fired")))
    with pytest.raises(MachineLost):
        first.run_all(NOTEBOOK, form, lost=lambda picture: "epoch 3/8" in picture and "waiting for the next" in picture)
    assert not drive.with_name("disk").exists()
    assert len(first.drawn) > 1, "the view is not drawn anew"
    assert re.search(r"trial 0 epoch \d/8 mask mAP .* safe to|a disconnect now would cost", first.view)
    assert re.search(r"\d\d:\d\d:\d\d: the worker is at work</pre>", first.view)
    assert first.printed("status") == ""

    second = new_machine(drive)
    second.run_all(NOTEBOOK, {**form, "END_SESSION": "True"})
    code = [cell for cell in second.cells.values() if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "a cell was left out"
    assert second.printed("install") == f"installed from PACKAGE, {on_drive}\n"
    assert "a full trial of 8 epochs" in second.printed("doctor")
    said = (drive.with_name("disk") / "local/worker.log").read_text()
    assert re.search(r"^trial 0 \([1-9] of 56 epochs trained\) (starts|goes on after)", said, re.MULTILINE), said
    assert "study done" in second.view
    assert second.printed("live") == "the worker has ended: the study is done\n"
    ended = r"study demo: (56 of|all 56 epochs and \d+ more) "  # the trial that is recommended is trained to its end
    assert re.search(ended, second.printed("status"))
    assert "The best trial:" in second.printed("diagnose")
    assert [one for one in second.outputs("report") if "<iframe srcdoc" in one.get("data", {}).get("text/html", "")]
    assert "\x1b" not in second.view
    for name, least in {"best.yaml": 50, "best.pt": 100_000, "report.html": 100_000}.items():
        assert (drive / "MyDrive/petskin-tune" / name).stat().st_size > least
    (port,) = [call[1] for call in second.calls if call[0] == "frame"]
    assert port != 8080, "it is Colab's own"
    assert [call[0] for call in second.calls] == ["mount", "frame", "unmount", "unassign"]
    packages_kept = (drive / "MyDrive/petskin-tune/environment.txt").read_text()
    assert f"ultralytics=={version('ultralytics')}\n" in packages_kept


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_run_all_ends_while_the_worker_works_and_the_cells_show_what_there_is(
    drive: Path, wheel: Path, tmp_path: Path
) -> None:
    study = workers.write_study(tmp_path / "studies", target_trials=workers.UNREACHABLE)
    form = {"PACKAGE": repr(str(shutil.copy(wheel, drive / "MyDrive"))), "STUDY": repr(str(study))}
    machine = new_machine(drive)
    machine.run_all(NOTEBOOK, {**form, "FOLLOW_MINUTES": "1"})
    assert machine.printed("live") == "the worker is at work\n"
    assert any("trial 0 " in picture for picture in machine.drawn)
    assert re.search(r"trial \d+ epoch \d/3 mask mAP", machine.view)
    assert "small" in machine.printed("status")
    assert "error:" not in machine.printed("best") + machine.printed("report")
    assert [call[0] for call in machine.calls] == ["mount", "frame"]


def test_the_install_cell_installs_the_studies_their_models_and_both_commands(colab: Colab) -> None:
    colab.run_all(last="install")
    assert colab.output["install"] == f"installed from PACKAGE, {colab.wheel}\n"
    package = colab.packages / "petskin_tune"
    assert (package / "studies" / "demo.yaml").is_file()
    assert (package / "studies" / "petskin.yaml").is_file()
    assert (package / "studies" / "models" / "demo-seg.yaml").is_file()
    for command in ("tune-worker", "petskin-tune"):
        done = subprocess.run([colab.packages / "bin" / command, "--version"], **run_in(colab))
        assert done.stdout == f"{command}, version {petskin_tune.__version__}\n"
    code = "import petskin_tune; print(petskin_tune.__file__)"
    found = subprocess.run([sys.executable, "-c", code], **run_in(colab)).stdout
    assert found == f"{package / '__init__.py'}\n"


def test_what_is_in_no_index_and_no_repository_comes_from_a_wheel_on_drive_and_the_cell_says_so(
    colab: Colab, tmp_path: Path
) -> None:
    colab.pip = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    nowhere = {"PACKAGE": "''", "INDEX": "True", "REPOSITORY": repr(f"file://{tmp_path}/no-repository")}
    colab.run_all(last="install", **nowhere)
    assert colab.output["install"] == f"installed from the wheel {colab.wheel}\n"
    colab.wheel.unlink()
    colab.run_all(last="install", **nowhere)
    said = colab.output["install"]
    assert "not from the package index: " in said
    assert f"not from the repository file://{tmp_path}/no-repository: " in said
    assert "Put a wheel" in said


def test_the_next_day_the_install_cell_brings_the_packages_of_the_first_whatever_was_released_since(
    colab: Colab, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    tiny_wheel(index, "ultralytics", "8.4.190", "torch")
    tiny_wheel(index, "torch", "2.14.0")
    package = tiny_wheel(index, "stand-in", "1.0", "ultralytics<8.5")
    colab.pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    colab.variables = {"PIP_CONFIG_FILE": os.devnull}
    assert installed(colab, package) == {"ultralytics": "8.4.190", "torch": "2.14.0"}

    found = {name: distribution.version for name, distribution in distributions(colab).items()}
    text = study_environment.render("demo", {"versions": {**found, "python": packages.versions()["python"]}})
    colab.home.mkdir()
    keep_in(resolve_home(str(colab.home), None, None, {"TUNE_NETWORK_HOME": "1"}, study="demo"), text)
    tiny_wheel(index, "ultralytics", "8.4.191", "torch")
    tiny_wheel(index, "torch", "2.15.0")
    assert installed(colab, package) == {"ultralytics": "8.4.190", "torch": "2.14.0"}
    listed = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "-r", str(colab.home / "environment.txt")]
    subprocess.run(listed, env=colab.environment(), check=True)

    (colab.home / "environment.txt").unlink()
    assert installed(colab, package) == {"ultralytics": "8.4.191", "torch": "2.15.0"}, "nothing newer was on offer"


def installed(colab: Colab, package: Path) -> dict[str, str]:
    """What the install cell brings to a machine that has nothing."""
    shutil.rmtree(colab.packages, ignore_errors=True)
    colab.run_all(last="install", PACKAGE=repr(str(package)))  # pip may warn of packages that lie elsewhere
    return {name: found.version for name, found in distributions(colab).items() if name != "stand-in"}


def distributions(colab: Colab) -> dict[str, Distribution]:
    return {found.metadata["Name"]: found for found in Distribution.discover(path=[str(colab.packages)])}


def tiny_wheel(index: Path, name: str, number: str, *needs: str) -> Path:
    """A wheel of nothing but its name, version and requirements."""
    index.mkdir(exist_ok=True)
    file = name.replace("-", "_")
    info = f"{file}-{number}.dist-info"
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = {
        f"{file}/__init__.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    wheel = index / f"{file}-{number}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


def run_in(colab: Colab) -> dict[str, Any]:
    return {"cwd": colab.disk, "env": colab.environment(), "check": True, "capture_output": True, "text": True}


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    """The cells, each with its source as one text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs_and_installs_in_one_cell_alone(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    for cell in cells:
        source = "".join(cell["source"])
        compile(re.sub(r"^( *)!.*$", r"\1pass", source, flags=re.MULTILINE), cell["id"], "exec")
        assert not re.search(r"^ *[%!].*(install|apt|wget|curl)", source, re.MULTILINE)
        assert ("pip" in source and "install" in source) is (cell["id"] in ("install", "settings"))


def test_both_notebooks_do_the_same_in_what_is_no_matter_of_the_place() -> None:
    colab, kaggle = ({cell["id"]: cell["source"] for cell in cells_of(path)} for path in NOTEBOOKS)
    differ = [name for name in kaggle if name in colab and kaggle[name] != colab[name]]
    assert differ == ["about", "settings"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_command_that_reads_the_data_set_is_told_where_it_is(path: Path) -> None:
    lines = [line for cell in cells_of(path) for line in cell["source"].splitlines() if line.strip().startswith("!")]
    asked = [line for line in lines if re.search("petskin-tune (doctor|report|train|best .*--yaml) ", line)]
    assert {line.split()[1] for line in asked} == {"doctor", "report", "train", "best"}
    assert [line for line in asked if "$DATA_OPTION" not in line] == []


# ---- a kernel that was started again ---------------------------------------------------------------------------------


class Kernel:
    """The names of a notebook's kernel, on a machine whose commands are stand-ins; what `!` calls is left out."""

    def __init__(self, notebook: Path, disk: Path) -> None:
        self._cells = {cell["id"]: cell["source"] for cell in cells_of(notebook)}
        self.names: dict[str, Any] = {"subprocess": subprocess, "shlex": shlex, "time": time, "Path": Path}
        self.names |= {"LOCAL": str(disk / "local"), "OPTIONS": "--study demo", "DATA_OPTION": "", "HOURS_OPTION": ""}
        self.names |= {"FOLLOW_MINUTES": 30, "END_SESSION": True}
        self.drawn: list[str] = []

    def run(self, cell: str) -> str:
        """Run a cell; what it printed. Its views are drawn into ``drawn``."""
        python = re.sub(r"^( *)!.*$", r"\1pass", self._cells[cell], flags=re.MULTILINE)
        display = types.SimpleNamespace(HTML=str, display=self._display)
        with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=display))
            patch.setitem(sys.modules, "IPython.display", display)
            exec(compile(python, cell, "exec"), self.names)
        return printed.getvalue()

    def _display(self, picture: str, display_id: bool = False) -> Any:
        assert display_id, "a view that cannot be drawn anew"
        self.drawn.append(picture)
        return types.SimpleNamespace(update=self.drawn.append)


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Kernel]]:
    """Starts the kernel of a notebook; what it started ends with the test."""
    started: list[Kernel] = []

    def start(notebook: Path) -> Kernel:
        started.append(Kernel(notebook, tmp_path))
        return started[-1]

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    yield start
    for kernel in started:
        for process in (kernel.names.get("WORKER"), kernel.names.get("DASHBOARD")):
            if process is not None:
                process.kill()
                process.wait()


def stand_in(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)


def wait_until_it_works(disk: Path) -> None:
    """Until the stand-in has spoken: a process that has just been started has no command line yet."""
    until(lambda: "begins" in (disk / "local" / "worker.log").read_text(), "the worker begins")


SUSPENDED_AT_AN_END = """#!/bin/sh
echo "$$ begins"
while [ ! -e "$0.end" ]; do sleep 0.1; done
echo "$$ is suspended"
exit 75
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_worker_of_a_former_kernel_is_recognised_followed_and_not_doubled(
    notebook: Path, kernels: Callable[[Path], Kernel], tmp_path: Path
) -> None:
    stand_in(tmp_path / "tune-worker", SUSPENDED_AT_AN_END)
    former, kernel = kernels(notebook), kernels(notebook)
    former.run("work")
    wait_until_it_works(tmp_path)
    first = former.names["WORKER"].pid
    kernel.run("work")
    assert "WORKER" not in kernel.names
    kernel.names["FOLLOW_MINUTES"] = 0
    assert kernel.run("live") == "the worker is at work\n"

    (tmp_path / "tune-worker.end").touch()
    until(lambda: "has ended" in kernel.drawn[-1], "the view is drawn anew while no cell runs")
    kernel.names["FOLLOW_MINUTES"] = 30
    reason = "the worker has ended: a former kernel started it; its log has the reason"
    assert kernel.run("live") == f"{reason}\n"
    assert re.fullmatch(rf"<pre>{first} begins\n{first} is suspended\n\n[\d:]+: {reason}</pre>", kernel.drawn[-1])
    pids = [first]
    for _ in range(2):
        kernel.run("work")
        pids.append(kernel.names["WORKER"].pid)
        assert kernel.run("live") == "the worker has ended: suspended with work left: run all cells again\n"
        assert f"<pre>{pids[-1]} begins\n{pids[-1]} is suspended\n" in kernel.drawn[-1]
    kept = (tmp_path / "local" / "worker-earlier.log").read_text()
    assert kept == "".join(f"{pid} begins\n{pid} is suspended\n" for pid in pids[:2])


def test_the_last_cell_waits_for_a_worker_of_a_former_kernel(
    kernels: Callable[[Path], Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "tune-worker", SUSPENDED_AT_AN_END)
    former, kernel = kernels(NOTEBOOK), kernels(NOTEBOOK)
    former.run("work")
    wait_until_it_works(tmp_path)
    kernel.run("work")
    assert "WORKER" not in kernel.names

    def sleep(_: float) -> None:
        (tmp_path / "tune-worker.end").touch()
        former.names["WORKER"].wait(PATIENCE)

    ended_with: list[int | None] = []
    runtime = types.SimpleNamespace(unassign=lambda: ended_with.append(former.names["WORKER"].poll()))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(runtime=runtime))
    drive = types.SimpleNamespace(flush_and_unmount=lambda: None)
    kernel.names |= {"time": types.SimpleNamespace(sleep=sleep), "drive": drive}
    kernel.run("end")
    assert ended_with == [75]


# ---- the dashboard in a frame ----------------------------------------------------------------------------------------


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports that cells have shown."""
    shown: list[int] = []
    output = types.SimpleNamespace(serve_kernel_port_as_iframe=lambda port, **_: shown.append(port))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(output=output))
    return shown


def test_the_dashboard_takes_a_free_port_and_is_started_once(
    kernels: Callable[[Path], Kernel], frames: list[int], tmp_path: Path
) -> None:
    listen = "with socket.create_server(('127.0.0.1', int(sys.argv[-1]))): signal.pause()"
    stand_in(tmp_path / "petskin-tune", f"#!{sys.executable}\nimport signal, socket, sys\n{listen}\n")
    (tmp_path / "local").mkdir()
    kernel = kernels(NOTEBOOK)
    kernel.run("dashboard")
    first = kernel.names["DASHBOARD"]
    kernel.run("dashboard")
    assert kernel.names["DASHBOARD"] is first
    assert frames == [int(first.args[-1])] * 2
    assert 8080 not in frames, "it is Colab's own"

    first.kill()
    first.wait()
    kernel.run("dashboard")
    assert frames[2:] == [int(kernel.names["DASHBOARD"].args[-1])]
    assert kernel.names["DASHBOARD"].poll() is None


def test_a_dashboard_that_has_ended_says_why_instead_of_an_empty_frame(
    kernels: Callable[[Path], Kernel], frames: list[int], tmp_path: Path
) -> None:
    stand_in(tmp_path / "petskin-tune", "#!/bin/sh\necho There is no study demo here. >&2\nexit 2\n")
    (tmp_path / "local").mkdir()
    assert kernels(NOTEBOOK).run("dashboard") == "There is no study demo here.\n\n"
    assert frames == []


# ---- Kaggle ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "minutes"), [("Interactive", 1), ("Batch", 690.0)])
def test_a_saved_version_on_kaggle_follows_its_worker_to_the_end(
    kind: str, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine goes with its last cell, and the cells after the live view show what there is when they run."""
    cells = json.loads((NOTEBOOK.parent / "kaggle.ipynb").read_text(encoding="utf-8"))["cells"]
    settings = next(cell for cell in cells if cell["id"] == "settings")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kind)
    names: dict[str, Any] = {}
    exec(compile("".join(settings["source"]), "settings", "exec"), names)
    assert names["FOLLOW_MINUTES"] == minutes
