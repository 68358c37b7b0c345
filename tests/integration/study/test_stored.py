"""What a database says of a study, its trials and its leases is believed only as far as we can have written it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial
from sqlalchemy import text

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.diagnosis import explain
from petskin_tune.errors import UsageError
from petskin_tune.leases.lease import read_leases
from petskin_tune.study import attributes, stored
from petskin_tune.study.creation import create_study, name_metric
from petskin_tune.study.spec import SPEC_VERSION
from petskin_tune.study.stored import read_spec, recorded, study_attributes
from petskin_tune.study.study import find_study, settings_of
from petskin_tune.views import export, report
from petskin_tune.views.status import collect as status
from petskin_tune.views.status import text as status_text
from tests.support import curves
from tests.support.fuzzing import cases
from tests.support.leased_studies import LeasedStudy, new_study
from tests.support.studies import NOW, a_spec, a_study, add, trained

SCREEN = 1920  # characters
OF_A_TRIAL = sorted(stored._OF_A_TRIAL)
JUNK: list[Any] = [None, "oom", 3, -1, 1.5, True, [], [1], ["a"], {}, {"a": 1}, {"a": [1, "b"]}, {"a": None}, "../../x"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


OPTUNAS = ("POINT", "SECONDS_COLUMN", "METRIC_NAMES", "METRIC")


def bare(name: str) -> str:
    return name.removeprefix(attributes.PREFIX)


def looked_at(study: optuna.Study) -> str:
    """What the views say of the study; none of them stops."""
    shown = status_text.render(status.collect(study, [], NOW, home=Path("/nowhere")))
    return shown + explain.of_study(study) + export.render(study)


# ---- trials of others ------------------------------------------------------------------------------------------------


def test_every_name_of_ours_on_a_trial_is_told_from_a_persons() -> None:
    names = [value for name, value in vars(attributes).items() if name.isupper() and name not in OPTUNAS]
    assert names
    assert all(name.startswith(attributes.PREFIX) for name in names)


@pytest.mark.parametrize("prefix", ["", attributes.PREFIX], ids=["bare", "prefixed"])
def test_what_a_person_notes_on_a_trial_of_their_own_stops_no_view(prefix: str) -> None:
    study = a_study(a_spec())
    trained(study, curves.healthy(0), "FAIL")
    for junk in JUNK:
        notes = {prefix + bare(name): junk for name in OF_A_TRIAL}
        for state in ("COMPLETE", "FAIL", "RUNNING", "WAITING", "PRUNED"):
            add(study, state, 0.2 if state == "COMPLETE" else None, ours=False, **notes)
    assert "oom" not in looked_at(study)
    report.render(study, NOW)
    assert export.pick(study).number == 1, "a person's trial is ranked like any other"
    assert export.training_arguments(study, export.pick(study))["lr0"] == 0.001


@pytest.mark.parametrize("name", OF_A_TRIAL)
def test_what_is_not_of_the_kind_that_we_write_counts_as_not_there(name: str) -> None:
    study = a_study(a_spec())
    kept = [recorded(add(study, "COMPLETE", 0.2, **{name: junk})).get(name) for junk in JUNK]
    assert all(value in JUNK for value in kept), "it is read as something else than what is stored"
    assert kept.count(None) > len(JUNK) / 2
    looked_at(study)


def test_a_name_without_prefix_is_ours_on_trials_from_before_alone() -> None:
    study = a_study(a_spec())
    noted = {"failure": {"kind": "crashed", "message": "it fell"}, "origin": "search"}
    before = add(study, "FAIL", **noted)
    after = add(study, "FAIL", **noted, **{attributes.ORIGIN: "search"})
    assert recorded(before)[attributes.FAILURE]["kind"] == "crashed"
    assert attributes.FAILURE not in recorded(after)
    assert "1 crashed, 1 unknown" in status_text.render(status.collect(study, [], NOW))


def test_settings_that_a_study_file_could_not_say_are_refused_in_one_sentence() -> None:
    study = a_study(a_spec())
    fetched = add(study, "RUNNING", **{attributes.FIXED: {"pretrained": "http://127.0.0.1/evil.pt"}})
    with pytest.raises(UsageError, match=r"^Trial 0 cannot be trained .*`pretrained` cannot be searched"):
        settings_of(fetched, a_spec())
    alone = add(study, "RUNNING", **{attributes.FIXED: {"mosaic": 0.5}})
    assert settings_of(alone, a_spec()) == {"mosaic": 0.5, "lr0": 0.001, "optimizer": "AdamW"}


# ---- a study from before the names had a prefix ----------------------------------------------------------------------

BEFORE = json.loads((Path(__file__).parent / "trials_of_before.json").read_text(encoding="utf-8"))


def of_before(state: str) -> optuna.trial.FrozenTrial:
    """A trial as it was stored by the release before, of a study with three epochs."""
    row = BEFORE[state]
    return create_trial(
        state=TrialState[state],
        value=row["value"],
        params=row["params"],
        distributions={name: optuna.distributions.FloatDistribution(1e-4, 1e-2) for name in row["params"]},
        intermediate_values={int(step): value for step, value in row["curve"].items()},
        user_attrs=row["user_attrs"],
        system_attrs=row["system_attrs"],
    )


@pytest.mark.parametrize("state", list(BEFORE))
def test_all_that_a_trial_of_before_has_is_read(state: str) -> None:
    trial = of_before(state)
    assert {bare(name): value for name, value in recorded(trial).items()} == trial.user_attrs


def test_a_study_of_before_is_shown_as_it_was() -> None:
    study = a_study(a_spec(epochs=3, pruner={"name": "none"}))
    for state in BEFORE:
        study.add_trial(of_before(state))
    shown = status_text.render(status.collect(study, [], NOW))
    assert "(person): lr0=0.003 mosaic=0.3" in shown
    assert export.training_arguments(study, export.pick(study))["mosaic"] == 0.5, "the trial's own argument is lost"


# ---- the study -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lease": -90.0}, "`lease` '-90s' is no duration"),
        ({"lease": 1e300}, "is too long"),
        ({"lease": float("nan")}, "finite"),
        ({"epochs": 10**18}, "`epochs` must be from 1 to"),
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"epochs": 10**400}, "`epochs` must be a number, not 1000"),
        ({"train": {"degrees": 10**400}}, "`degrees` must be a number, not one so large"),
        ({"target_trials": -1}, "`target_trials` must be at least 1"),
        ({"store_limit": -5}, "`store_limit`"),
        ({"model": "http://127.0.0.1/evil.txt"}, "`model` must be weights"),
        ({"train": {"pretrained": "http://127.0.0.1/evil.pt"}}, "`pretrained` cannot be set"),
        ({"train": {"imgsz": 10**9}}, "`imgsz` must lie between"),
        ({"search": {"lr0": {"low": 1.0, "high": 0.0}}}, "is reversed"),
        ({"sampler": {"name": "nsga"}}, "`sampler` `name`"),
        ({"of_tomorrow": 1}, "`of_tomorrow`"),
        ({"version": "1e9"}, "`version`"),
        (
            {"version": SPEC_VERSION + 1, "of_tomorrow": 1},
            'newer petskin-tune; upgrade with: pip install -U "petskin-tune @ git+',
        ),
        ({"study": ["a"]}, "`study`"),
    ],
    ids=lambda part: str(part)[:60],
)
def test_a_stored_spec_that_breaks_a_rule_of_the_study_file_is_refused_in_one_sentence(
    changes: Mapping[str, Any], said: str
) -> None:
    kept = {**a_spec().model_dump(mode="json"), **changes}
    with pytest.raises(UsageError) as refused:
        read_spec({attributes.SPEC: kept})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_spec_that_keeps_the_rules_is_read_as_it_was_written() -> None:
    spec = read_spec({attributes.SPEC: a_spec(stop_at=0.5, subset={"train": 5}).model_dump(mode="json")})
    assert read_spec({attributes.SPEC: json.loads(spec.model_dump_json())}) == spec


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One database for all: creating Optuna's tables takes longer than the tests."""
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('stored') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def storage(opened: PetskinStorage) -> PetskinStorage:
    for study in opened.get_all_studies():
        opened.delete_study(study._study_id)
    return opened


