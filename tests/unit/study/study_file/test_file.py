import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.errors import UsageError
from petskin_tune.study.spec import CHANGEABLE, Choices, Range, StudySpec
from petskin_tune.study.study_file.file import differences, dump, find, not_found, parse, shipped_folder

GOOD = """\
study: petskin
model: yolov8l-seg.pt
data: datasets/petskin/data.yaml
subset: {train: 4000, val: 800}
epochs: 27
train: {imgsz: 480, batch: 16, warmup_epochs: 1, close_mosaic: 5}
search:
  optimizer: {choices: [SGD, Adam, adamw]}
  lr0: {low: 1e-5, high: 2.0e-2, log: true}
  momentum: {low: 0.8, high: 0.999}
  degrees: {low: 0, high: 180, step: 15}
  mosaic: [0.0, 1]
start: [defaults, {optimizer: AdamW, lr0: 9.8e-5, lrf: 0.001, momentum: 0.999, weight_decay: 0.001}]
sampler: {name: tpe}
pruner: {name: asha, rungs: [3, 9], reduction_factor: 3}
target_trials: 60
stop_at: 0.20
snapshot_every: 5m
lease: 90s
keep_weights: 3
store_limit: 6GB
seed: 0
"""


def changed(line: str, instead: str) -> str:
    """GOOD with one line (found by its beginning) replaced."""
    lines = GOOD.splitlines()
    [index] = [i for i, text in enumerate(lines) if text.startswith(line)]
    lines[index] = instead
    return "\n".join(lines) + "\n"


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as refused:
        parse(text, where="studies/mine.yaml")
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.startswith("studies/mine.yaml")
    return sentence


def test_a_study_file_becomes_plain_numbers():
    parsed = parse(GOOD, where="petskin.yaml")
    spec = parsed.spec
    assert parsed.warnings == ()
    assert spec.search["lr0"] == Range(low=1e-5, high=0.02, log=True)
    assert spec.search["degrees"] == Range(low=0, high=180, step=15)
    assert spec.search["optimizer"] == Choices(choices=("SGD", "Adam", "AdamW"))
    assert spec.search["mosaic"] == Range(low=0, high=1)
    assert spec.start == (
        "defaults",
        {"optimizer": "AdamW", "lr0": 9.8e-5, "lrf": 0.001, "momentum": 0.999, "weight_decay": 0.001},
    )
    assert (spec.snapshot_every, spec.lease, spec.store_limit) == (300.0, 90.0, 6_000_000_000)
    assert spec.pruner.rungs == (3, 9)
    assert spec.train == {"imgsz": 480, "batch": 16, "warmup_epochs": 1.0, "close_mosaic": 5}


def test_a_dumped_study_is_read_back_as_the_same_study():
    spec = parse(GOOD, where="petskin.yaml").spec
    text = dump(spec)
    assert parse(text, where="show").spec == spec
    assert "snapshot_every: 5m" in text
    assert "lease: 90s" in text
    assert "store_limit: 6GB" in text


def test_a_study_survives_the_database_as_json():
    spec = parse(GOOD, where="petskin.yaml").spec
    stored = StudySpec.model_validate_json(spec.model_dump_json())
    assert stored == spec
    assert differences(stored, spec) == []


