"""Where the dashboard listens, and to whom it answers."""

from __future__ import annotations

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.views.dashboard.names import HERE, Names, checked


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "192.168.1.7", "2001:db8::1"])
def test_an_address_that_others_reach_is_refused_without_a_proxy(host: str) -> None:
    with pytest.raises(UsageError, match=rf"no login, and on {host} everybody .* --behind-proxy"):
        checked(host, behind_proxy=False)
    assert checked(host, behind_proxy=True).address == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2"])
def test_an_address_of_this_machine_alone_needs_none(host: str) -> None:
    assert not checked(host, behind_proxy=False).behind_proxy


@pytest.mark.parametrize("host", ["", "example.com", "127.0.0.1:8080", "10.0.0", "http://10.0.0.5", "0", "x" * 10_000])
def test_what_is_no_address_is_one_short_sentence(host: str) -> None:
    with pytest.raises(UsageError, match=r"^--host takes an IP address") as refused:
        checked(host, behind_proxy=True)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["", "a b", "https://tune.example.com", "tune.example.com:443", "*", ".example.com"])
def test_a_public_name_is_a_host_name(name: str) -> None:
    with pytest.raises(UsageError, match="--public-name takes a host name"):
        checked("10.0.0.5", behind_proxy=True, public=(name,))


def test_a_public_name_without_a_proxy_is_refused() -> None:
    with pytest.raises(UsageError, match="add --behind-proxy"):
        checked("127.0.0.1", behind_proxy=False, public=("tune.example.com",))


def test_behind_a_proxy_numbers_are_answered_and_of_names_only_those_that_were_given() -> None:
    names = checked("0.0.0.0", behind_proxy=True, public=("Tune.Example.com",))
    for host in ("10.0.0.5:8080", "[2001:db8::1]:8080", "127.0.0.1", "localhost:9", "tune.example.com:443"):
        assert names.answers_to(host), host
    for host in ("", "evil.example", "tune.example.com.evil.example", "10.0.0.5.evil.example:8080", "dashboard:8080"):
        assert not names.answers_to(host), host
    assert not HERE.answers_to("10.0.0.5:8080")


def test_pages_of_the_proxy_may_change_the_study_and_those_of_other_addresses_may_not() -> None:
    names = Names("10.0.0.5", behind_proxy=True, public=("tune.example.com",))
    for origin in (None, "https://tune.example.com", "http://10.0.0.5:8080", "http://127.0.0.1:8080"):
        assert names.may_change(origin), origin
    for origin in ("https://evil.example", "null", "http://10.0.0.66", ""):
        assert not names.may_change(origin), origin
