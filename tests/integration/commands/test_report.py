"""``petskin-tune report``: pictures of the best trials from the store, made where they can be, left out where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from petskin_tune.checkpoints import pictures
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.cli import petskin_tune
from petskin_tune.datasets.fingerprint import Fingerprint
from petskin_tune.errors import UsageError
from petskin_tune.trial.inputs import Prepared
from tests.support.made_up import GONE, MadeUp, a_spec
from tests.support.pictures import Draughtsman, kept, weights


class Shown:
    """A home with a study of three trials, the best two of which have weights; the better one has pictures."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.made = MadeUp(home, a_spec())
        self.uid = self.made.study.uid
        self.store = FolderStore(home / "checkpoints", network=False)
        for number, best in enumerate((0.3, 0.2)):
            key = weights(self.store, self.uid, number, home / "weights.pt")
            self.made.add(best=best, weights=key)
        self.made.add(best=0.1)
        kept(self.store, self.uid, 0, home / "drawn")
        self.draughtsman = Draughtsman()
        monkeypatch.setattr("petskin_tune.trial.process.runner.Runner", lambda _: self.draughtsman)
        self.data: Prepared | Exception = Prepared(home / "data.yaml", "", Fingerprint("d", ("a",), {}), 1, 1)
        monkeypatch.setattr("petskin_tune.trial.inputs.data_of", self._data_of)
        self.asked: list[str | None] = []

    def _data_of(self, study: Any, home: Any, data: str | None) -> Prepared:
        self.asked.append(data)
        if isinstance(self.data, Exception):
            raise self.data
        return self.data

    def report(self, *more: str) -> tuple[str, str]:
        """What the command says, and the page."""
        file = self.home / "r.html"
        ended = CliRunner().invoke(petskin_tune, ["report", "--home", str(self.home), "-o", str(file), *more])
        assert ended.exit_code == 0, ended.output
        return ended.stdout, file.read_text()


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    for name in ("TUNE_STUDY", "TUNE_HOME", "TUNE_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    return Shown(tmp_path, monkeypatch)


def test_pictures_that_are_there_are_shown_and_missing_ones_are_made_and_kept(shown: Shown) -> None:
    said, page = shown.report("--data", "mine.yaml")
    first, second, third = said.splitlines()
    assert "photographs of the data set" in third
    assert first.endswith("r.html shows the study petskin; open it in a browser")
    assert second == "making the pictures of trial 1 (Ctrl-C leaves the report without them)"
    assert [job.trial for job in shown.draughtsman.jobs] == [1]
    assert shown.asked == ["mine.yaml"]
    assert page.count("<details") == 2
    assert pictures.find(shown.store, shown.uid, 1)
    assert len(shown.report()[0].splitlines()) == 2


def test_without_pictures_nothing_is_looked_for(shown: Shown) -> None:
    said, page = shown.report("--no-pictures")
    assert len(said.splitlines()) == 1
    assert "<details" not in page
    assert shown.asked == shown.draughtsman.jobs == []


@pytest.mark.parametrize("is_alive", [True, False])
def test_nothing_is_made_while_a_worker_trains_on_this_machine(is_alive: bool, shown: Shown) -> None:
    shown.made.add("RUNNING", 0.1, 3, lease="running", identity=None if is_alive else GONE)
    said, page = shown.report()
    assert ("a worker trains on this machine" in said) is is_alive
    assert len(shown.draughtsman.jobs) == (0 if is_alive else 1)
    assert "Trial 0, mask mAP" in page


def test_why_there_are_none_is_said_and_the_report_is_there(shown: Shown) -> None:
    shown.data = UsageError("the data set is not here")
    said, page = shown.report()
    assert "no pictures of trial 1, and none are made: the data set is not here" in said
    assert page.count("<details") == 1
    shown.store.delete(pictures.find(shown.store, shown.uid, 0) or "")
    shown.store.delete(shown.made.study.trials()[0].user_attrs["petskin-tune:weights"])
    shown.data = Prepared(shown.home / "data.yaml", "", Fingerprint("d", ("a",), {}), 1, 1)
    said, page = shown.report()
    assert "no pictures of trial 0: " in said
    assert "Trial 1, mask mAP" in page


def test_ctrl_c_leaves_the_report_without_the_pictures_that_were_being_made(shown: Shown) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    shown.draughtsman.start = interrupted  # type: ignore[method-assign]
    said, page = shown.report()
    assert said.splitlines()[2] == "stopped: the report is without the pictures of trial 1"
    assert "Trial 0, mask mAP" in page
    assert page.endswith("</html>\n")