NO_UIDS = ["../../../out", "/tmp/out", "", "A" * 12, "0" * 11, "0" * 12 + "\n", 12, None, ["0" * 12]]


@pytest.mark.parametrize("uid", NO_UIDS)
def test_a_uid_that_is_no_uid_is_refused_before_it_is_a_path(storage: PetskinStorage, uid: Any) -> None:
    create_study(storage, a_spec(), points=(), attributes_of_study={}).optuna.set_user_attr(attributes.UID, uid)
    with pytest.raises(UsageError, match=r"attribute `petskin-tune:uid` in the database is not as"):
        find_study(storage, "petskin")


@pytest.mark.parametrize("name", sorted(set(stored._OF_A_STUDY) - {attributes.SPEC}))
def test_an_attribute_of_the_study_that_is_none_of_ours_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(UsageError, match=f"`{name}` in the database is not as petskin-tune writes it") as refused:
        study_attributes({name: ["budget"] if name == attributes.FILE else {"splits": 3, "versions": 1}})
    assert "\n" not in str(refused.value)


def test_what_create_study_writes_is_read_back(storage: PetskinStorage) -> None:
    made = create_study(storage, a_spec(), points=({"lr0": 0.01, "mosaic": 0.5},), attributes_of_study={})
    assert find_study(storage, "petskin") is not None
    (waiting,) = made.trials()
    assert dict(recorded(waiting)) == {attributes.ORIGIN: "start point", attributes.FIXED: {"mosaic": 0.5}}


