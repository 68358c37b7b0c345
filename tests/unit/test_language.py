"""The Korean of `diagnose` and `doctor`: complete, with the values of the English, and of no other command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from petskin_tune import language, packages
from petskin_tune.cli import petskin_tune
from petskin_tune.columns import width
from petskin_tune.diagnosis import explain
from petskin_tune.diagnosis.verdict import findings
from petskin_tune.doctor.checks import _doing
from petskin_tune.doctor.examination import Check
from petskin_tune.language import catalogue, preferred, read_po, several, use
from petskin_tune.protocol import Position
from petskin_tune.study import attributes, environment
from petskin_tune.study.space.arguments import arguments
from petskin_tune.text import done, duration
from tests.support import curves as made
from tests.support.curves import BOX, MASK
from tests.support.sentences import PACKAGE, calls, english, modules_that_translate, placeholders, sentences
from tests.support.studies import a_spec, a_study, add, failing, trained

KOREAN = catalogue("ko")
CATALOGUE = language.CATALOGUES / "ko" / "LC_MESSAGES" / "petskin_tune.po"


# ---- the reader ------------------------------------------------------------------------------------------------------


def test_an_entry_is_read_with_its_continued_lines_escapes_and_comments() -> None:
    text = """
# a comment
msgid ""
msgstr "Language: ko\\n"

#: somewhere.py
#, python-brace-format
msgid "{count} of "
"{total} say \\"no\\"\\n"
msgstr ""
"{total} 중 "
"{count} \\\\ \\t"

