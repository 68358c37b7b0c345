"""What a person may type: hypothesis strategies made from click's own tree of commands, so that a new option is in it.

Every value is a path, a URL, a number or a text of a kind that has broken programs. Whatever a command may write to is
named within the folder it works in; only what commands read from may name the folder ``../mine`` beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
from hypothesis import strategies as st

from tests.support.click_tree import COMMANDS

HERE = "{HERE}"  # stands for the absolute path of the folder in which a command works
READ = {"study", "data", "source", "sources", "file", "path"}  # parameters that name what a command reads

WITHIN = ["new", "sub/new", "sub/..", "sub/../new", ".", "", "home", f"{HERE}/new", f"{HERE}/home", f"./{HERE}", "~"]
WITHIN += [
    "~/new",
    "data",
    "data/data.yaml",
    "data/images/train",
    "data.zip",
    "text.txt",
    "text.txt/below",
    "study.yaml",
]
WITHIN += ["results.csv", "link", "link/new", "loop", "broken", "fifo", "locked/new", "locked"]
WITHIN += ["/dev/null", "/dev/zero", "/dev/full", "/dev/null/below", "/proc/nowhere", "/dev/zero.yaml"]
WITHIN += [
    "\udcff\udcfe",
    "\udcff.yaml",
    "\ud800",
    "가.yaml",
    "a\x00b",
    "a\x00b.yaml",
    "x" * 300,
    "x/" * 3000,
    "x" * 90_000,
]
WITHIN += [
    "%s%n",
    "%2e",
    "@text.txt",
    "~nobody-here/x",
    "-",
    "--",
    "$HOME",
    "*",
    "?",
    "new?x=1",
    "new#x",
    "\x1b[2J\x07",
]
WITHIN += ["a\nb", "a\rb.yaml", "\u202etxt", " ", "new ", "con:", "C:\\new", "\\", "{0}", "[red]x[/red]", "[/x]"]
BESIDE = ["../mine", "../mine/data", "../mine/data/data.yaml", "../mine/study.yaml", "../mine/best.pt", "../mine/link"]
BESIDE += ["../mine/notes.txt", "tomine", "tomine/data.yaml", "../mine/home/tune.db", f"{HERE}/../mine/data/data.yaml"]
STUDIES = ["petskin", "done", "study.yaml", "bad.yaml", "empty.yaml", "twice.yaml", "demo", "best.pt", "none", "nan"]
DATA = ["data", "data/data.yaml", "data.zip", "bad.zip", "demo", "aihub", "images", "http://127.0.0.1:1/x.zip", "s3://"]
RUNS = ["run", "run/results.csv", "results.csv", "run/args.yaml", "run/weights"]
SQL = [
    "sqlite://",
    "sqlite:///",
    "sqlite:///new.db",
    "sqlite:///home/tune.db",
    f"sqlite:///{HERE}/home/tune.db",
    "sqlite:",
]
SQL += [
    "sqlite:///:memory:",
    "sqlite:////dev/null",
    "sqlite:////dev/zero",
    "sqlite:///fifo",
    "sqlite:///data",
    "sqlite:x",
]
SQL += [
    "sqlite:///file:home/tune.db?mode=ro&uri=true",
    "sqlite:///new.db?timeout=nan",
    "sqlite:///%00",
    "sqlite:///a\x00",
]
SQL += ["sqlite:///new.db?check_same_thread=x", "sqlite:///" + "x" * 300, "sqlite:///text.txt", "sqlite:///\udcff.db"]
SQL += [
    "postgresql://127.0.0.1:1/x",
    "postgresql://u:p%@127.0.0.1:1/x",
    "postgresql://[::1",
    "postgresql://",
    "postgres:",
]
SQL += ["postgresql://127.0.0.1:99999/x", "postgresql://127.0.0.1:-1/x", "postgresql://127.0.0.1:1/x?host=/nowhere"]
SQL += [
    "postgresql://127.0.0.1:1/x?connect_timeout=nan",
    "postgresql://127.0.0.1:1/\udcff",
    "postgresql://u\x00@127.0.0.1:1",
]
SQL += [
    "postgresql+asyncpg://127.0.0.1:1/x",
    "postgresql+psycopg2://127.0.0.1:1/",
    "mysql://u@127.0.0.1:1/x",
    "redis://",
]
SQL += ["sqlite+aiosqlite:///new.db", "://", ":", "http://127.0.0.1:1", "x+y://z", "sqlite:///new.db?x=1&x=2"]
STORES = ["store", f"file://{HERE}/store", "file://new", "file:", "memory://x", "s3://", "s3:///x", "gs://", "gs:///"]
STORES += [
    "ftp://",
    "://",
    "home:",
    "home:checkpoints",
    "home:new",
    "s3:",
    "zip://new",
    "S3://",
    "no-such://x",
    "\x00://",
]
NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "32",
    "64",
    "0.5",
    "1e-9",
    "1e400",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "NaN",
    "-0",
    "+1",
]
NUMBERS += [str(10**30), str(-(10**30)), str(2**31), str(2**63), "1_0", "٣", " 1", "1 ", "0x10", "", "1,5", "9" * 5000]
NUMBERS += ["2024-02-30", "1e", ".", "½", "1\x00", "\udcff", "true", "x" * 90_000]
WORDS = [
    "lr0=0.003",
    "lr0=0.003",
    "optimizer=AdamW",
    "optimizer=None",
    "lr0=nan",
    "lr0=inf",
    "lr0=",
    "=",
    "=1",
    "lr0",
    "x=1",
]
WORDS += [
    "lr0=1e400",
    "lr0=-1",
    f"lr0={'9' * 5000}",
    "lr0=[1]",
    "lr0=2024-02-30",
    "lr0=!!python/name:os.system",
    "lr0={",
]
WORDS += ["optimizer=\udcff", "optimizer=\x00", "lr0==1", "momentum=0.9", "LR0=0.1", "lr0=0.003 ", "optimizer=[SGD]"]
DEVICES = [
    "cpu",
    "cpu",
    "0",
    "0,1",
    "all",
    "-1",
    "",
    ",",
    "cuda:0",
    "mps",
    "0,0",
    "cpu,0",
    "٣",
    str(10**30),
    "9" * 5000,
]
NAMES = ["A1", "A1,A4", "A9", ",", "colab-1", "x" * 201, "이름"]
OTHER_OPTIONS = [
    "--help",
    "--version",
    "--no-such",
    "--stud",
    "-o",
    "-x",
    "--",
    "-",
    "@text.txt",
    "--study",
    "--json=1",
]

_any_text = st.text(st.characters(exclude_characters="/"), max_size=12)  # without "/" it names nothing elsewhere


def _mostly(likely: Sequence[str], others: Sequence[str]) -> st.SearchStrategy[str]:
    """Mostly what has a meaning here, so that what lies behind the first refusal is reached too."""
    rare = st.one_of(st.sampled_from(others), st.sampled_from(others), _any_text)
    return st.integers(0, 5).flatmap(lambda number: rare if number == 5 else st.sampled_from(likely))


OF_NAME = {
    "study": _mostly(["petskin", "petskin", "petskin", "done", "done", "study.yaml"], STUDIES + BESIDE + WITHIN),
    "storage": _mostly(SQL, WITHIN),
    "checkpoints": _mostly(STORES, WITHIN),
    "home": _mostly(["home"], WITHIN),
    "data": _mostly(DATA, BESIDE + WITHIN),
    "source": _mostly([*DATA, "petskin", "done"], BESIDE + WITHIN),  # of `data check`, and `init --from`
    "sources": _mostly(DATA, BESIDE + WITHIN),
    "path": _mostly(RUNS, BESIDE + WITHIN),
    "file": _mostly(STUDIES, BESIDE + WITHIN),
    "point": _mostly(WORDS, WITHIN),
    "device": _mostly(DEVICES, WITHIN),
}
IF_OPTIONAL = {
    "study": 9,
    "home": 9,
    "storage": 1,
    "checkpoints": 1,
    "path": 5,
}  # of ten commands that many have it; others: 3


def _values(parameter: click.Parameter) -> st.SearchStrategy[str]:
    kind = parameter.type
    if parameter.name in OF_NAME:
        return OF_NAME[parameter.name]
    if isinstance(kind, click.Choice):
        return _mostly(list(kind.choices), WITHIN)
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return _mostly(["0", "1", "2", "3", "32", "0.5"], NUMBERS)
    return _mostly(WITHIN, [*NAMES, *NUMBERS])


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """The words of one command; the first is the program's name."""
    name = draw(st.sampled_from([known for known, found in COMMANDS.items() if not isinstance(found, click.Group)]))
    words = name.split()
    for parameter in COMMANDS[name].params:
        often = 9 if parameter.required else IF_OPTIONAL.get(parameter.name or "", 3)
        if draw(st.integers(0, 9)) < often:
            words += _typed(draw, parameter)
    if draw(st.integers(0, 19)) == 0:
        words.insert(draw(st.integers(1, len(words))), draw(st.sampled_from(OTHER_OPTIONS)))
    return words


def _typed(draw: st.DrawFn, parameter: click.Parameter) -> list[str]:
    """A parameter as it is typed."""
    if isinstance(parameter, click.Argument):
        return draw(st.lists(_values(parameter), min_size=1, max_size=1 if parameter.nargs == 1 else 3))
    assert isinstance(parameter, click.Option)
    option = draw(st.sampled_from(parameter.opts))
    if parameter.is_flag:
        return [option]
    value = draw(_values(parameter))
    return [f"{option}={value}"] if option.startswith("--") and draw(st.booleans()) else [option, value]
