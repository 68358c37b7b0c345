"""`best --repeat`, with trainings that only pretend: what it trains, what it says, and who says it from then on."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from scipy.stats import ttest_ind

from petskin_tune.cli import petskin_tune, tune_worker
from petskin_tune.datasets import demo
from petskin_tune.datasets.fingerprint import Fingerprint, SplitSummary
from petskin_tune.protocol import TrialJob
from petskin_tune.study import attributes
from petskin_tune.study.best.repeats import gain_of
from petskin_tune.study.study import Study, find_study
from petskin_tune.trial.inputs import Prepared
from tests.support import trainings
from tests.support.made_up import MadeUp, a_spec
from tests.support.patience import patient
from tests.support.trainings import Trainings

__all__ = ["patient"]  # for every test here

EPOCHS = 4
GOOD, USUAL = 2e-3, 1e-2  # learning rates of the best trial and of the defaults
NOISE = {1: 0.010, 2: -0.004, 3: 0.002}  # by seed
SUMMARY = SplitSummary(9, 900, {"0": 9}, "names", "sizes", "labels")
SPLITS = {"train": SUMMARY, "val": SUMMARY}


class Kept:
    """A home with a finished study: trial 0 tried the defaults, trial 1 is the best, trial 2 is neither.

    Attributes:
        jobs: of all trainings that were started since.
        interrupt_at: the number of the job at which the command is asked to stop; None: it is not.
        said: what the first command has said, with one space between two words.
    """

    said = ""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.made = MadeUp(home, a_spec(epochs=EPOCHS, target_trials=3))
        self.made.add(best=0.2, epochs=EPOCHS, params=self.params(USUAL), origin="start point")
        self.made.add(best=0.4, epochs=EPOCHS, params=self.params(GOOD), origin="search", fixed={"nbs": 32})
        self.made.add(best=0.3, epochs=EPOCHS, origin="search")
        self.jobs: list[TrialJob] = []
        self.interrupt_at: int | None = None

    def params(self, rate: float) -> dict[str, Any]:
        return {**MadeUp.params(self.made), "lr0": rate}

    @property
    def study(self) -> Study:
        self.made.study.refresh()
        return self.made.study

    def repetitions(self, trial: int = 1) -> Study:
        found = find_study(self.made.storage, f"petskin-repeat-{trial}")
        assert found is not None
        return found

    def saw(self, job: TrialJob) -> None:
        self.jobs.append(job)
        if len(self.jobs) - 1 == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def type(self, *words: str, program: Any = petskin_tune, code: int = 0) -> str:
        result: Result = CliRunner().invoke(program, [*words, "--home", str(self.home)])
        assert result.exit_code == code, result.output
        return " ".join(result.output.replace("\\\n", "").split())

    def repeat(self, pairs: int = 2, *words: str, code: int = 0) -> str:
        return self.type("best", "--study", "petskin", "--repeat", str(pairs), *words, code=code)


def begin(home: Path, patch: pytest.MonkeyPatch) -> Kept:
    """A home, in which processes only pretend to train from now on."""
    patch.chdir(home)
    for name in ("TUNE_STUDY", "TUNE_HOME", "TUNE_STORAGE", "TUNE_NOTIFY"):
        patch.delenv(name, raising=False)
    found = Kept(home)
    (home / "small-seg.yaml").write_text("nc: 7\n")
    here = Prepared(home / "data.yaml", str(home / "small-seg.yaml"), Fingerprint("digest", ("a",), SPLITS), 1, 64)

    class Started(Trainings):
        def __init__(self, *_: Any) -> None:
            super().__init__()
            self.once = found.saw

    plain = trainings.fitness

    def wavering(rate: float, epoch: int) -> float:
        return plain(rate, epoch) + NOISE[found.jobs[-1].arguments["seed"]]

    patch.setattr("petskin_tune.trial.process.runner.Runner", Started)
    for name in ("workplace.prepare", "inputs.prepare_data"):
        patch.setattr(f"petskin_tune.trial.{name}", lambda *_: here)
    patch.setattr("petskin_tune.commands.worker.end_now", sys.exit)
    patch.setattr(trainings, "fitness", wavering)
    return found


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    found = begin(tmp_path, monkeypatch)
    yield found
    found.made.storage.engine.dispose()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Repeated under three seeds; nothing in it may be changed."""
    with pytest.MonkeyPatch.context() as patch:
        found = begin(tmp_path_factory.mktemp("done"), patch)
        found.said = found.repeat(3)
        yield found
        found.made.storage.engine.dispose()