msgid "not yet"
msgstr ""
"""
    assert read_po(text) == {'{count} of {total} say "no"\n': "{total} 중 {count} \\ \t", "not yet": ""}


@pytest.mark.parametrize(
    "text",
    [
        'msgid "a"\n',
        'msgstr "a"\n',
        'msgid "a"\nmsgstr "b"\nmsgstr "c"\n',
        'msgid "a"\nmsgid "b"\nmsgstr "c"\n',
        'msgid "a"\nmsgstr "b"\nmsgid "a"\nmsgstr "c"\n',
        'msgid "a"\nmsgstr "b"\n\n"c"\n',
        'msgctxt "a"\nmsgid "a"\nmsgstr "b"\n',
        'msgid "a\nmsgstr "b"\n',
        'msgid "a" b\nmsgstr "b"\n',
    ],
)
def test_what_is_no_entry_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line \d|without a msgstr"):
        read_po(text)


# ---- the language in use ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko"}, "ko"),
        ({"LANG": "ko_KR.eucKR", "LC_MESSAGES": ""}, "ko"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_MESSAGES": "C"}, "en"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LC_ALL": "ko_KR.UTF-8", "LC_MESSAGES": "C", "LANG": "en_US"}, "ko"),
        ({"LANG": "kok_IN"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
    ],
)
def test_the_language_is_that_of_the_first_variable_that_is_set(environment: dict[str, str], expected: str) -> None:
    assert preferred(environment) == expected


def test_a_language_is_spoken_inside_of_the_with_and_english_is_what_stands_in_the_code() -> None:
    assert duration(11_100) == "3 h 5 min"
    with use("ko"):
        assert duration(11_100) == "3시간 5분"
        with use("en"):
            assert duration(11_100) == "3 h 5 min"
        assert done(Position(11, 40)) == "에폭 11 및 에폭 12의 배치 40개"
        assert language._("there is no Korean of this") == "there is no Korean of this"
    assert duration(11_100) == "3 h 5 min"
    assert [several(count, "{count} trial", "{count} trials") for count in (1, 2)] == ["1 trial", "2 trials"]


def test_the_lines_of_the_doctor_stand_under_each_other_in_both_languages() -> None:
    check = Check("trial 7", "warning", "x")
    assert str(check) == "warning  trial 7: x"
    with use("ko"):
        assert str(check) == "주의     트라이얼 7: x"
        assert width(str(check).partition("트")[0]) == 9
        assert _doing("store") == "저장소 항목을 확인하고 있습니다"


# ---- the catalogue ---------------------------------------------------------------------------------------------------


def test_every_sentence_has_its_korean_and_none_is_left_over() -> None:
    spoken = sentences()
    assert {sentence: places for sentence, places in spoken.items() if not KOREAN.get(sentence)} == {}
    assert sorted(set(KOREAN) - set(spoken)) == []
    assert "fuzzy" not in CATALOGUE.read_text(encoding="utf-8")


def test_the_korean_of_a_sentence_is_given_the_same_values() -> None:
    other = {sentence: said for sentence, said in KOREAN.items() if placeholders(sentence) != placeholders(said)}
    assert other == {}


def test_what_a_sentence_tells_to_type_or_to_set_is_the_same_in_korean() -> None:
    keys = {*arguments(), "keep_weights", "store_limit", "TUNE_STORAGE"}
    for sentence, said in KOREAN.items():
        words = re.findall(r"--\w+|\w+", re.sub(r"\{.*?\}", "", sentence))
        typed = re.findall(r"petskin-tune (?:data check|diagnose)|pip install|`[^`]+`", sentence)
        named = [word for word in words if word.startswith("--") or ("_" in word and word in keys)]
        assert [part for part in (*typed, *named) if part not in said] == [], sentence


def test_in_a_module_that_translates_nothing_else_is_called_so() -> None:
    for path, tree in modules_that_translate().items():
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "_"]
        assert [node.lineno for node in names if isinstance(node.ctx, ast.Store)] == [], path
        assert len(names) == len(list(calls(tree))), path


# ---- nothing is left in English --------------------------------------------------------------------------------------

SPEAKING = [
    *sorted((PACKAGE / "doctor").glob("*.py")),
    *sorted(path for path in (PACKAGE / "diagnosis").glob("*.py") if path.name != "troubles.py"),  # of `status`
    PACKAGE / "commands" / "doctor.py",
    PACKAGE / "trial" / "restart.py",
]
NOT_SAID = re.compile(r"pip install |petskin-tune |start point$|; all of it is in$")  # what is typed, kept or cut off


def unspoken(tree: ast.Module) -> Iterator[ast.Constant]:
    """The texts of a module that are neither translated, nor raised, nor documentation."""
    left_out = {id(argument) for call in calls(tree) for argument in call.args}
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            left_out |= {id(part) for part in ast.walk(node)}
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.add(id(node.value))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Thread":
            left_out |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node


@pytest.mark.parametrize("path", SPEAKING, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_sentence_of_the_two_commands_is_said_without_being_translated(path: Path) -> None:
    found = [node for node in unspoken(ast.parse(path.read_text(encoding="utf-8"))) if not NOT_SAID.match(node.value)]
    words = [(node.lineno, node.value) for node in found if re.search(r"[a-z]{2,},? [a-z]{2,}", node.value)]
    assert [(line, text) for line, text in words if text not in KOREAN] == []


def histories() -> Iterator[tuple[str, made.History]]:
    healthy, nothing = made.healthy(0), np.zeros(100)
    yield from {
        "healthy": healthy,
        "short": {name: values[:4] for name, values in healthy.items()},
        "going on": {name: values[:45] for name, values in healthy.items()},
        "young": {name: values[:12] for name, values in (healthy | {MASK: nothing, BOX: nothing}).items()},
        "noisy": made.healthy(0, noise=0.03),
        "late": made.healthy(0, reach=0.95),
        "climbing": made.climbing(),
        "low": made.climbing(lr0=1e-5),
        "overfitted": made.overfitted(),
        "diverging": made.diverging(),
        "growing": made.diverging(value=80.0),
        "collapsed": healthy | {MASK: np.where(np.arange(100) < 60, healthy[MASK], 0.0)},
        "never": made.never_learning(),
        "never, fast": made.never_learning(lr=0.05),
        "never, usual": made.never_learning(lr=1e-3),
        "nothing": healthy | {MASK: nothing, BOX: nothing},
        "cold": made.never_warmed_up(),
        "masks": made.masks_off(),
        "class": healthy | {f"{MASK}/피부염": nothing},
        "stuck": made.seed_project(),
        "stuck, usual": made.seed_project() | {"lr/pg0": np.full(47, 1e-3)},
        "stuck, unknown": {name: values for name, values in made.seed_project().items() if name != "lr/pg0"},
        "boxes": {name: values for name, values in healthy.items() if name != MASK},
    }.items()


def write_run(folder: Path, history: made.History) -> None:
    folder.mkdir()
    rows = [",".join(history), *(",".join(str(value) for value in row) for row in zip(*history.values(), strict=True))]
    (folder / "results.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", list(dict(histories())))
def test_the_diagnosis_of_a_run_leaves_no_english_word_but_names_keys_and_commands(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "run", dict(histories())[name])
    (tmp_path / "run" / "args.yaml").write_text("epochs: 100\n" if name == "going on" else "- 1\n")
    said = CliRunner().invoke(petskin_tune, ["diagnose", str(tmp_path / "run"), "--lang", "ko"])
    assert said.exit_code == 0, said.output
    assert re.search("[가-힣]", said.output)
    assert english(said.output.replace("args.yaml", "").replace("`name: value`", "")) == []


def test_the_diagnosis_of_a_study_leaves_no_english_word_but_names_keys_and_commands() -> None:
    told = dict(histories())
    for names in (
        ["stuck", "stuck", "healthy"],
        ["climbing"] * 3,
        ["diverging"] * 2,
        ["masks", "class"],
        ["never"] * 2,
    ):
        study = a_study(a_spec())
        for index, name in enumerate(names):
            trained(study, told[name], lr0=1e-4 * 3**index)
        failing(study, ["crashed"] * 5)
        add(study, "RUNNING", given_back={"kind": "crashed", "message": "", "detail": "Trace", "log": "/a/b.log"})
        add(study, "FAIL", worker="colab-1", failure={"kind": "data", "message": "", "detail": "", "log": "/a/b.log"})
        add(study, "WAITING")
        with use("ko"):
            said = [explain.of_study(study), *(explain.of_study(study, trial.number) for trial in study.trials)]
        assert [word for text in said for word in english(text)] == []


def test_how_a_machine_differs_is_said_without_an_english_word_but_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded = {"versions": {"ultralytics": "8.4.190", "petskin-tune": "0.1.0"}, "snapshot_format": 1}
    machine = {"versions": {"ultralytics": "8.4.191"}, "snapshot_format": 2}
    monkeypatch.setattr(packages, "here", lambda: machine)
    trained_on = {**recorded, "device_model": "(1)"}
    stored = {attributes.ENVIRONMENT: trained_on, attributes.OTHER_RELEASES: ["8.4.1", "8.4.2"]}
    on_a_device = [{"versions": {}, "device_model": model, "threads": len(model)} for model in ("(1)", "(0000)")]
    device = packages.differences(on_a_device[0], on_a_device[1])
    with use("ko"):
        lines, _refused = environment.news("petskin", stored, [], tmp_path)
        lines.append(packages.said([*device, *packages.differences(recorded, machine)]))
    assert "스냅샷 형식 1 대신 2" in lines[1]
    assert {word for line in lines for word in english(line)} <= {"petskin-tune", "pip", "install"}
    assert packages.said(device) == "threads 6 instead of 3, device (0000) instead of (1)"


# ---- who speaks it ---------------------------------------------------------------------------------------------------


def test_a_locale_chooses_the_language_and_the_option_overrides_it(tmp_path: Path) -> None:
    write_run(tmp_path / "run", made.seed_project())
    for locale, option, expected in [
        ("ko_KR.UTF-8", [], "에폭 5부터 정체(stuck)"),
        ("ko_KR.UTF-8", ["--lang", "en"], "Stuck since epoch 5"),
        ("C.UTF-8", [], "Stuck since epoch 5"),
        ("C.UTF-8", ["--lang", "ko"], "에폭 5부터 정체(stuck)"),
    ]:
        words = ["diagnose", str(tmp_path / "run"), *option]
        assert expected in CliRunner().invoke(petskin_tune, words, env={"LC_ALL": locale}).output


def test_refusals_are_english_in_every_language(tmp_path: Path) -> None:
    words = ["diagnose", str(tmp_path / "nowhere"), "--lang", "ko"]
    refused = CliRunner().invoke(petskin_tune, words)
    assert refused.exit_code == 2
    assert refused.output.startswith("error: There is no ")
    assert not re.search("[가-힣]", refused.output)
    unknown = CliRunner().invoke(petskin_tune, ["diagnose", "x", "--lang", "de"])
    assert (unknown.exit_code, "'de' is not one of 'en', 'ko'" in unknown.output) == (2, True)


def test_what_is_stored_with_a_trial_is_english_under_a_korean_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    assert findings(made.seed_project(), {})["stuck"].startswith("Stuck since epoch 5")


@pytest.mark.parametrize(
    ("value", "how", "said"),
    [
        (0.12345, ".3f", "0.123"),
        (-0.5, "+.4f", "-0.5000"),
        (1e308, ".3f", "1e+308"),
        (-1e308, "+.4f", "-1e+308"),
        (2e307, "+.3f", "+2e+307"),
        (1e300, ".0%", "1e+302%"),
        (float("nan"), ".3f", "nan"),
        (1e308, ".3g", "1e+308"),
    ],
)
def test_a_gigantic_value_is_not_written_out(value: float, how: str, said: str) -> None:
    assert language.figure(value, how) == said
    assert language._(f"{{x:{how}}}, {{count}}").format(x=value, count=3) == f"{said}, 3"
