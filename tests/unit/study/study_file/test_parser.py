"""Whatever stands behind a key of a study file, it is read, or refused in one sentence."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.errors import UsageError
from petskin_tune.study.space.parameters import make_range, parse_point
from petskin_tune.study.spec import Range, StudySpec
from petskin_tune.study.study_file.file import dump, parse
from tests.support.fuzzing import cases
from tests.support.soak import first
from tests.support.study_files import study

KEYS = [name for name in StudySpec.model_fields if name != "search"]
NASTY = [
    "", "~", "true", "-1", "1.5", "1e-320", "1e308", "1e400", "9" * 400, "-" + "9" * 400, "9" * 5000, ".inf", ".nan",
    "2024-13-45", "2024-01-01", "12:30:45", "!!timestamp x", "!!int ''", "!!float x", "!!bool x", "!!binary aGVsbG8=",
    "!!set {a, b}", "!foo x", "[", "[]", "{}", "[[1], 2]", "[1, [2]]", "[.nan, .inf]", "{low: [1], high: 2}",
    "{low: 0, high: 1, step: 1e-320}", "{low: 0, high: 1, step: 1e-300}", "{low: 1e-320, high: 1}",
    "{low: 0.5, high: " + "9" * 400 + "}", "{low: .inf, high: .inf}", "{choices: [[1], [2]]}", "{choices: [.nan, 1]}",
    "{choices: [{a: 1}, 2]}", "{name: [tpe]}", "{name: tpe, startup_trials: 1e400}", "{name: asha, rungs: [[1]]}",
    "{name: asha, rungs: [" + "9" * 400 + "]}", "{name: asha, reduction_factor: " + "9" * 300 + "}", "{train: 1e300}",
    "&a [*a]", '"a\\0b.pt"', '"**.yaml"', "~nobody/x.pt", "1e400s", "1e400GB", "1e308d", "[" * 3000, "[{lr0: [1]}]",
    "[{freeze: [1]}]", "[{lr0: 2024-01-01}]", "[[defaults]]", "@x", "1 2", "١٢s",
]  # fmt: skip


def read_or_refused(text: str) -> bool:
    """Whether ``text`` is a study, which then survives a round trip; a refusal is one sentence with its place."""
    try:
        spec = parse(text, where="nasty.yaml").spec
    except UsageError as error:
        sentence = str(error)
    else:
        assert StudySpec.model_validate_json(spec.model_dump_json()) == spec
        parse(dump(spec), where="dump")
        return True
    assert sentence.startswith("nasty.yaml")
    assert "\n" not in sentence
    return False


def test_the_study_that_nasty_values_are_put_into_is_one() -> None:
    assert read_or_refused(study())


@pytest.mark.parametrize("key", first(6, KEYS))
def test_a_nasty_value_of_a_key_is_read_or_refused_in_one_sentence(key: str) -> None:
    outcomes = {read_or_refused(study(**{key: value})) for value in NASTY}
    assert False in outcomes


@pytest.mark.parametrize("name", first(2, ["lr0", "optimizer", "freeze", "close_mosaic", "cos_lr", "imgsz"]))
def test_a_nasty_value_of_an_argument_is_read_or_refused_in_one_sentence(name: str) -> None:
    for value in NASTY:
        read_or_refused(study(train=f"{{{name}: {value}}}", search="{degrees: [0, 9]}"))
        read_or_refused(study(search=f"{{{name}: {value}}}"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": "9" * 400}, "line 4: `epochs` is a number too large"),
        ({"epochs": "1e300"}, "line 4: `epochs` must be from 1 to"),
        ({"epochs": "!!timestamp x"}, "line 4: `epochs` has a value that YAML cannot read"),
        ({"search": "{freeze: {low: [1], high: 2}}"}, "line 6: `freeze` must be one plain value"),
        ({"search": "{degrees: {low: 0, high: 1, step: 1e-320}}"}, "line 6: the step of `degrees` must be 1e-06"),
        ({"lease": "1e400s"}, "line 7: `lease` '1e400s' is too long"),
        ({"store_limit": "1e400GB"}, "line 7: `store_limit` '1e400GB' is more than any disk holds"),
        ({"seed": "[" * 3000}, "nested too deeply"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else next(iter(value)),
)
def test_a_refusal_says_line_name_and_reason(changes: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(study(**changes), where="x")
    assert said in str(refused.value)


@pytest.mark.parametrize("value", NASTY)
def test_a_nasty_value_typed_after_try_is_a_point_or_refused_in_one_sentence(value: str) -> None:
    search = {"lr0": Range(low=1e-5, high=1e-2, log=True), "freeze": make_range("freeze", 0, 5)}
    for name in search:
        with pytest.raises(UsageError) as refused:
            parse_point([f"{name}={value}"], search)
        assert "\n" not in str(refused.value)


# ---- more than any study needs ---------------------------------------------------------------------------------------

SCREEN = 1920  # characters
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
TOO_MUCH = {
    "aliases of aliases": LAUGHS,
    "aliases of aliases behind a key": study(start="\n  " + LAUGHS.replace("\n", "\n  ")),
    "an alias in itself": study(start="&a [*a, *a]"),
    "a long list": study(start="[" + "defaults, " * 60_000 + "]"),
    "a long file": study() + "#" * 1_000_000,
    "a long key": "k" * 100_000 + ": 1",
    "long keys": study(train="{" + "k" * 900 + ": {" + "k" * 900 + ": 1}}"),
    "a long name": study(study='"' + "n" * 100_000 + '"'),
    "a long model": study(model='"' + "m" * 100_000 + '"'),
    "a long word": study(train="{optimizer: " + "w" * 100_000 + "}"),
    "a deep one": study(start="[" * 10_000),
    "a deep mapping": study(start="{a: " * 10_000),
    "many flow keys": study(search="{" + "".join(f"k{n}: 1, " for n in range(4000)) + "}"),
}


@pytest.mark.parametrize("what", list(TOO_MUCH))
def test_what_is_more_than_any_study_needs_is_refused_on_less_than_a_screen(what: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(TOO_MUCH[what], where="nasty.yaml")
    assert len(str(refused.value)) < SCREEN
    assert str(refused.value).startswith("nasty.yaml")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.yaml", "taken for a file"),
        ("mine.YML", "taken for a file"),
        ("피" * 85, "has 255 bytes"),
        ("../mine", "a name of at most 100 letters"),
        ("/tmp/mine", "a name of at most 100 letters"),
        ("a" * 101, "a name of at most 100 letters"),
    ],
)
def test_a_study_is_not_named_so_that_no_file_could_be_called_after_it(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"nasty\.yaml, line 1: `study` must .*{said}|{said}"):
        parse(study(study=name), where="nasty.yaml")


def test_sixty_korean_letters_are_a_name() -> None:
    assert parse(study(study="피" * 60), where="x").spec.study == "피" * 60


LINES = study().splitlines()
MARKS = ["&a", "*a", "<<: *a", "- ", "  ", ": ", "{", "}", "[", "]", "|", "?", "\t", "\x00"]
PIECES = st.sampled_from([*LINES, *NASTY, *MARKS])
ROWS = st.lists(PIECES | st.text(max_size=8), max_size=12)
ONE_KEY = st.tuples(st.sampled_from(KEYS), PIECES | st.text(max_size=40)).map(lambda pair: study(**{pair[0]: pair[1]}))
TEXTS = ROWS.map("\n".join) | ROWS.map("".join) | ONE_KEY


@cases(300)
@given(text=TEXTS)
def test_any_text_is_a_study_or_refused_at_once_on_less_than_a_screen(text: str) -> None:
    began, said = time.process_time(), ""
    try:
        parse(text, where="nasty.yaml")
    except UsageError as error:
        said = str(error)
    assert len(said) < SCREEN
    assert time.process_time() - began < 2
