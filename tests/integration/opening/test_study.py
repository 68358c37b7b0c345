"""From what was typed to an open study."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import yaml
from click.testing import CliRunner, Result

from petskin_tune.cli import petskin_tune, tune_worker
from petskin_tune.commands.study import enqueue, init_study
from petskin_tune.datasets import demo
from petskin_tune.datasets.trainable import without_labels
from petskin_tune.doctor import checks
from petskin_tune.errors import UsageError
from petskin_tune.opening import beginning, lookup, patience
from petskin_tune.opening.places import Places
from petskin_tune.opening.study import NotBegun, Opened, open_or_create, open_study
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.study import Study
from petskin_tune.study.wanted import wanted
from petskin_tune.trial import inputs
from petskin_tune.views.status import text as status_text
from petskin_tune.views.status.facts import Status
from tests.support.foreign_runs import rising, run_folder
from tests.support.saved_models import save_model
from tests.support.workers import SMALL_STUDY


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A home on a network disk, as far as the program is told."""
    monkeypatch.setenv("TUNE_NETWORK_HOME", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Places("demo", home=str(tmp_path / "drive" / "petskin"))


def test_the_study_of_a_network_home_that_was_deleted_does_not_come_back(places: Places) -> None:
    first = open_or_create(places, lambda _: None)
    assert first.home.close()
    shutil.rmtree(first.home.folder)
    said: list[str] = []
    second = open_or_create(places, said.append)
    assert second.study.uid != first.study.uid
    assert second.home.database is not None
    assert second.home.database.exists()
    assert second.home.close()
    assert list(second.home.folder.glob("database/tune-*.db")), "the new study was not copied into the home"
    assert any("belongs to another home" in line for line in said)


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_reader_does_not_find_the_study_of_a_network_home_that_was_deleted(places: Places, left: str) -> None:
    first = open_or_create(places, lambda _: None)
    first.home.close()
    shutil.rmtree(first.home.folder)
    if left == "an empty folder":
        first.home.folder.mkdir()
    with pytest.raises(NotBegun), open_study(places):
        pass


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["import", "train"], "petskin-tune init"),
        (["try", "lr0=0.001"], "petskin-tune init"),
        (["status"], "tune-worker"),
    ],
    ids=["import", "try", "status"],
)
def test_what_to_type_before_a_study_is_there_leaves_time_to_import_and_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], first: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "train", rising(0.4))
    where = ["--study", "demo", "--home", "home"]
    said = CliRunner().invoke(petskin_tune, [words[0], *where, *words[1:]])
    assert said.exit_code == 2
    assert said.output == f"error: The study 'demo' has not begun yet; type: {first} --study demo --home home\n"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A small study of a person's own, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    demo.make(tmp_path / "data", train=8, val=4)
    return write("mine")


def write(name: str, **changes: object) -> Places:
    study = {**SMALL_STUDY, "study": name, "data": "data/data.yaml", **changes}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(study))
    return Places(f"{name}.yaml")


def silent(_: str) -> None:
    pass


def test_the_newest_word_wins_be_it_an_option_or_the_file_and_whoever_only_looks_changes_nothing(mine: Places) -> None:
    opened = open_or_create(mine, silent)
    opened.study.change(target_trials=2)  # as `--target-trials` does
    assert open_or_create(mine, silent).study.spec.target_trials == 2  # the file has not changed
    write("mine", target_trials=5, keep_weights=9)
    with open_study(mine) as (_, study):
        assert study.spec.target_trials == 2
    enqueue(mine, ("lr0=0.002",))
    opened.study.refresh()
    assert opened.study.spec.target_trials == 2
    assert open_or_create(mine, silent).study.spec.target_trials == 5
    opened.study.change(target_trials=7)
    write("mine", target_trials=5, keep_weights=1)
    spec = open_or_create(mine, silent).study.spec
    assert (spec.target_trials, spec.keep_weights) == (7, 1)  # of the file, what has changed in it