def test_a_study_names_its_metric_and_one_from_before_is_named_when_it_is_opened(storage: PetskinStorage) -> None:
    study = create_study(storage, a_spec(), points=(), attributes_of_study={})
    assert study.optuna.metric_names == ["mask mAP50-95"]
    storage.set_study_system_attr(study.id, attributes.METRIC_NAMES, None)
    name_metric(study)
    assert study.optuna.metric_names == ["mask mAP50-95"]


def test_a_changed_target_keeps_the_rules_before_it_is_stored(storage: PetskinStorage) -> None:
    study = create_study(storage, a_spec(), points=(), attributes_of_study={})
    with pytest.raises(UsageError, match="`target_trials` must be"):
        study.change(target_trials=10**12)
    study.refresh()
    assert study.spec.target_trials == 6


# ---- leases ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def leased(storage: PetskinStorage) -> LeasedStudy:
    study = new_study(storage)
    assert study.worker("a").next_trial(5)
    return study


def change(study: LeasedStudy, **values: Any) -> None:
    names = ", ".join(f"{name} = :{name}" for name in values)
    with study.storage.engine.begin() as connection:
        connection.execute(text(f"UPDATE trial_leases SET {names}"), values)


NO_KEYS = ["../x.pt", "/etc/x.pt", "a/../../x.pt", "a//b", "a\\b", "", "a\nb", "a/\x1b[2J.pt", "x" * 2000]
POINTER = {"snapshot_sha256": "0" * 64, "snapshot_epoch": 1, "snapshot_batch": 0}
IDENTITY = {"host": "h", "boot": "b", "pid_namespace": "p", "pid": 7, "started": 1.0}


@pytest.mark.parametrize(
    "values",
    [
        *({"snapshot_key": key, **POINTER} for key in NO_KEYS),
        {"snapshot_key": "a/b.pt", **POINTER, "snapshot_epoch": -1},
        {"previous_key": ".hidden/x.pt"},
        *({"identity": identity} for identity in ("", "{}", "[]", "null", "7", '{"host": 1}', "[" * 5000)),
        *({"identity": json.dumps({**IDENTITY, "pid": pid})} for pid in (0, -1, 2**70, "self", None)),
        {"token": -1},
        {"token": "one"},
        {"state": "frozen solid"},
        {"lease_seconds": -1.0},
        {"lease_seconds": 1e300},
        {"crashes": 2**62},
    ],
    ids=lambda values: str(values)[:40],
)
def test_a_lease_that_no_worker_wrote_is_refused_in_one_sentence(leased: LeasedStudy, values: dict[str, Any]) -> None:
    assert read_leases(leased.storage, leased.id)
    change(leased, **values)
    with pytest.raises(UsageError, match=r"^The lease of trial 0 in the database is not as petskin-tune writes it"):
        read_leases(leased.storage, leased.id)


def test_an_owner_of_a_later_release_may_say_more_of_itself(leased: LeasedStudy) -> None:
    change(leased, identity=json.dumps({**IDENTITY, "gpu": "0"}))
    assert read_leases(leased.storage, leased.id)[0].identity.pid == 7


# ---- whatever is stored ----------------------------------------------------------------------------------------------


def read_or_refused(read: Any, *arguments: Any) -> None:
    """Whatever ``read`` is given, it takes it or refuses it in a sentence, and at once."""
    began, said = time.thread_time(), ""
    try:
        read(*arguments)
    except UsageError as error:
        said = str(error)
    assert len(said) < SCREEN
    assert time.thread_time() - began < 2


@cases(150)
@given(kept=st.dictionaries(st.sampled_from(OF_A_TRIAL), json_values, max_size=6), ours=st.booleans())
def test_whatever_is_stored_with_a_trial_every_view_shows_the_study(kept: dict[str, Any], ours: bool) -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1)
    for state in ("FAIL", "RUNNING", "COMPLETE"):
        add(study, state, 0.2 if state == "COMPLETE" else None, ours=ours, **kept)
    looked_at(study)


def mutated(spec: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from([*spec, "unknown"])
    return st.dictionaries(keys, json_values, max_size=3).map(lambda changes: {**spec, **changes})


@cases(300)
@given(content=mutated(a_spec().model_dump(mode="json")) | json_values)
def test_whatever_is_stored_as_spec_is_read_or_refused_in_one_sentence(content: Any) -> None:
    read_or_refused(read_spec, {attributes.SPEC: content})


@cases(150)
@given(content=st.dictionaries(st.sampled_from(sorted(stored._OF_A_STUDY)), json_values, max_size=3))
def test_whatever_is_stored_with_a_study_is_read_or_refused_in_one_sentence(content: dict[str, Any]) -> None:
    read_or_refused(study_attributes, content)


def test_a_gigantic_value_is_shown_without_its_digits(tmp_path: Path) -> None:
    study = a_study(a_spec())
    trained(study, curves.healthy(0))
    for value in (1e308, -1e308):
        add(study, "COMPLETE", value, ours=False, curve={1: value})
    report.render(study, NOW)
    shown = looked_at(study)
    assert "1e+308" in shown
    assert not re.search(r"[0-9]{30}", shown)
