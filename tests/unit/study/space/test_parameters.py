from types import SimpleNamespace

import pytest
from ultralytics.cfg import DEFAULT_CFG_DICT, check_cfg

from petskin_tune.errors import UsageError
from petskin_tune.study.space.arguments import (
    FIXED_ONLY,
    FREE,
    LIMITS,
    OWNED,
    TUNER_BOUNDS,
    WORDS,
    arguments,
    check_name,
    check_value,
)
from petskin_tune.study.space.parameters import (
    check_point,
    check_settings,
    distributions,
    example,
    fit_point,
    make_choices,
    make_range,
    parse_point,
)
from petskin_tune.study.space.start_points import StartPoints, resolve_defaults, start_points
from petskin_tune.study.spec import Choices, Range
from petskin_tune.study.study_file.file import parse
from petskin_tune.trial.model.files import find_model
from tests.support.saved_models import save_model

# Arguments of prediction, export, tracking, drawing and of other tasks: no study can mean them.
WITHOUT_EFFECT = {
    "dropout", "dnn", "nms", "source", "vid_stride", "stream_buffer", "visualize", "augment", "agnostic_nms",
    "retina_masks", "embed", "show", "save_frames", "save_txt", "save_conf", "save_crop", "show_labels", "show_conf",
    "show_boxes", "line_width", "format", "optimize", "dynamic", "simplify", "opset", "workspace", "pose", "kobj",
    "rle", "angle", "dlog", "dgrad", "dlam", "auto_augment", "erasing", "tracker",
}  # fmt: skip


def test_names_and_defaults_are_those_of_the_installed_ultralytics():
    assert {name: argument.default for name, argument in arguments().items()} == DEFAULT_CFG_DICT


def test_every_argument_of_the_installed_ultralytics_has_its_place():
    placed = [*FREE, *FIXED_ONLY, *OWNED, *WITHOUT_EFFECT]
    unlisted = ["augmentations"]  # Ultralytics takes it, its default.yaml has it not
    assert sorted(placed) == sorted(
        [*arguments(), *unlisted]
    )  # a new argument fails here, and somebody decides where it belongs


def test_the_bounds_shown_are_those_of_model_tune():

    from ultralytics.engine.tuner import Tuner
    from ultralytics.utils import callbacks

    tuner = Tuner(
        {"model": "yolov8n-seg.yaml", "name": "x"}, callbacks.get_default_callbacks(), model=SimpleNamespace()
    )
    assert {name: bounds[:2] for name, bounds in tuner.space.items()} == TUNER_BOUNDS


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_ultralytics_accepts_both_limits_of_an_argument(name):
    for limit in LIMITS[name]:
        value = check_value(name, 32 * round(limit / 32) if name == "imgsz" else limit)
        check_cfg({**DEFAULT_CFG_DICT, name: value})


@pytest.mark.parametrize("name", sorted(TUNER_BOUNDS))
def test_the_bounds_of_model_tune_are_a_legal_range(name):
    searched = make_range(name, *TUNER_BOUNDS[name])
    assert searched.integer == (name == "close_mosaic")
    assert name in example(name)


@pytest.mark.parametrize("name", sorted(WORDS))
def test_ultralytics_accepts_every_word(name):
    for word in WORDS[name]:
        check_cfg({**DEFAULT_CFG_DICT, name: check_value(name, word)})


def test_a_word_is_taken_in_any_case_and_kept_in_ultralytics_own():
    assert check_value("optimizer", "adamw") == "AdamW"
    assert check_value("copy_paste_mode", "FLIP") == "flip"


def test_whole_numbers_stay_whole():
    assert type(check_value("batch", 16.0)) is int
    assert make_range("batch", 8, 64).integer
    assert make_choices("batch", [8, 16]) == Choices(choices=(8, 16))
    with pytest.raises(UsageError, match="whole number"):
        make_range("close_mosaic", 0, 2.5)
    with pytest.raises(UsageError, match="whole number"):
        make_range("batch", 8, 64, step=0.5)


def test_a_number_is_a_float_where_ultralytics_wants_one():
    assert type(check_value("mosaic", 1)) is float
    assert make_choices("mosaic", [0, 1]).choices == (0.0, 1.0)


def test_optuna_draws_from_the_very_ranges():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    search = {
        "lr0": make_range("lr0", 1e-5, 1e-2, log=True),
        "batch": make_range("batch", 8, 64, step=8),
        "degrees": make_range("degrees", 0, 180, step=15),
        "cos_lr": make_choices("cos_lr", [True, False]),
    }
    assert distributions(search) == {
        "batch": IntDistribution(8, 64, step=8),
        "cos_lr": CategoricalDistribution((True, False)),
        "degrees": FloatDistribution(0, 180, step=15),
        "lr0": FloatDistribution(1e-5, 1e-2, log=True),
    }
    assert list(distributions(search)) == sorted(search)