def test_a_study_that_does_not_know_what_its_file_said_takes_it_whole_once(mine: Places) -> None:
    opened = open_or_create(mine, silent)
    opened.study.change(target_trials=2)
    opened.study.optuna.set_user_attr(attributes.FILE, {})  # as before it was kept
    assert open_or_create(mine, silent).study.spec.target_trials == SMALL_STUDY["target_trials"]
    opened.study.change(target_trials=2)
    assert open_or_create(mine, silent).study.spec.target_trials == 2


def test_a_study_whose_store_is_refused_is_not_created(mine: Places, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        open_or_create(replace(mine, checkpoints=str(tmp_path / "file" / "store")), silent)
    (tmp_path / "file").unlink()
    assert sorted(tmp_path.rglob("*")) == before
    assert open_or_create(replace(mine, checkpoints=str(tmp_path / "store")), silent).prepared is not None


@pytest.mark.parametrize("where", ["here", "on a network disk", "with another database"])
def test_a_new_study_that_is_refused_deletes_nothing_of_one_that_began_meanwhile(
    where: str, mine: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "on a network disk":
        monkeypatch.setenv("TUNE_NETWORK_HOME", "1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    elif where == "with another database":
        mine = replace(mine, storage=f"sqlite:///{tmp_path}/other.db")
    faster: list[Opened] = []
    genuine, calls = inputs.prepare, itertools.count()

    def slow(*arguments: Any) -> Any:
        if next(calls):
            return genuine(*arguments)
        faster.append(open_or_create(mine, silent))
        faster[0].home.logs.mkdir()  # as a worker does then
        raise UsageError("the data set is none")

    monkeypatch.setattr(inputs, "prepare", slow)
    with pytest.raises(UsageError, match="the data set is none"):
        open_or_create(mine, silent)
    home = faster[0].home
    assert home.work.is_dir()
    assert home.folder.is_dir()
    home.close()


@pytest.mark.parametrize("differs", ["file", "data"])
def test_the_loser_of_a_race_for_a_new_study_is_told_what_differs(
    differs: str, mine: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.make(tmp_path / "other", train=12, val=4)
    asked = wanted("mine.yaml")
    assert asked.spec is not None
    longer = replace(mine, asked=replace(asked, spec=asked.spec.model_copy(update={"epochs": 5})))
    raced: list[Places] = []

    def be_slow(*arguments: Any, **keywords: Any) -> Study:
        if not raced:
            raced.append(mine)
            open_or_create(mine, silent)
        return create_study(*arguments, **keywords)

    monkeypatch.setattr(beginning, "create_study", be_slow)
    with pytest.raises(UsageError, match="`epochs`" if differs == "file" else "data set here is not the one"):
        open_or_create(longer if differs == "file" else mine, silent, None if differs == "file" else "other/data.yaml")
    assert raced


def test_a_study_of_which_no_trial_has_begun_takes_the_edited_file(mine: Places) -> None:
    write("mine", start=[{"lr0": 0.002}])
    first = open_or_create(mine, silent).study
    write("mine", epochs=5, start=[{"lr0": 0.003}, {"lr0": 0.004}])
    said: list[str] = []
    second = open_or_create(mine, said.append).study
    assert second.spec.epochs == 5
    assert second.uid != first.uid
    assert [trial.system_attrs["fixed_params"]["lr0"] for trial in second.trials()] == [0.003, 0.004]
    assert "no trial of the study mine had begun: it takes its file as it is now" in said
    with pytest.raises(UsageError, match="The study 'mine' was deleted from the database"):
        first.refresh()
    assert open_or_create(mine, silent).study.uid == second.uid


def test_a_subset_goes_with_the_last_study_of_its_name_in_whichever_database(mine: Places) -> None:
    write("mine", subset={"train": 4, "val": 2})
    tried, searched = (replace(mine, home="home", storage=f"sqlite:///{name}.db") for name in ("tried", "searched"))
    opened = [open_or_create(places, silent) for places in (tried, searched)]
    assert opened[0].study.uid != opened[1].study.uid
    prepared = [one.prepared for one in opened if one.prepared is not None]
    (data,) = {one.data for one in prepared}
    for place in (tried, searched):
        assert data.exists(), "the workers of the other study train from it"
        ended = CliRunner().invoke(
            petskin_tune, ["delete", "mine", "--yes", "--home", "home", "--storage", str(place.storage)]
        )
        assert ended.exit_code == 0, ended.output
        assert ("left, because it is not the study's" in ended.stdout) == (place is tried)
    assert not data.parent.parent.exists()


def without_file(label: Path) -> None:
    label.unlink()


def a_link_to_nothing(label: Path) -> None:
    label.unlink()
    label.symlink_to("nowhere")


def in_another_unicode_form(label: Path) -> None:
    image = label.parents[2] / "images/train" / f"{label.stem}.bmp"
    for form, file in (("NFC", image), ("NFD", label)):
        file.rename(file.with_name(f"{unicodedata.normalize(form, '각')}{file.suffix}"))


@pytest.mark.parametrize("lose", [without_file, a_link_to_nothing, in_another_unicode_form])
def test_images_whose_labels_are_lost_are_named_as_background_when_a_study_begins_and_by_doctor(
    mine: Places, lose: Callable[[Path], None]
) -> None:
    lose(min(Path("data/labels/train").iterdir()))
    said: list[str] = []
    opened = open_or_create(mine, said.append)
    assert opened.prepared is not None
    (image,) = without_labels(opened.prepared.data)
    (note,) = (line for line in said if "background" in line)
    data_yaml = opened.prepared.data
    assert note.startswith(f"note: 1 image without a label file, trained as background, the first {image}; ")
    assert note.endswith(f"petskin-tune data check {data_yaml}")
    looked = CliRunner().invoke(petskin_tune, ["data", "check", str(data_yaml)])
    assert (
        f"PROBLEM: no label file (that of a background image is empty) (1): images/train/{image.name}" in looked.output
    )
    examination = SimpleNamespace(
        spec=opened.study.spec,
        home=opened.home,
        folders=opened.study.folders,
        study=opened.study,
        model="",
        data=None,
        images=(8, 4),
    )
    found = checks._data(examination)  # type: ignore[arg-type]
    assert found.verdict == "warning"
    assert f"trained as background: 1, the first {image}; type: petskin-tune data check {data_yaml}" in found.message


def test_a_study_whose_images_all_have_a_label_file_begins_without_a_note(mine: Places) -> None:
    said: list[str] = []
    open_or_create(mine, said.append)
    assert not any("background" in line for line in said)


def test_a_worker_of_a_study_that_is_there_keeps_its_subset(mine: Places) -> None:
    write("mine", subset={"train": 4, "val": 2})
    opened = open_or_create(mine, silent)
    assert opened.prepared is not None
    shutil.rmtree(opened.prepared.data.parent.parent)  # as on another machine
    again = open_or_create(mine, silent)
    found = inputs.data_of(again.study, again.home)
    assert [path.name for path in (found.data.parent / "studies").iterdir()] == [opened.study.uid]


def test_a_subset_that_was_deleted_before_its_study_had_begun_is_made_again_by_the_same_command(
    mine: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("mine", subset={"train": 4, "val": 2})

    def be_late(*arguments: Any, **keywords: Any) -> Study:
        (folder,) = Path().glob("**/subset-mine/*")
        shutil.rmtree(folder)
        return create_study(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(beginning, "create_study", be_late)
        with pytest.raises(UsageError, match="was deleted with another study just now; type the same command again"):
            open_or_create(mine, silent)
    opened = open_or_create(mine, silent)
    assert inputs.data_of(opened.study, opened.home).data.exists()


def test_whoever_only_looks_is_told_how_the_study_takes_the_edited_file(mine: Places, tmp_path: Path) -> None:
    home = replace(mine, home="my home")
    open_or_create(home, silent)
    write("mine", epochs=5)
    with pytest.raises(UsageError) as refused, open_study(home):
        pass
    assert str(refused.value).endswith("type: petskin-tune init --study mine.yaml --home 'my home'")
    init_study(home, silent, source=None, data=None, file=None)
    with open_study(home) as (_, study):
        assert study.spec.epochs == 5


@pytest.mark.parametrize("done", ["a trial has begun", "a person has enqueued a point"])
def test_a_study_for_which_something_was_done_stands_and_the_way_on_names_the_file(done: str, mine: Places) -> None:
    study = open_or_create(mine, silent).study
    if done == "a trial has begun":
        study.optuna.ask(distributions(study.spec.search))
    else:
        study.enqueue({"lr0": 0.002}, "person")
    write("mine", epochs=5)
    with pytest.raises(UsageError, match="`epochs`: the study has 3, here it is 5") as refused:
        open_or_create(mine, silent)
    assert str(refused.value).endswith("type: petskin-tune init --study mine2 --from mine mine.yaml")


def test_a_study_that_a_worker_began_meanwhile_is_not_made_anew(mine: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_or_create(mine, silent).study
    write("mine", epochs=5)

    def be_slow(*arguments: Any, **keywords: Any) -> Study:
        first.optuna.ask(distributions(first.spec.search))
        return create_study(*arguments, **keywords)

    monkeypatch.setattr(beginning, "create_study", be_slow)
    with pytest.raises(UsageError, match="was begun with another study file"):
        open_or_create(mine, silent)
    first.refresh()
    assert first.spec.epochs == SMALL_STUDY["epochs"]


def test_a_start_point_may_set_what_is_not_searched_for_its_trial_alone(mine: Places) -> None:
    said: list[str] = []
    opened = open_or_create(write("extra", start=[{"lr0": 0.002, "weight_decay": 0.001}]), said.append)
    (trial,) = opened.study.trials()
    assert trial.system_attrs["fixed_params"] == {"lr0": 0.002}
    assert trial.user_attrs[attributes.FIXED] == {"weight_decay": 0.001}
    assert any("`weight_decay` is not searched" in line for line in said)


def test_a_study_from_another_takes_what_fits_and_says_what_does_not(mine: Places) -> None:
    source = open_or_create(mine, silent).study
    trial = source.optuna.ask(distributions(source.spec.search))
    source.optuna.tell(trial, 0.3)
    said: list[str] = []
    write("next", search={"lr0": SMALL_STUDY["search"]["lr0"], "degrees": [0.0, 90.0]})
    init_study(Places("next.yaml"), said.append, source="mine", data=None, file=None)
    with open_study(Places("next")) as (_, study):
        (offered,) = study.trials()
        assert offered.system_attrs["fixed_params"] == {"lr0": trial.params["lr0"]}
    assert any("`mosaic` is not searched in this study" in line and "left out" in line for line in said)
    assert "1 finished trial of mine is tried first" in said
    with pytest.raises(UsageError, match="begun already"):
        init_study(Places("next.yaml"), said.append, source="mine", data=None, file=None)


def test_a_source_that_is_not_there_is_refused_and_nothing_is_created(mine: Places, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="no study `nowhere`"):
        init_study(mine, silent, source="nowhere", data=None, file=None)
    assert sorted(tmp_path.rglob("*")) == before


def test_init_leaves_the_new_study_in_a_network_home(places: Places) -> None:
    init_study(places, silent, source=None, data=None, file=None)
    assert list(Path(str(places.home)).glob("database/tune-*.db"))


def test_commands_to_type_name_the_places_without_a_password() -> None:
    places = Places("x", home="my drive", storage="postgresql://me:geheim@host/db", checkpoints="s3://bucket/x")
    assert places.to_type("tune-worker") == (
        "tune-worker --study x --home 'my drive' --storage 'postgresql://me:***@host/db' --checkpoints s3://bucket/x"
    )
    assert Places("x").to_type("petskin-tune status", "y") == "petskin-tune status --study y"


def test_a_worker_waits_for_a_database_that_has_answered_here_before_and_refuses_one_that_never_did(
    mine: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lookup, patience):
        monkeypatch.setattr(module, "START_PATIENCE_SECONDS", 0.5)
    door = socket.create_server(("127.0.0.1", 0))  # accepts nobody: connections are refused once it is closed
    address = f"postgresql://me@127.0.0.1:{door.getsockname()[1]}/none"
    door.close()
    away = replace(mine, storage=address)
    with pytest.raises(UsageError, match="cannot be reached"):
        open_or_create(away, silent)
    with monkeypatch.context() as patient:
        patient.setenv("TUNE_PATIENCE_SECONDS", "600")  # as a scheduler's file has it
        with pytest.raises(_Waits, match="because TUNE_PATIENCE_SECONDS says so"):
            open_or_create(away, _end_the_wait)
    home = lookup.resolve(away)
    patience.remember_answer(home)
    with pytest.raises(_Waits, match="the database is away; waiting for it"):
        open_or_create(away, _end_the_wait)


class _Waits(BaseException):  # an Exception would be told as a refusal
    """Ends a wait that has no end, from the thread that waits."""


def _end_the_wait(said: str) -> None:
    raise _Waits(said)


@pytest.mark.parametrize("name", ["mine.yaml", "../mine", "피" * 85])
def test_a_study_is_not_named_like_a_file_on_the_command_line_either(places: Places, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`study` must be"):
        init_study(replace(places, study=name), lambda _: None, source=None, data=None, file="demo")
    assert not Path(places.home or "").exists()


@pytest.fixture(params=["a file", "a bucket without credentials", "a bucket without its package"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store that cannot even be looked at."""
    if request.param == "a file":
        (tmp_path / "file").touch()
        yield str(tmp_path / "file" / "store")
        return
    if request.param == "a bucket without its package":

        def missing(*_: object, **__: object) -> None:
            raise ImportError("Install s3fs to access S3")

        monkeypatch.setattr(fsspec, "filesystem", missing)
        yield "s3://bucket/x"
        return
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # of the machine itself, if it is one of Amazon's
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    yield "s3://bucket/x"
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_changed_store_that_cannot_be_used_is_one_sentence(
    mine: Places, tmp_path: Path, unusable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_or_create(mine, silent).home.close()
    monkeypatch.setattr(checks, "_by_training", lambda _: iter(()))
    where = ["--study", "mine", "--checkpoints", unusable]
    needs = "Snapshots in s3:// need a package that is not installed: pip install s3fs.\n"
    for words in ([], ["init"], ["best", "--weights", "best.pt"], ["doctor"]):
        refused = CliRunner().invoke(petskin_tune if words else tune_worker, [*words, *where])
        assert refused.exit_code == 2, refused.output
        said = refused.stderr.removeprefix("error: ")
        if words == ["doctor"]:
            (said,) = re.findall(r"^problem +store: (.*\n)", refused.stdout, re.MULTILINE)
            assert refused.stdout.endswith("1 problem: the study cannot run here yet\n")
        assert said == needs or re.fullmatch(f"The store {re.escape(unusable)} cannot be looked at: listing .*\n", said)
    assert not (tmp_path / "best.pt").exists()


def typed(*words: str) -> Result:
    return CliRunner().invoke(petskin_tune, words)


def test_a_study_on_file_names_that_are_not_utf_8_is_checked_begun_and_examined(
    mine: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `unzip` leaves of a zip that was made on a Korean Windows."""
    monkeypatch.setattr(checks, "_by_training", lambda _: iter(()))
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    for kind in ("images", "labels"):
        for file in Path("data", kind).rglob("*.*"):
            file.rename(file.with_name(os.fsdecode("피부_".encode("cp949")) + file.name))
    write("mine", subset={"train": 4})
    assert typed("data", "check", "data", "--jobs", "1").exit_code == 0
    for _repeated in range(2):  # the second one compares with what is in the database
        begun = typed("init", "--study", "mine.yaml")
        assert begun.exit_code == 0, begun.output
        assert "study mine is ready" in begun.stdout
    examined = typed("doctor", "--study", "mine")
    assert examined.exit_code == 0, examined.output
    assert re.search(r"^ok +data: ", examined.stdout, re.MULTILINE)


MODELS = {
    "data/data.yaml": "data/data.yaml is no architecture of a model: it has no `backbone` and `head`",
    "detects.pt": "detects.pt is no segmentation model, its task is `detect`",
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("command", ["init", "doctor"])
def test_a_model_that_no_trial_can_train_is_refused_with_what_it_is(mine: Places, model: str, command: str) -> None:
    layers = {"nc": 1, "backbone": [[-1, 1, "Conv", [16, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}
    save_model(Path("detects.pt"), layers)
    write("mine", model=model)
    refused = typed(command, "--study", "mine.yaml")
    assert refused.exit_code == 2, refused.output
    said = refused.stderr if command == "init" else refused.stdout
    (line,) = re.findall(r"^(?:error|problem +weights): (.*)$", said, re.MULTILINE)
    assert MODELS[model] in line
    assert command == "doctor" or not Path("tune-home").exists()


@pytest.mark.parametrize("command", ["init", "doctor"])
def test_a_last_batch_of_one_image_is_refused_where_no_trial_can_train_it_and_warned_of_where_some_cannot(
    mine: Places, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(checks, "_by_training", lambda _: iter(()))
    train = {**SMALL_STUDY["train"], "imgsz": 32, "batch": 7}
    write("mine", train=train)
    refused = typed(command, "--study", "mine.yaml")
    assert refused.exit_code == 2, refused.output
    assert "No trial of this study can train: a last batch of one image (`batch` 7, 8 to train on)" in refused.output
    assert command == "doctor" or not Path("tune-home").exists()

    del train["batch"]
    write("mine", train=train, search={"batch": {"choices": [4, 7]}})
    warned = typed(command, "--study", "mine.yaml")
    assert warned.exit_code == 0, warned.output
    (line,) = re.findall(r"^warning:? .*$", warned.output, re.MULTILINE)
    assert "some trials of this study will be refused: a last batch of one image (`batch` 7, 8 to train on)" in line


def test_a_study_is_shown_with_the_comments_of_its_file_as_long_as_that_says_the_same(mine: Places) -> None:
    text = Path("mine.yaml").read_text() + "# argued for\n"
    Path("mine.yaml").write_text(text)
    show = ["show", "--study", "mine.yaml"]
    assert CliRunner().invoke(petskin_tune, show).stdout == text
    study = open_or_create(mine, silent).study
    assert CliRunner().invoke(petskin_tune, show).stdout == text
    study.change(target_trials=7)
    in_force = CliRunner().invoke(petskin_tune, show).stdout
    assert "target_trials: 7\n" in in_force
    assert "# argued for" not in in_force


def test_whoever_watches_a_network_home_sees_what_another_machine_does(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        """The other machine adds a trial, and its copy of the database comes into the home."""
        with monkeypatch.context() as there:
            there.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of the other machine"))
            opened = open_or_create(places, silent)
            opened.study.optuna.enqueue_trial({"lr0": 0.001})
            assert opened.home.close()

    shown: list[int] = []

    def watch(read: Callable[[], Status], *_: object, **__: object) -> None:
        for _repeated in range(2):
            shown.append(read().states["waiting"])
            work()
        shown.append(read().states["waiting"])

    work()
    monkeypatch.setattr(status_text, "watch", watch)
    assert places.home is not None
    result = CliRunner().invoke(petskin_tune, ["status", "--study", "demo", "--home", places.home, "--watch"])
    assert (result.exit_code, result.output) == (0, "")
    assert shown == [shown[0], shown[0] + 1, shown[0] + 2]


@pytest.mark.parametrize("there", [False, True])
def test_a_refused_study_leaves_no_folder_that_it_made_and_every_one_that_was_there(mine: Places, there: bool) -> None:
    home = Path("empty")
    if there:
        home.mkdir()
    write("large", subset={"train": 10**6})
    refused = typed("init", "--study", "large.yaml", "--home", str(home))
    assert refused.exit_code == 2, refused.output
    assert "ask for fewer" in refused.output
    assert home.exists() == there
    assert not there or list(home.iterdir()) == []