# ---- what it trains and says -----------------------------------------------------------------------------------------


def test_both_are_trained_under_further_seeds_and_everybody_says_what_they_show(done: Kept) -> None:
    trials = done.repetitions().trials()
    assert [job.arguments["seed"] for job in done.jobs] == [1, 1, 2, 2, 3, 3]
    assert [job.arguments["lr0"] for job in done.jobs] == [GOOD, USUAL] * 3
    assert [job.arguments.get("nbs") for job in done.jobs] == [32, None] * 3
    ours, theirs = [t.value for t in trials[::2]], [t.value for t in trials[1::2]]
    gain = gain_of(done.study.attributes)
    assert gain is not None
    assert (gain.trial, gain.best, gain.defaults, gain.left_out) == (1, ours, theirs, 0)
    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    bounds = f"(95% interval {interval.low:.4f} to {interval.high:.4f}), more than noise"
    assert bounds in done.said
    assert done.said.endswith(gain.sentence())
    assert "trial 1 of petskin and Ultralytics' defaults, repeated under further seeds" in done.said
    assert "next, type" not in done.said
    for command in ("best", "status", "diagnose"):
        assert bounds in done.type(command, "--study", "petskin"), command
    done.type("report", "--study", "petskin", "-o", "report.html")
    assert bounds in " ".join(Path("report.html").read_text().split())
    assert f'"sentence": "{gain.sentence()}"' in done.type("status", "--study", "petskin", "--json")


def test_no_trial_of_them_counts_in_the_study(done: Kept) -> None:
    assert [trial.value for trial in done.study.trials()] == [0.2, 0.4, 0.3]
    assert "best: mask mAP 0.400 in trial 1" in done.type("status", "--study", "petskin")
    assert "3 of 3 trials done" in done.type("status"), "it is still the only study, and need not be named"


def test_a_study_of_repetitions_is_shown_as_what_it_is(done: Kept) -> None:
    about = "trial 1 of petskin and Ultralytics' defaults, repeated under further seeds"
    assert f"petskin-repeat-1 is {about}" in done.type("studies")
    table = done.type("trials", "--study", "petskin-repeat-1")
    assert table.startswith(f"{about} trial state mask mAP epochs time repeats seed")
    assert "* the best trial" not in table
    page = done.type("trials", "--study", "petskin-repeat-1", "--trial", "3")
    assert "it repeats the defaults with the seed 2" in page
    status = done.type("status", "--study", "petskin-repeat-1")
    assert about in status
    assert "best: mask mAP" not in status
    assert "more than noise" in status
    refused = done.type("best", "--study", "petskin-repeat-1", "--repeat", "2", code=2)
    assert refused.endswith(f"type petskin-tune best --study petskin --home {done.home} --repeat 2")
    done.type("best", "--study", "petskin-repeat-1", "--yaml", "best.yaml")
    assert "seed: 1\n" in Path("best.yaml").read_text()


def test_no_view_crowns_the_luckiest_of_repetitions(done: Kept) -> None:
    said = done.type("diagnose", "--study", "petskin-repeat-1")
    assert "6 trials: 6 complete" in said
    assert "best trial" not in said
    done.type("report", "--study", "petskin-repeat-1", "-o", "repeats.html")
    page = re.sub(r"<(script|style)[ >].*?</\1>", "", Path("repeats.html").read_text(), flags=re.DOTALL)
    assert set(re.findall(r'<section id="([^"]+)">', page)) >= {"learning-curves", "trials", "diagnosis"}
    titles = ("best-settings", "best-so-far", "each-parameter", "classes")
    assert not [title for title in titles if f'id="{title}"' in page or f'href="#{title}"' in page]
    assert "more than noise" in page
    assert not re.findall(r"(?i)best so far|best first|best: trial|mask mAP of the best|best trial", page)