def test_a_point_is_checked_against_the_space_and_spelt_as_it():
    search = {"lr0": Range(low=1e-5, high=1e-2, log=True), "optimizer": Choices(choices=("SGD", "AdamW"))}
    assert check_point({"optimizer": "adamw", "lr0": 0.001}, search) == {"optimizer": "AdamW", "lr0": 0.001}
    for point, word in [({"lr0": 0.1}, "outside"), ({"lr": 0.1}, "lr0"), ({"optimizer": "Adam"}, "SGD, AdamW")]:
        with pytest.raises(UsageError, match=word):
            check_point(point, search)


def test_a_point_is_read_as_a_person_types_it():
    search = {"lr0": Range(low=1e-5, high=1e-2, log=True), "optimizer": Choices(choices=("SGD", "AdamW"))}
    assert parse_point(["lr0=1e-4", "optimizer=adamw"], search) == {"lr0": 1e-4, "optimizer": "AdamW"}
    for words, said in [
        (["lr0"], "NAME=VALUE"),
        (["lr0="], "empty"),
        (["lr0=much"], "number"),
        (["lr0=[1"], "YAML"),
        (["lr0=1e-4", "lr0 =1e-3"], "given twice"),
    ]:
        with pytest.raises(UsageError, match=said):
            parse_point(words, search)


def test_settings_may_name_what_is_not_searched_but_nothing_that_makes_trials_incomparable():
    search = {"lr0": Range(low=1e-5, high=1e-2, log=True)}
    assert check_settings({"weight_decay": 0, "lr0": 0.001}, search) == {"weight_decay": 0.0, "lr0": 0.001}
    wrong = [
        ({"lr0": 0.1}, "outside"),
        ({"imgsz": 320}, "cannot be searched"),
        ({"weight_decay": -1}, "between"),
        ({"lr": 1e-3}, "did you mean `lr0`"),
        ({"optimizer": "auto"}, "name an optimizer"),
    ]
    for point, said in wrong:
        with pytest.raises(UsageError, match=said):
            check_settings(point, search)


def test_a_point_of_another_space_is_fitted_and_each_change_is_said():
    search = {
        "lr0": Range(low=1e-5, high=1e-2, log=True),
        "degrees": Range(low=0, high=180, step=15),
        "optimizer": Choices(choices=("SGD", "AdamW")),
    }
    point = {"lr0": 0.1, "degrees": 20.0, "optimizer": "MuSGD", "mosaic": 0.5}
    fitting, said = fit_point(point, search)
    assert fitting == {"lr0": 0.01, "degrees": 15.0}
    assert [sentence.partition("`")[2].partition("`")[0] for sentence in said] == list(point)
    assert said[0].endswith("0.01 is tried instead")
    assert said[2].endswith("it is drawn")
    assert said[3].endswith("it is left out")
    assert fit_point(fitting, search) == (fitting, [])


def test_the_nearest_value_lies_in_the_range_and_is_whole_where_it_must_be():
    search = {"translate": Range(low=0.0, high=0.3, step=0.1), "close_mosaic": Range(low=0, high=10, integer=True)}
    assert fit_point({"translate": 0.35, "close_mosaic": 5.5}, search)[0] == {"translate": 0.3, "close_mosaic": 6}


@pytest.mark.parametrize("name", ["lr0", "close_mosaic"])
def test_a_whole_number_beyond_every_float_is_no_value_and_its_nearest_one_is_an_end(name):
    for value in (10**400, -(10**400)):
        with pytest.raises(UsageError, match=f"`{name}` must be a number, not one so large"):
            check_value(name, value)
    search = {
        "lr0": Range(low=1e-5, high=1e-2, log=True),
        "close_mosaic": Choices(choices=(0, 5, 10)),
    }
    assert fit_point({name: 10**400}, search)[0] == {name: 1e-2 if name == "lr0" else 10}
    assert fit_point({name: -(10**400)}, search)[0] == {name: 1e-5 if name == "lr0" else 0}


@pytest.mark.parametrize("name", ["lr", "Mosaic", "epoch", "mossaic", "hsv"])
def test_an_unknown_name_is_refused_with_the_nearest_one(name):
    with pytest.raises(UsageError, match="did you mean"):
        check_name(name, searched=True)


def study(search: str, train: str = "", epochs: int = 27, start: str = "[defaults]"):
    head = f"study: x\nmodel: m.yaml\ndata: d.yaml\nepochs: {epochs}\n"
    return parse(f"{head}train: {{{train}}}\nsearch: {{{search}}}\nstart: {start}\n", where="x").spec


ALL = "optimizer: {choices: [SGD, AdamW, MuSGD]}, lr0: [0.00001, 0.02], momentum: [0.8, 0.999], mosaic: [0, 1]"


