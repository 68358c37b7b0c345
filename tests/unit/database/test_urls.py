"""Database URLs: what is read, what is refused in a sentence, whose machine it is, and that no secret is printed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.commands.options import Places
from petskin_tune.database.addresses import mask, normalise_url, without_password
from petskin_tune.database.engine import engine_options
from petskin_tune.database.hosts import is_this_machine
from petskin_tune.database.urls import file_url, read_url
from petskin_tune.error_text import masked, masked_url
from petskin_tune.errors import UsageError
from tests.support.fuzzing import cases

SCREEN = 1600  # characters
SECRET = "Hunter2Secret"


def arguments(url: str) -> dict[str, object]:
    """What the driver is called with."""
    parsed = normalise_url(url)
    positional, named = sqlalchemy.create_engine(parsed).dialect.create_connect_args(parsed)
    return {**dict(enumerate(positional)), **named}


# ---- reading ----


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:a%40b%2Fc%25@h:5433/d", {"user": "u", "password": "a@b/c%", "host": "h", "port": 5433}),
        ("postgres://u:a/b?c#d@h/d", {"password": "a/b?c#d", "host": "h", "dbname": "d"}),
        ("POSTGRESQL+psycopg://u@h", {"user": "u", "host": "h"}),
        ("postgresql:///d?host=/run/pg&port=5433", {"host": "/run/pg", "port": "5433"}),
        ("postgresql://%2Frun%2Fpg/d", {"host": "/run/pg", "dbname": "d"}),
        ("postgresql://a,b:5433/d", {"host": "a,b", "port": "5432,5433"}),
        ("postgresql://u:p@/d?host=a:1&host=b:2", {"host": "a,b", "port": "1,2"}),
        ("postgresql:///d?host=a,b&port=1", {"host": "a,b", "port": "1,1"}),
        ("postgresql://[::1]:5433/d", {"host": "::1", "port": 5433}),
        ("postgresql://h/d?service=x&sslmode=disable", {"service": "x", "sslmode": "disable"}),
    ],
)
def test_postgresql_is_called_with_what_the_url_says(url: str, expected: dict[str, object]) -> None:
    assert expected.items() <= arguments(url).items()


@pytest.mark.parametrize("name", ["my%20runs", "a?b", "a#b", "a b", "피부", "100%", "a&b=c", "{x}", "a@b:c"])
def test_a_path_comes_back_whatever_characters_it_holds(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "tune.db"
    assert read_url(file_url(path)).file == path
    assert arguments(file_url(path))[0] == str(path)
    assert mask(normalise_url(file_url(path))) == file_url(path)[:200]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://u:p@Hunter2Secret@h/d", "write an @ in them, and in all that follows, as %40"),
        ("postgresql://u:p@ss/Hunter2Secret@h/d", "as %40"),
        ("postgresql://u:p@h/d?email=Hunter2Secret@x", "as %40"),
        ("postgresql://h:5432/d?password=@Hunter2Secret", "as %40"),
        ("sqlite://runs/tune.db", "sqlite:///runs/tune.db"),
        ("sqlite:runs/tune.db", "sqlite:///runs/tune.db"),
        ("sqlite://u:Hunter2Secret@h/x", "sqlite:///tune.db"),
        ("sqlite:///tune.db?key=Hunter2Secret", "`key`, which SQLite does not know: leave that out"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("postgresql://u:p@h/d?pgbouncer=true&connection_limit=1", "`connection_limit`, `pgbouncer`.*leave that out"),
        ("postgresql://u:p@h/d?slmode=require", "did you mean `sslmode`"),
        ("postgresql://u:p@h/d?passwd=Hunter2Secret", "`passwd`"),
        ("postgresql://u:p@h/d?sslmode=a&sslmode=Hunter2Secret", "cannot be read"),
        ("postgresql://u:Hunter2Secret@h/d\n", "begins or ends with a space or a line end"),
        (" postgresql://u:Hunter2Secret@h/d", "begins or ends with a space or a line end"),
        ("postgresql://u:Hunter2\nSecret@h/d", "control character"),
        ("postgresql://u:Hunter2Secret@h/d%00", "control character"),
        ("postgresql://u:Hunter2Secret\udcff@h/d", "not UTF-8"),
        ("postgresql://u:Hunter2Secret@h:99999/d", "port is no number from 1 to 65535"),
        ("postgresql://u:Hunter2Secret", "port is no number"),
        ("postgresql://a,b/d?port=1,2,3", "more ports than hosts"),
        ("mysql://u:Hunter2Secret@h/d", "mysql://… is neither SQLite nor PostgreSQL"),
        ("host=h password=Hunter2Secret", "not a database URL"),
        ("jdbc:postgresql://h/d?password=Hunter2Secret", "not a database URL"),
    ],
)
def test_what_would_be_misunderstood_is_refused_and_not_quoted(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refusal:
        normalise_url(url)
    assert SECRET not in str(refusal.value)
    assert "Secret" not in str(refusal.value)
    assert SECRET not in Places("x", storage=url).to_type("tune-worker")


# ---- whose machine ----


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql://u:p@192.0.2.1/tune", "192.0.2.1"),
        ("postgresql://u:p@/tune?host=192.0.2.1&port=5432", "192.0.2.1"),
        ("postgresql://u:p@/tune?host=192.0.2.1:5432&host=192.0.2.2:5432", "192.0.2.1"),
        ("postgresql://u:p@localhost/tune?host=192.0.2.1", "192.0.2.1"),
        ("postgresql://u:p@localhost/tune?hostaddr=192.0.2.1", "192.0.2.1"),
        ("postgresql://localhost,db.example.org/tune", "db.example.org"),
        ("postgresql://[2001:db8::1]/tune", "2001:db8::1"),
        ("postgresql://localhost.example.org/tune", "localhost.example.org"),
        ("postgresql://localhost/tune", None),
        ("postgresql://LOCALHOST./tune", None),
        ("postgresql://127.0.1.1/tune", None),
        ("postgresql://[::ffff:127.0.0.1]/tune", None),
        ("postgresql:///tune?host=/run/postgresql", None),
        ("postgresql://%2Frun%2Fpostgresql/tune", None),
        ("postgresql://db.example.org/tune?hostaddr=127.0.0.1", None),
        ("sqlite:///tune.db", None),
    ],
)
def test_it_is_known_whether_a_server_is_another_machine(url: str, host: str | None) -> None:
    assert read_url(url).other_machine({}) == host


def test_libpqs_environment_and_service_files_say_where_a_url_without_a_host_leads(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("# comment\n[tuning]\nhost=db.example.org\nport=5432\n\n[here]\nhost=/run/postgresql\n")
    environ = {"PGSERVICEFILE": str(file)}
    assert read_url("postgresql:///d?service=tuning").other_machine(environ) == "db.example.org"
    assert read_url("postgresql:///d").other_machine({**environ, "PGSERVICE": "tuning"}) == "db.example.org"
    assert read_url("postgresql:///d?service=here").other_machine(environ) is None
    assert read_url("postgresql:///d").other_machine({"PGHOST": "192.0.2.1"}) == "192.0.2.1"
    assert read_url("postgresql://localhost/d").other_machine({"PGHOST": "192.0.2.1"}) is None
    assert read_url("postgresql:///d").other_machine({}) is None


def test_the_rest_of_the_package_knows_hosted_servers_and_poolers_by_every_spelling() -> None:
    neon = "ep-x-pooler.eu-central-1.aws.neon.tech"
    for url in (f"postgresql://u:p@{neon}/d", f"postgresql://u:p@/d?host={neon}"):
        options = engine_options(normalise_url(url))
        assert options["connect_args"]["sslmode"] == "require"
        assert options["poolclass"] is sqlalchemy.NullPool
    supabase = normalise_url("postgresql://u:p@/d?host=aws-0.pooler.supabase.com&port=6543&connect_timeout=3")
    assert engine_options(supabase)["poolclass"] is sqlalchemy.NullPool
    assert "connect_timeout" not in engine_options(supabase)["connect_args"], "the URL has the last word"


@pytest.mark.parametrize("host", ["", "127.1", "0.0.0.0", "::1", "fe80", "a.localhost"])
def test_odd_spellings_of_this_machine(host: str) -> None:
    assert is_this_machine(host) == (host != "fe80")


# ---- masking ----


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:Hunter2Secret@h/d",
        "postgresql://u:p@Hunter2Secret@h/d",
        "postgresql://u:p@ss/Hunter2Secret@h/d",
        "postgresql://h/d?passwd=Hunter2Secret",
        "postgresql://h/d?pass=Hunter2Secret&sslmode=require",
        "postgresql://h/d?PASSWORD=Hunter2Secret",
        "sqlite:////home/a@b/tune.db?key=Hunter2Secret",
        "https://h/x?sig=Hunter2Secret",
    ],
)
def test_a_secret_in_any_part_of_a_url_is_masked(text: str) -> None:
    assert SECRET not in masked_url(text)
    assert SECRET not in masked(f'cannot open "{text}": no')
    assert masked(f'cannot open "{text}": no').endswith('": no')


@pytest.mark.parametrize(
    ("password", "said", "shown"),
    [
        ("tune", 'FATAL: database "tune" does not exist', True),
        ("a", 'connection to server at "127.0.0.1", port 1 failed', True),
        ("server", "connection to server failed", True),
        ("Hunter2Secret", 'could not translate host name "Hunter2Secret"', False),
        ("Hunter 2", "could not translate Hunter%202", False),
    ],
)
def test_what_a_driver_said_is_shown_whole_or_not_at_all(password: str, said: str, shown: bool) -> None:
    url = normalise_url(f"postgresql://u:{quote(password)}@127.0.0.1/tune")
    told = without_password(said, url)
    assert "***" not in told
    assert (told == said) if shown else ("not shown" in told and password not in told)


WORDS = st.sampled_from(
    ["@", "/", ":", "?", "#", "%", "%40", "&", "=", "p", " ", "é", "'", '"', "\\", "[", "]", ",", "\n"]
)
SECRETS = st.tuples(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4)).map(
    lambda parts: "".join(parts[0]) + SECRET + "".join(parts[1])
)
PLACES = st.sampled_from(["h", "h:5432", "h:x", "[::1]", "a,b", "", "/run/pg", "127.0.0.1:1"])
TAILS = st.sampled_from(["", "/", "/d", "/d?sslmode=require", "/d?a=b", "?x", "/d?host=/run", "/%", "/d?&&="])
SCHEMES = st.sampled_from(["postgresql", "postgres", "sqlite", "postgresql+psycopg2", "mysql", "x"])


@st.composite
def urls(draw: st.DrawFn) -> str:
    secret, scheme = draw(SECRETS), draw(SCHEMES)
    if draw(st.booleans()):
        return f"{scheme}://u:{secret}@{draw(PLACES)}{draw(TAILS)}"
    name = draw(st.sampled_from(["password", "pass", "passwd", "PASSWORD", "key", "sslpassword", "options"]))
    return f"{scheme}://{draw(PLACES)}/d?{draw(st.sampled_from(['', 'sslmode=require&']))}{name}={secret}"


def refusal_of(url: str) -> str:
    """What is said where the URL is refused; else what the package makes of it."""
    try:
        parsed = normalise_url(url)
    except UsageError as refusal:
        return str(refusal)
    read_url(url).other_machine({})
    engine_options(parsed)
    return mask(parsed)


@cases(100)
@given(urls())
def test_no_secret_of_any_url_is_printed_and_every_refusal_is_a_sentence(url: str) -> None:
    said = [masked_url(url), Places("x", storage=url).to_type("tune-worker"), refusal_of(url)]
    assert not [text for text in said if SECRET in text]
    assert len(said[-1]) < SCREEN


@cases(100)
@given(st.text(max_size=60) | st.text("sqlite:/postgre%@?&=#[]\0", max_size=60))
def test_any_text_at_all_is_read_or_refused(text: str) -> None:
    assert len(refusal_of(text)) < SCREEN