def test_the_settings_name_the_data_set_where_it_is_here(done: Kept, tmp_path: Path) -> None:
    moved = demo.make(tmp_path / "moved", train=8, val=4)
    done.type("best", "--study", "petskin", "--yaml", "best.yaml", "--data", str(moved.parent))
    assert yaml.safe_load(Path("best.yaml").read_text())["data"] == str(moved)


def test_typed_again_nothing_is_trained(done: Kept) -> None:
    assert done.repeat(3) == f"{done.said.partition(', 0 of 6')[0]}, 6 of 6 trainings done {sentence_of(done)}"
    assert len(done.jobs) == 6


def sentence_of(kept: Kept) -> str:
    gain = gain_of(kept.study.attributes)
    assert gain is not None
    return gain.sentence()


@pytest.mark.parametrize("at", [0, 2])
def test_interrupted_it_says_the_command_that_was_typed_and_goes_on_where_it_stood(kept: Kept, at: int) -> None:
    kept.interrupt_at = at
    said = kept.repeat(2, "--data", "mine", code=75)
    way_on = f"petskin-tune best --study petskin --home {kept.home} --repeat 2 --data mine"
    assert f"suspended; to go on, type: {way_on}" in said
    assert gain_of(kept.study.attributes) is None
    kept.interrupt_at = None
    kept.repeat(2)
    trials = kept.repetitions().trials()
    assert [t.state.name for t in trials] == ["COMPLETE"] * 4
    assert all(list(t.intermediate_values) == list(range(1, EPOCHS + 1)) for t in trials)
    assert "each trained again under 2 further seeds" in sentence_of(kept)


def test_a_worker_may_help_and_says_what_follows_and_more_seeds_are_added(kept: Kept) -> None:
    kept.interrupt_at = 0
    kept.repeat(2, code=75)
    kept.interrupt_at = None
    said = kept.type("--study", "petskin-repeat-1", program=tune_worker)
    assert "repeats=defaults seed=2" in said
    way_on = f"petskin-tune best --study petskin --home {kept.home} --repeat 2"
    assert said.endswith(f"study done; next, type: {way_on}")
    assert kept.type("status", "--study", "petskin-repeat-1").endswith(f"type: {way_on}")
    trained = len(kept.jobs)
    assert "each trained again under 3 further seeds" in kept.repeat(3)
    assert [job.arguments["seed"] for job in kept.jobs[trained:]] == [3, 3]


# ---- what becomes of it ----------------------------------------------------------------------------------------------


def test_when_another_trial_becomes_the_best_the_gain_stays_the_other_ones(kept: Kept) -> None:
    kept.repeat(2)
    number = kept.made.add(best=0.45, epochs=EPOCHS, origin="search")
    measured = f"measured when trial 1 was the best, by now it is trial {number}"
    for command in ("best", "status", "diagnose"):
        assert measured in kept.type(command, "--study", "petskin"), command
    kept.repeat(2)
    assert f"trial {number} beside" in kept.type("status", "--study", "petskin")
    assert kept.repetitions(number).spec.target_trials == 4
    kept.type("delete", "petskin-repeat-1", "--yes")
    assert f"trial {number} beside" in kept.type("status"), "what they showed stays"
    said = kept.type("delete", "petskin", "--yes")
    assert "deleted: study petskin: 4 trials" in said
    assert f"deleted: study petskin-repeat-{number} (trial {number} of petskin and Ultralytics' defaults" in said
    assert "there is no study" in kept.type("studies")


