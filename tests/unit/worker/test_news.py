"""What of a worker's day becomes a message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import EXIT_DONE
from petskin_tune.protocol import Failed, Finished
from petskin_tune.study.spec import SamplerSpec
from petskin_tune.trial.ends import Outcome
from petskin_tune.trial.workplace import Workplace
from petskin_tune.worker.news import News, is_news
from petskin_tune.worker.notify import Notifier
from petskin_tune.worker.suspension import Suspension
from petskin_tune.worker.worker import Worker
from tests.support.studies import a_spec
from tests.support.workplace import STARTED, Script, a_workplace, epoch_done

FAILS = (STARTED, Failed("refused", "the batch is odd: postgresql://me:hunter2@host/x"))


def trains(fitness: float) -> tuple[Any, ...]:
    return (STARTED, epoch_done(1, fitness), Finished(1, 1))


class Told(Notifier):
    """Keeps what it is told."""

    is_on = True  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(None)
        self.texts: list[str] = []

    def tell(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path / 'tune.db'}")
    yield opened
    opened.engine.dispose()


def a_place(storage: PetskinStorage, folder: Path, says: Sequence[Any], target: int) -> Workplace:
    spec = a_spec(target_trials=target, epochs=1, sampler=SamplerSpec(name="random"))
    place = a_workplace(storage, folder, Script(*says), spec)
    place.study.optuna.set_user_attr("petskin-tune:spec", spec.model_dump(mode="json"))
    return place


def test_a_study_tells_of_its_best_trials_its_failures_and_its_end(storage: PetskinStorage, tmp_path: Path) -> None:
    place = a_place(storage, tmp_path, [trains(0.1), trains(0.101), FAILS, trains(0.4)], target=4)
    told = Told()
    suspension = Suspension(place, None)
    assert Worker(place, suspension, News(place, told)).work() == EXIT_DONE
    suspension.close()
    assert [text.partition(":")[0] for text in told.texts] == ["petskin"] * 4
    first, failed, best, done = told.texts
    assert first == "petskin: new best mask mAP 0.100 (trial 0)"
    assert failed.startswith("petskin: trial 2 failed: refused: the batch is odd")
    assert best == "petskin: new best mask mAP 0.400 (trial 3), before it was 0.101 (trial 1)"
    assert done == "petskin: study done: best mask mAP 0.400 (trial 3)"


def test_of_several_workers_one_tells_that_the_study_is_done_and_again_when_it_was_made_longer(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    place = a_place(storage, tmp_path, [trains(0.1)], target=1)
    told = Told()
    news = News(place, told)
    news.study_done(None)
    news._worker = "another"
    news.study_done(None)
    assert told.texts == ["petskin: study done"]
    place.study.change(target_trials=2)
    news.study_done(None)
    assert told.texts == ["petskin: study done"] * 2


def test_a_worker_that_stops_says_why_how_far_the_study_is_and_whether_anybody_is_at_work(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    place = a_place(storage, tmp_path, [], target=3)
    told = Told()
    news = News(place, told)
    news.stopped("--max-hours 11.5 reached")
    held = place.claims.next_trial(3)
    assert held is not None
    news.stopped("The database refuses this user.")
    name = place.options.worker
    assert told.texts == [
        f"petskin: {name} stopped: --max-hours 11.5 reached · 0 of 3 trials done · nobody is at work",
        f"petskin: {name} stopped: The database refuses this user · 0 of 3 trials done",
    ]


def test_a_worker_that_stops_because_its_database_is_gone_tells_that_alone(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    place = a_place(storage, tmp_path, [], target=3)
    told = Told()
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE trials")
    News(place, told).stopped("Somebody deleted tables")
    assert told.texts == [f"petskin: {place.options.worker} stopped: Somebody deleted tables"]


def test_a_best_within_noise_is_no_news_nor_is_a_trial_that_was_suspended(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    before = create_trial(state=TrialState.COMPLETE, value=0.3)
    assert is_news(0.1, None)
    assert is_news(0.31, before)
    assert not is_news(0.303, before)
    told = Told()
    news = News(a_place(storage, tmp_path, [], target=1), told)
    for end in ("suspended", "lost", "pruned", "frozen", "declined"):
        news.trial_ended(1, Outcome(end, 0.9), before)  # type: ignore[arg-type]
    assert told.texts == []