REFUSED = {
    "broken YAML": (changed("epochs:", "epochs: [27"), 6, "no valid YAML"),
    "a tab": (changed("epochs:", "\tepochs: 27"), 5, "no valid YAML"),
    "a key given twice": (changed("seed:", "epochs: 3"), 22, "given twice, first in line 5"),
    "an unknown key": (changed("pruner:", "prunner: {name: asha}"), 15, "did you mean `pruner`?"),
    "a missing key": (changed("epochs:", "seed: 1") .replace("seed: 0\n", ""), 1, "`epochs` is missing"),
    "a misspelt argument": (changed("  mosaic:", "  mozaic: [0, 1]"), 12, "did you mean `mosaic`?"),
    "a misspelt fixed argument": (changed("train:", "train: {batchsize: 16}"), 6, "did you mean `batch`?"),
    "an empty range": (changed("  mosaic:", "  mosaic: [1, 1]"), 12, "empty"),
    "a reversed range": (changed("  mosaic:", "  mosaic: [1, 0]"), 12, "reversed"),
    "log from zero": (changed("  lr0:", "  lr0: {low: 0, high: 0.01, log: true}"), 9, "must be above 0"),
    "beyond the argument": (changed("  mosaic:", "  mosaic: [0, 2]"), 12, "between 0 and 1"),
    "a crooked step": (changed("  degrees:", "  degrees: {low: 0, high: 180, step: 50}"), 11, "let high be 150"),
    "log and step": (changed("  degrees:", "  degrees: {low: 1, high: 9, step: 1, log: true}"), 11, "one of them"),
    "half a range": (changed("  degrees:", "  degrees: {low: 1}"), 11, "degrees: [0, 45]"),
    "a value for a range": (changed("  degrees:", "  degrees: 10"), 11, "belongs under `train`"),
    "one choice": (changed("  optimizer:", "  optimizer: {choices: [SGD]}"), 8, "at least two"),
    "a choice twice": (changed("  optimizer:", "  optimizer: {choices: [SGD, sgd]}"), 8, "twice"),
    "an unknown optimizer": (changed("  optimizer:", "  optimizer: {choices: [SGD, Lion]}"), 8, "known are SGD"),
    "a range of words": (changed("  optimizer:", "  optimizer: [0, 1]"), 8, "choices"),
    "auto among the choices": (changed("  optimizer:", "  optimizer: {choices: [SGD, auto]}"), 8, "overrides `lr0`"),
    "auto by omission": (changed("  optimizer:", "  cls: [0.1, 4]"), 7, "default, `auto`"),
    "fixed auto": (
        changed("  optimizer:", "  cls: [0.1, 4]").replace("imgsz: 480,", "optimizer: auto,"),
        6,
        "overrides `lr0`",
    ),
    "fixed and searched": (changed("train:", "train: {mosaic: 1, warmup_epochs: 1}"), 12, "leave one of them out"),
    "imgsz searched": (changed("  mosaic:", "  imgsz: [320, 640]"), 12, "ground truth"),
    "mask_ratio searched": (changed("  mosaic:", "  mask_ratio: [2, 4]"), 12, "ground truth"),
    "overlap_mask searched": (changed("  mosaic:", "  overlap_mask: {choices: [true, false]}"), 12, "ground truth"),
    "data searched": (changed("  mosaic:", "  data: {choices: [a, b]}"), 12, "key of its own"),
    "epochs searched": (changed("  mosaic:", "  epochs: [10, 20]"), 12, "the same for all trials"),
    "fraction searched": (changed("  mosaic:", "  fraction: [0.1, 1]"), 12, "`subset`"),
    "fraction fixed": (changed("train:", "train: {fraction: 0.2, warmup_epochs: 1}"), 6, "`subset`"),
    "classes made one": (changed("train:", "train: {single_cls: true, warmup_epochs: 1}"), 6, "merge the classes"),
    "a name of the tool": (changed("train:", "train: {device: 0, warmup_epochs: 1}"), 6, "--device"),
    "another task's name": (changed("  mosaic:", "  pose: [1, 20]"), 12, "no effect on segmentation"),
    "a wrong type": (changed("train:", "train: {batch: many, warmup_epochs: 1}"), 6, "number"),
    "an automatic batch": (changed("train:", "train: {batch: -1, warmup_epochs: 1}"), 6, "between 1 and"),
    "a size that is no multiple of the stride": (changed("train:", "train: {imgsz: 500}"), 6, "512 instead of 500"),
    "a start point outside": (changed("start:", "start: [{lr0: 0.1}]"), 13, "outside of its range"),
    "a start point off the grid": (changed("start:", "start: [{degrees: 7}]"), 13, "grid"),
    "a start point's unknown name": (changed("start:", "start: [{lr: 0.001}]"), 13, "did you mean `lr0`?"),
    "a start point's unknown choice": (changed("start:", "start: [{optimizer: NAdam}]"), 13, "none of its choices"),
    "a start point's image size": (changed("start:", "start: [{imgsz: 320}]"), 13, "cannot be searched"),
    "a start point's long warm-up": (changed("start:", "start: [{warmup_epochs: 5}]"), 13, "first verdict, at epoch 3"),
    "a misspelt word of start": (changed("start:", "start: [default]"), 13, "did you mean `defaults`?"),
    "warm-up after the first rung": (changed("train:", "train: {warmup_epochs: 5}"), 15, "mid warm-up"),
    "the default warm-up after the first rung": (
        changed("train:", "train: {batch: 16}").replace("[3, 9]", "[2, 9]"),
        15,
        "mid warm-up",
    ),
    "a searched warm-up after the first rung": (
        changed("  mosaic:", "  warmup_epochs: [0, 4]").replace(" warmup_epochs: 1,", ""),
        15,
        "mid warm-up",
    ),
    "rungs that fall": (changed("pruner:", "pruner: {name: asha, rungs: [9, 3]}"), 15, "increasing"),
    "a rung at the end": (changed("pruner:", "pruner: {name: asha, rungs: [3, 27]}"), 15, "before the last epoch"),
    "an unknown pruner": (changed("pruner:", "pruner: {name: ahsa}"), 15, "did you mean `asha`?"),
    "another pruner's option": (changed("pruner:", "pruner: {name: median, rungs: [3]}"), 15, "no option of"),
    "an unknown sampler": (changed("sampler:", "sampler: {name: cmaes}"), 14, "tpe, gp, random"),
    "no trials": (changed("target_trials:", "target_trials: 0"), 16, "at least 1"),
    "half a trial": (changed("target_trials:", "target_trials: 1.5"), 16, "whole number"),
    "a duration that is none": (changed("snapshot_every:", "snapshot_every: often"), 18, "90s, 5m or 2h"),
    "a size that is none": (changed("store_limit:", "store_limit: 6 apples"), 21, "6GB"),
    "a lease that cannot be held": (changed("lease:", "lease: 0"), 19, "at least 1 s"),
    "a detection model": (changed("model:", "model: yolov8l.pt"), 2, "did you mean `yolov8l-seg.pt`?"),
    "no model at all": (changed("model:", "model: resnet"), 2, ".pt"),
    "a name that is a path": (changed("study:", "study: ../petskin"), 1, "letters"),
    "a list for a mapping": (changed("train:", "train: [imgsz]"), 6, "mapping"),
    "a newer format": (changed("seed:", "version: 99"), 22, "upgrade"),
    "nan": (changed("stop_at:", "stop_at: .nan"), 17, "number"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_one_sentence_with_its_line(name):
    text, line, word = REFUSED[name]
    sentence = refusal(text)
    assert f"line {line}:" in sentence, sentence
    assert word in sentence, sentence


def test_an_empty_file_is_refused():
    assert "empty" in refusal("# nothing\n")


def test_a_bomb_of_aliases_is_refused_and_not_expanded_for_ever():
    assert "nested too deeply" in refusal("study: &a [*a]\n")


def test_an_empty_value_is_a_key_left_out_unless_it_is_needed():
    parsed = parse(
        GOOD.replace("stop_at: 0.20", "stop_at:").replace("store_limit: 6GB", "store_limit: null"), where="x"
    )
    assert parsed.spec.stop_at is None
    assert parsed.spec.store_limit is None
    assert "line 5: `epochs` must be a number, not nothing" in refusal(changed("epochs:", "epochs:"))
    assert "line 7: `search` must be a mapping" in refusal(GOOD[: GOOD.index("  optimizer:")])


def test_rungs_left_out_are_written_out_and_keep_clear_of_the_warm_up():
    spec = parse(changed("pruner:", "pruner: asha"), where="x").spec
    assert spec.pruner.rungs == (3, 9)
    late = changed("pruner:", "pruner: asha").replace("warmup_epochs: 1", "warmup_epochs: 4")
    assert parse(late, where="x").spec.pruner.rungs == (9,)


def test_a_run_too_short_for_a_verdict_is_not_pruned_and_says_so():
    text = changed("pruner:", "").replace("epochs: 27", "epochs: 4").replace(" warmup_epochs: 1,", "")
    parsed = parse(text, where="x")
    assert parsed.spec.pruner.name == "none"
    assert any("nothing will be pruned" in note for note in parsed.warnings)
    assert parse(dump(parsed.spec), where="x").spec == parsed.spec


def test_mosaic_searched_but_closed_from_the_first_epoch_is_warned_of():
    parsed = parse(GOOD.replace("epochs: 27", "epochs: 10").replace("close_mosaic: 5", "close_mosaic: 10"), where="x")
    assert any("`mosaic` is searched without effect" in note for note in parsed.warnings)


def test_decades_on_a_linear_scale_are_warned_of():
    parsed = parse(GOOD.replace(", log: true", ""), where="x")
    assert any("log: true" in note for note in parsed.warnings)


def test_a_difference_is_named_in_plain_words():
    stored = parse(GOOD, where="x").spec
    mine = parse(GOOD.replace("epochs: 27", "epochs: 30").replace("high: 0.999", "high: 0.9995"), where="x").spec
    assert differences(stored, mine) == [
        "`epochs`: the study has 27, here it is 30",
        "`search.momentum`: the study has {low: 0.8, high: 0.999}, here it is {low: 0.8, high: 0.9995}",
    ]


def test_what_may_change_at_any_time_is_no_difference():
    stored = parse(GOOD, where="x").spec
    other = {"target_trials": 7, "stop_at": None, "snapshot_every": 0.0, "lease": 7.0, "keep_weights": 1}
    more = {"budget": 54, "store_limit": None, "keep_frozen": 3, "stop_when": 0.05}
    mine = stored.model_copy(update={**other, **more})
    assert set(CHANGEABLE) == {*other, *more}
    assert differences(stored, mine) == []


def test_a_left_out_subset_is_a_difference():
    stored = parse(GOOD, where="x").spec
    assert differences(stored, stored.model_copy(update={"subset": None})) == [
        "`subset`: the study has {train: 4000, val: 800}, here it is nothing"
    ]


def test_a_path_is_found_before_a_name_and_a_name_here_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = find("demo")
    assert shipped is not None
    assert shipped.shipped
    assert shipped.path.parent == shipped_folder()
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "demo.yaml").write_text(GOOD)
    here = find("demo")
    assert here is not None
    assert not here.shipped
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert find("mine.yaml") is not None
    assert find("nothing") is None
    assert find("no/such/file.yaml") is None
    (tmp_path / "studies" / "petskin.yaml").touch()  # as the shell does before `petskin-tune show` writes
    petskin = find("petskin")
    assert petskin is not None
    assert petskin.shipped


def test_an_unknown_study_is_refused_with_the_nearest_known_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "did you mean `petskin`?" in str(not_found("petskn"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"study: \xff\xfe")
    found = find(str(path))
    assert found is not None
    with pytest.raises(UsageError, match="save it as UTF-8"):
        found.read()


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    found = find(str(path))
    assert found is not None
    with pytest.raises(UsageError, match="cannot be read"):
        found.read()


@pytest.mark.parametrize("name", ["petskin", "demo"])
def test_a_shipped_study_can_run_and_is_read_back_from_its_dump(name):
    found = find(str(shipped_folder() / f"{name}.yaml"))
    assert found is not None
    parsed = found.read()
    assert parsed.spec.study == name
    assert parsed.warnings == ()
    assert parse(dump(parsed.spec), where=name).spec == parsed.spec


def test_reading_a_study_imports_neither_torch_nor_ultralytics_nor_optuna():
    code = (
        "import sys; from petskin_tune.study.study_file.file import find, shipped_folder;"
        "find(str(shipped_folder() / 'petskin.yaml')).read();"
        "print(sorted({'torch', 'ultralytics', 'optuna', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


@st.composite
def study_texts(draw):
    """Study files with random numbers in random notation."""
    low = draw(st.floats(1e-6, 1e-2))
    high = draw(st.floats(2e-2, 1.0))
    notation = draw(st.sampled_from(["{:r}", "{:e}", "{:g}"]))

    def text(value):
        return repr(value) if notation == "{:r}" else notation.format(value)

    return (
        GOOD.replace("low: 1e-5", f"low: {text(low)}").replace("high: 2.0e-2", f"high: {text(high)}")
        .replace("lr0: 9.8e-5, ", "")
        .replace("5m", draw(st.sampled_from(["0", "45", "90s", "2h", "1h30m", "1.5"])))
        .replace("6GB", draw(st.sampled_from(["500MB", "1KiB", "123456789", "2TB"])))
        .replace("seed: 0", f"seed: {draw(st.integers(0, 2**31 - 1))}")
    )  # fmt: skip


@given(study_texts())
def test_any_study_is_read_back_from_its_dump_and_from_json(text):
    spec = parse(text, where="x").spec
    assert parse(dump(spec), where="x").spec == spec
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec


@given(st.text(alphabet="ab:{}[]&*!|>'\"%@`,#?-\n \t0e.~", max_size=80))
def test_no_text_ends_in_anything_but_a_study_or_a_refusal(text):
    with pytest.raises(UsageError) as refused:
        parse(text, where="x")
    assert "\n" not in str(refused.value)


def sentence_of(text: str) -> str:
    try:
        parse(text, where="x")
    except UsageError as error:
        return str(error)
    return ""


def test_a_study_cut_off_anywhere_is_read_or_refused_in_one_sentence():
    sentences = [sentence_of(GOOD[:length]) for length in range(0, len(GOOD) + 1, 7)]
    assert all("\n" not in sentence for sentence in sentences)
    assert any(sentences)
    assert not all(sentences)
