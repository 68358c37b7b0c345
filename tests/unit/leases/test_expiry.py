"""May a trial be taken over? One rule as a table, and what a claimer sees before a silent owner counts as gone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from optuna.trial import create_trial

from petskin_tune.leases.expiry import CONTINUOUS_SECONDS, Gone, Seen, Watch, grace, why_gone
from petskin_tune.leases.lease import AHEAD_SECONDS
from tests.support.studies import a_lease

LEASE = 90.0  # seconds
OVER = grace(LEASE)
A_LEASE = a_lease(create_trial(value=0.5))


@pytest.mark.parametrize(
    ("state", "expires_in", "alive", "expired_for", "declared", "alone", "gone"),
    [
        # an owner of this host: its process is looked at
        ("running", 60.0, True, 0.0, False, False, None),
        ("running", 60.0, False, 0.0, False, False, Gone.DEAD),
        ("running", 60.0, False, 0.0, False, True, Gone.DEAD),
        ("running", -1.0, True, 0.0, False, False, None),
        ("running", -OVER, True, OVER, False, False, Gone.SILENT),  # it lives, but it hangs
        # an owner elsewhere: only its lease can be looked at
        ("running", 60.0, None, 0.0, False, False, None),
        ("running", -3600.0, None, 0.0, False, False, None),  # the first look: everybody may have been cut off
        ("running", -3600.0, None, OVER - 0.1, False, False, None),
        ("running", -3600.0, None, OVER, False, False, Gone.SILENT),
        ("running", 0.0, None, OVER, False, False, None),  # it has not run out
        ("running", 60.0, None, 0.0, False, True, Gone.UNREACHABLE),
        # it ends later than it can last: the clock is behind the one by which it was renewed
        ("running", 10800.0, None, 0.0, False, False, None),
        ("running", 10800.0, None, LEASE + OVER - 0.1, False, False, None),
        ("running", 10800.0, None, LEASE + OVER, False, False, Gone.SILENT),
        ("running", LEASE + AHEAD_SECONDS + 0.1, None, LEASE + OVER, False, False, Gone.SILENT),
        ("running", LEASE + AHEAD_SECONDS, None, LEASE + OVER, False, False, None),
        ("running", 10800.0, True, LEASE + OVER - 0.1, False, False, None),
        ("running", 10800.0, False, 0.0, False, False, Gone.DEAD),
        # what people and owners say
        ("running", 60.0, True, 0.0, True, False, Gone.DECLARED),
        ("running", 60.0, None, 0.0, True, False, Gone.DECLARED),
        ("released", 60.0, True, 0.0, False, False, Gone.RELEASED),
        ("released", -1.0, None, 0.0, True, True, Gone.RELEASED),
    ],
)
def test_why_an_owner_is_gone(
    state: str,
    expires_in: float,
    alive: bool | None,
    expired_for: float,
    declared: bool,
    alone: bool,
    gone: Gone | None,
) -> None:
    lease = replace(A_LEASE, state=state, expires_in=expires_in, seconds=LEASE)
    assert why_gone(Seen(lease, alive, expired_for), declared=declared, alone=alone) is gone


@pytest.mark.parametrize("lease", [3.0, 6.0, 90.0, 600.0])
def test_a_grace_lasts_for_a_renewal_that_was_due_and_one_more_attempt(lease: float) -> None:
    assert lease / 3 < grace(lease) <= lease


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_has_run_out_for_as_long_as_it_was_watched_without_a_gap() -> None:
    clock = Clock()
    watch = Watch(clock)
    lease = replace(A_LEASE, expires_in=-500.0)
    assert [seen.expired_for for seen in watch.read([lease])] == [0.0]
    for second in range(1, 5):
        clock.now += 1.0
        assert [seen.expired_for for seen in watch.read([lease])] == [float(second)]
    clock.now += max(CONTINUOUS_SECONDS, grace(lease.seconds) / 3) + 0.1  # nobody looked: the owner may have been there
    assert [seen.expired_for for seen in watch.read([lease])] == [0.0]


@pytest.mark.parametrize("gap", [5.5, 12.0])
def test_through_a_database_that_answers_slowly_a_silent_owner_is_gone_all_the_same(gap: float) -> None:
    clock = Clock()
    watch = Watch(clock)
    lease = replace(A_LEASE, expires_in=-500.0, seconds=90.0)
    for _ in range(int(grace(90.0) / gap) + 2):
        (seen,) = watch.read([lease])
        clock.now += gap
    assert seen.expired_for >= grace(90.0)


def test_an_owner_that_renews_is_seen_to_move_and_its_grace_begins_again() -> None:
    clock = Clock()
    watch = Watch(clock)
    lease = replace(A_LEASE, expires_in=-1.0)
    watch.read([lease])
    clock.now += 1.0
    (seen,) = watch.read([replace(lease, beat=lease.beat + 1)])
    assert (seen.moved, seen.expired_for) == (True, 0.0)
    clock.now += 1.0
    (seen,) = watch.read([replace(lease, beat=lease.beat + 1)])
    assert (seen.moved, seen.expired_for) == (True, 1.0)
    watch.begin_again()
    (seen,) = watch.read([replace(lease, beat=lease.beat + 1)])
    assert (seen.moved, seen.expired_for) == (True, 0.0)


def test_a_lease_that_ends_too_late_is_watched_until_its_owner_renews_it() -> None:
    clock = Clock()
    watch = Watch(clock)
    lease = replace(A_LEASE, expires_in=10800.0, seconds=LEASE)
    watch.read([lease])
    clock.now += 4.0
    (seen,) = watch.read([lease])
    assert seen.expired_for == 4.0
    clock.now += 4.0
    (seen,) = watch.read([replace(lease, beat=lease.beat + 1, expires_in=LEASE)])  # by this clock
    assert (seen.moved, seen.expired_for) == (True, 0.0)
