"""The documents: what they say to type can be typed, what they quote is said, and where they lead is there."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import click
import pytest

from docs import study_file_reference as reference
from petskin_tune.packages import REPOSITORY
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.study_file.choosers import PRUNER_OPTIONS, SAMPLER_OPTIONS
from tests.support.documents import DOCS, commands_in, commands_of_notebook, documents, lines_to_type, parse
from tests.support.places import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
TRANSLATED = sorted((DOCS / "ko").glob("*.md"))
GAP = "\0"  # what a sentence is given when it is said


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", [*documents(), *NOTEBOOKS], ids=name_of)
def test_every_command_of_a_document_can_be_typed(path: Path) -> None:
    found = commands_of_notebook(path) if path.suffix == ".ipynb" else commands_in(path.read_text(encoding="utf-8"))
    for words in found:
        try:
            parse(words)
        except click.exceptions.Exit:  # --help
            pass
        except click.ClickException as refused:
            pytest.fail(f"{' '.join(words)}: {refused.format_message()}")


def test_commands_are_found_where_documents_have_them() -> None:
    typed = "```\nX=1 tune-worker --study a && petskin-tune stop\n```\n"
    text = f"see `petskin-tune show --study S` and `tune-worker`\n{typed}"
    assert commands_in(text) == [
        ["tune-worker", "--study", "a"],
        ["petskin-tune", "stop"],
        ["petskin-tune", "show", "--study", "S"],
    ]
    with pytest.raises(click.ClickException, match="runs"):
        parse(["petskin-tune", "import"])
    with pytest.raises(click.ClickException, match="--studdy"):
        parse(["tune-worker", "--studdy", "x"])
    assert sum(len(commands_in(path.read_text(encoding="utf-8"))) for path in documents()) > 60


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), f"{target} of {path.name}"
        if heading:
            assert heading in anchors(found), f"{target} of {path.name}"


def anchors(path: Path) -> set[str]:
    """The headings of a document as GitHub names them in links."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# ---- the study file --------------------------------------------------------------------------------------------------


def test_the_reference_of_the_study_file_is_the_one_that_the_rules_make() -> None:
    committed = (DOCS / "study-file.md").read_text(encoding="utf-8")
    assert committed == reference.page(), "type: python docs/study_file_reference.py > docs/study-file.md"


def test_the_reference_says_what_every_key_sampler_and_pruner_means() -> None:
    assert set(reference.KEYS) == set(StudySpec.model_fields)
    assert set(reference.SAMPLERS) == set(SAMPLER_OPTIONS)
    assert set(reference.PRUNERS) == set(PRUNER_OPTIONS)
    assert {name for names in (*SAMPLER_OPTIONS.values(), *PRUNER_OPTIONS.values()) for name in names} == set(
        reference.OPTIONS
    )


# ---- troubleshooting -------------------------------------------------------------------------------------------------


def said() -> list[str]:
    """Every text that the package can say, with GAP for what it is given."""
    texts = []
    for path in (PROJECT / "petskin_tune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"\{\w*\}", GAP, node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
                texts.append("".join(map(str, parts)))
    return texts


@pytest.fixture(scope="module")
def everything_said() -> list[str]:
    return said()


def is_said(sentence: str, texts: list[str]) -> bool:
    """Whether one text has all parts of the sentence in its order; `…` stands for anything."""
    pattern = re.compile(".*".join(map(re.escape, sentence.split("…"))), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def quoted(path: Path) -> list[str]:
    return re.findall(r"^### `(.+)`$", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(DOCS.rglob("troubleshooting.md")), ids=name_of)
def test_every_sentence_of_troubleshooting_is_one_that_is_printed(path: Path, everything_said: list[str]) -> None:
    sentences = quoted(path)
    assert len(sentences) > 20
    assert [sentence for sentence in sentences if not is_said(sentence, everything_said)] == []
    assert not is_said("The study … was begun with another file", everything_said)


# ---- Korean ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TRANSLATED, ids=name_of)
def test_a_translation_says_to_type_what_the_english_says_in_its_order(path: Path) -> None:
    english = (DOCS / path.name).read_text(encoding="utf-8")
    korean = path.read_text(encoding="utf-8")
    assert lines_to_type(korean) == lines_to_type(english)
    assert quoted(path) == quoted(DOCS / path.name)
    assert len(re.findall(r"^##+ ", korean, re.MULTILINE)) == len(re.findall(r"^##+ ", english, re.MULTILINE))
    assert re.search("[가-힣]", korean)


def test_the_korean_readme_types_what_the_english_one_does_and_names_the_same_commands_options_and_tests() -> None:
    english, korean = ((PROJECT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
    assert lines_to_type(korean) == lines_to_type(english)
    assert len(re.findall(r"^##+ ", korean, re.MULTILINE)) == len(re.findall(r"^##+ ", english, re.MULTILINE))
    translated = english.partition("## How it is built")[0]  # the Korean one leads there
    for part in (r"^\| (`.+?`) \| ", r"`(--[\w-]+)`", r"`(tests/[\w/.]+)`"):
        assert set(re.findall(part, korean, re.MULTILINE)) == set(re.findall(part, translated, re.MULTILINE)), part


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_says_in_korean_what_it_says_in_english(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] != "markdown" or cell["id"] == "badge":
            continue
        paragraphs = [part for part in text.split("\n\n") if not part.startswith("# ")]
        korean = [part for part in paragraphs if re.search("[가-힣]", part)]
        assert 2 * len(korean) == len(paragraphs), f"{cell['id']} has a paragraph in one language only"
        english = [part for part in paragraphs if part not in korean]
        for part in (r"`[^`]+`", r"\d+"):
            assert re.findall(part, " ".join(korean)) == re.findall(part, " ".join(english)), cell["id"]


# ---- where the project is --------------------------------------------------------------------------------------------


def address() -> str:
    """Of the repository: the one setting in pyproject.toml."""
    (found,) = re.findall(r'^Repository = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    return found


def test_the_address_of_the_repository_is_the_same_wherever_it_is_written() -> None:
    for path in [*documents(), *NOTEBOOKS, *(PROJECT / "deploy").glob("*")]:
        text = path.read_text(encoding="utf-8")
        text = text.replace("https://colab.research.google.com/github/", "https://github.com/")  # reads notebooks there
        for found in re.findall(r"https://(?:github|raw\.githubusercontent)\.com/[\w.-]+/[\w.-]+", text):
            assert found.startswith(("https://github.com/ultralytics/", address())), f"{found} in {path.name}"
    assert address() == REPOSITORY


@pytest.mark.parametrize("name", ["README.md", "README.ko.md", "docs/first-day.md", "docs/ko/first-day.md"])
def test_who_has_only_a_browser_finds_a_link_that_opens_the_notebook_in_colab(name: str) -> None:
    """A link to the file shows its text, and leaves one to guess how it is run."""
    repository = address().removeprefix("https://github.com/")
    opens = f"(https://colab.research.google.com/github/{repository}/blob/main/notebooks/colab.ipynb)"
    assert opens in (PROJECT / name).read_text(encoding="utf-8")


def test_nobody_is_told_to_install_the_package_from_an_index_that_does_not_have_it() -> None:
    for path in [*documents(), *(PROJECT / "petskin_tune").rglob("*.py")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install (-U )?['\"]?petskin-tune(?! @ )", line), f"{path.name}: {line}"


def test_nothing_is_to_be_typed_into_a_block_of_an_unknown_kind() -> None:
    for path in documents():
        languages = set(re.findall(r"^```(\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert languages <= {"text", "yaml", "python", "sh"}, path.name