@pytest.mark.parametrize(
    ("images", "epochs", "warm_up", "optimizer", "momentum"),
    [
        (17_000, 27, 1, "AdamW", 0.9),  # beta1, which no warm-up touches
        (17_000, 100, 1, "MuSGD", 0.937),
        (17_000, 100, 0, "MuSGD", 0.9),  # as it was built
        (17_000, 100, 0.0001, "MuSGD", 0.9),  # of less than half a batch
        (10_001, 1, 1, "AdamW", 0.9),
        (641_000, 1, 1, "MuSGD", 0.9),  # an only epoch has no warm-up
    ],
)
def test_the_momentum_of_the_defaults_is_the_one_that_the_warm_up_of_auto_leaves(
    images: int, epochs: int, warm_up: float, optimizer: str, momentum: float
) -> None:
    spec = study(ALL, train=f"warmup_epochs: {warm_up}", epochs=epochs)
    resolved = resolve_defaults(spec, classes=7, train_images=images)
    assert (resolved["optimizer"], resolved["momentum"]) == (optimizer, momentum)


def test_what_auto_sets_beside_what_is_searched_belongs_to_the_defaults_alone() -> None:
    some = "optimizer: {choices: [SGD, AdamW]}, lr0: [0.00001, 0.02]"
    found = start_points(study(some), classes=1, train_images=1000)
    expected = {"optimizer": "AdamW", "lr0": 0.002, "momentum": 0.9, "warmup_bias_lr": 0.0}
    assert found.points == (expected,)
    assert any("`momentum` 0.9, `warmup_bias_lr` 0, which" in note for note in found.notes)
    fixed = study(some, train="momentum: 0.8, warmup_bias_lr: 0.05, warmup_epochs: 1")
    assert start_points(fixed, classes=1, train_images=1000) == StartPoints(({"optimizer": "AdamW", "lr0": 0.002},))


def test_an_optimizer_that_the_study_does_not_allow_gives_way_to_autos_other_one():
    spec = study(ALL.replace(", MuSGD", ""), epochs=100)
    assert resolve_defaults(spec, classes=7, train_images=17_000)["optimizer"] == "AdamW"


def test_a_fixed_optimizer_keeps_the_learning_rate_that_auto_gives_it():
    spec = study("lr0: [0.00001, 0.02]", train="optimizer: AdamW, warmup_epochs: 1")
    assert resolve_defaults(spec, classes=1, train_images=100) == {"lr0": 0.002}
    spec = study("lr0: [0.00001, 0.02]", train="optimizer: SGD, warmup_epochs: 1")
    assert resolve_defaults(spec, classes=1, train_images=100) == {"lr0": 0.01}


def test_a_default_outside_its_range_is_only_warned_of_by_name_and_moved_to_the_nearest_end():
    spec = study(
        "optimizer: {choices: [SGD, Adam]}, mosaic: [0, 0.5], degrees: {low: 3, high: 9, step: 2}, cls: [1, 4]"
    )
    found = start_points(spec, classes=7, train_images=1000)
    assert found.points == ({"mosaic": 0.5, "degrees": 3.0, "cls": 1.0},)
    for name in ("mosaic", "degrees", "cls", "optimizer"):
        assert sum(f"`{name}`" in note for note in found.notes) == 1


def test_start_points_keep_their_order_and_may_leave_names_to_the_sampler():
    spec = study(ALL, start="[{lr0: 0.001}, defaults, {mosaic: 0}]")
    points = start_points(spec, classes=7, train_images=1000).points
    assert points[0] == {"lr0": 0.001}
    assert points[1]["optimizer"] == "AdamW"
    assert points[2] == {"mosaic": 0.0}


TINY = "nc: 1\nbackbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: [[[0], 1, Segment, [nc, 32, 256]]]\n"


def test_a_model_is_found_beside_the_study_then_by_ultralytics_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.yaml").write_text(TINY)
    save_model(tmp_path / "w.pt", {})
    assert find_model("mine.yaml", [tmp_path]) == str(tmp_path / "models" / "mine.yaml")
    assert find_model("models/mine.yaml", [tmp_path]) == str(tmp_path / "models" / "mine.yaml")
    assert find_model("w.pt") == str(tmp_path / "w.pt")
    assert find_model("yolov8x-seg.pt") == "yolov8x-seg.pt"
    assert find_model("yolov8n-seg.yaml") == "yolov8n-seg.yaml"
    for missing in ("nothing.pt", "nothing.yaml", str(tmp_path / "no.pt")):
        with pytest.raises(UsageError, match="is not here"):
            find_model(missing, [tmp_path])


def test_the_model_of_the_demo_is_found_wherever_the_package_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from petskin_tune.study.study_file.file import find

    demo = find("demo")
    assert demo is not None
    assert find_model(demo.read().spec.model).endswith(".yaml")