def test_where_no_trial_tried_the_defaults_ultralytics_own_are_repeated(kept: Kept) -> None:
    bare = MadeUp(kept.home, a_spec("bare", epochs=EPOCHS, target_trials=1, start=()))
    bare.add(best=0.4, epochs=EPOCHS, params=kept.params(GOOD), origin="search")
    kept.type("best", "--study", "bare", "--repeat", "2")
    rates = {job.arguments["lr0"] for job in kept.jobs[1::2]}
    assert rates == {0.002}, "what `auto` makes of one class"
    assert kept.jobs[1].arguments["optimizer"] == "AdamW"


def test_what_another_study_offered_is_not_called_the_defaults(kept: Kept) -> None:
    """As ``init --from`` makes a study: its first start points are the best trials of another one."""
    offered = MadeUp(kept.home, a_spec("offered", epochs=EPOCHS, target_trials=2, start=()))
    offered.add(best=0.2, epochs=EPOCHS, params=kept.params(USUAL), origin="start point")
    offered.add(best=0.4, epochs=EPOCHS, params=kept.params(GOOD), origin="search")
    said = kept.type("best", "--study", "offered", "--repeat", "2")
    assert "trial 1 of offered and the start point, repeated under further seeds" in said
    assert "Ultralytics' defaults" not in said
    assert "repeats=start point seed=2" in said
    table = kept.type("trials", "--study", "offered-repeat-1")
    page = kept.type("trials", "--study", "offered-repeat-1", "--trial", "3")
    assert "start point 2" in table
    assert "it repeats the start point with the seed 2" in page
    assert not [text for text in (said, table, page) if "defaults" in text]
    offered.add(best=0.9, epochs=EPOCHS, params=dict(offered.study.trials()[0].params), origin="search")
    said = kept.type("best", "--study", "offered", "--repeat", "2", code=2)
    assert said.endswith("trial 2, has the settings of the start point: there is nothing to compare.")


def test_the_defaults_are_not_taken_from_another_data_set(kept: Kept) -> None:
    bare = MadeUp(kept.home, a_spec("bare", epochs=EPOCHS, target_trials=1, start=()))
    bare.add(best=0.4, epochs=EPOCHS, params=kept.params(GOOD), origin="search")
    bare.study.set_attribute(
        attributes.FINGERPRINT, Fingerprint("another", ("b",), {"train": SUMMARY, "val": SUMMARY}).to_json()
    )
    said = kept.type("best", "--study", "bare", "--repeat", "2", code=2)
    assert "data set" in said
    assert find_study(kept.made.storage, "bare-repeat-0") is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--repeat", "1"], "--repeat takes from 2 to 100 further seeds, not 1: one alone gives no interval"),
        (["--repeat", "101"], "--repeat takes from 2 to 100 further seeds, not 101"),
        (["--repeat", "2", "--yaml", "best.yaml"], "--repeat trains and writes no file"),
        (["--repeat", "2", "--device", "toaster"], "--device"),
        (["--device", "cpu"], "Options such as --device and --max-hours are for --repeat, which trains."),
        (["--data", "mine"], "--data is for --yaml, which names the data set, and for --repeat."),
        (["--yaml", "best.yaml", "--data", "nowhere.yaml"], "nowhere.yaml"),
    ],
    ids=["one seed", "too many", "a file", "no device", "a device for nothing", "data for nothing", "no data"],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(done: Kept, words: list[str], said: str) -> None:
    assert said in done.type("best", "--study", "petskin", *words, code=2)
    assert len(done.jobs) == 6


def test_where_there_is_nothing_to_compare_nothing_is_trained(kept: Kept) -> None:
    kept.made.add(best=0.9, epochs=EPOCHS, params=dict(kept.study.trials()[0].params), origin="search")
    said = "The best trial of petskin, trial 3, has the settings of the defaults: there is nothing to compare."
    assert kept.repeat(code=2) == f"error: {said}"
    MadeUp(kept.home, a_spec("fresh"))
    assert "fresh has no finished trial yet" in kept.type("best", "--study", "fresh", "--repeat", "2", code=2)
    kept.study.set_attribute(attributes.GAIN, {"trial": 1, "best": "all"})
    for command in ("best", "status", "diagnose"):
        assert "`petskin-tune:gain` in the database is not as" in kept.type(command, "--study", "petskin", code=2)
