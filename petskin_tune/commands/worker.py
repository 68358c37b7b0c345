"""``tune-worker``: one worker in this process, or one process for each of several devices under it."""

from __future__ import annotations

import logging
import os
import pickle
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from petskin_tune import __version__, variables
from petskin_tune.commands.lazy import FilteredCommand
from petskin_tune.commands.options import (
    data_here,
    max_hours,
    on_a_study,
    on_this_machine,
    one_sentence,
)
from petskin_tune.error_text import masked_word
from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, UsageError
from petskin_tune.interrupts import Interrupted, Signals, end_now, end_with_parent, unless
from petskin_tune.opening.places import Places, warn_of_visible_password
from petskin_tune.printable import printable
from petskin_tune.views.stream import filtered_output

if TYPE_CHECKING:
    from petskin_tune.opening.study import Opened
    from petskin_tune.study.spec import StudySpec
    from petskin_tune.trial.workplace import Options, Workplace
    from petskin_tune.views.progress import Progress
    from petskin_tune.worker.suspension import Suspension

LONGEST_START_SECONDS = 30.0  # an older process was not started by the command
LAST_COPY_SECONDS = 5.0  # what a network home gets for its last copy, within the time that a suspension may take
SHORTEST_COPY_SECONDS = 1.0  # where the workers took all of it
LONGEST_NAME = 200  # characters of a worker's; the column holds 255, and a device may come behind it
ONE_OF_SEVERAL = "from petskin_tune.commands.worker import one_of_several; one_of_several()"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a person asks of a worker beside the study; see the options of ``tune-worker``."""

    data: str | None = None
    device: str = ""
    name: str | None = None
    max_hours: float | None = None
    target_trials: int | None = None
    budget: str | None = None
    max_trials: int | None = None
    take_over: bool = False
    exact: bool = False
    allow_different_machine: bool = False
    verbose: bool = False
    notify: str | None = field(default=None, repr=False)  # a secret
    command: str = ""  # what a person types again to go on, where it is not `tune-worker`
    typed_device: str | None = None  # of several, which this is one of

    @property
    def typed(self) -> str:
        """Those of the options that a person types again to go on, and that other commands do not take."""
        device = self.device if self.typed_device is None else self.typed_device
        given = {"--data": self.data, "--device": device}
        words = "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)
        if self.exact:
            return f"{words} --exact"
        return f"{words} --allow-different-machine" if self.allow_different_machine else words


class _Name(click.ParamType):
    """A name that the database can hold, also with the device behind it."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if len(value) > LONGEST_NAME or not value.isprintable():
            self.fail(f"a worker's name has at most {LONGEST_NAME} characters, all of them printable.", param, ctx)
        return value


@click.command(name="tune-worker", cls=FilteredCommand)
@on_a_study()
@data_here
@click.option("--device", default="", metavar="D|LIST|all", help="cpu, a GPU, or several: one worker each.")
@click.option("--name", type=_Name(), metavar="WORKER", help="What this worker is called.  [host and process]")
@max_hours
@click.option("--target-trials", type=click.IntRange(min=1), metavar="N", help="Configurations of the study in all.")
@click.option("--budget", metavar="RUNS", help="Full runs that the study may cost in all, or `540 epochs`.")
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="Trials that this worker ends.")
@click.option("--take-over", is_flag=True, help="The owners of running trials are gone: go on with theirs at once.")
@on_this_machine
@click.option("--ephemeral", is_flag=True, help="Use this machine's disk although it is deleted with the session.")
@click.option("--local-checkpoints", is_flag=True, help="Keep snapshots where only this machine finds them.")
@click.option("--notify", metavar="URL|FILE", help="Webhook that is told what happens, a secret.  [TUNE_NOTIFY]")
@click.option("--verbose", is_flag=True, help="Show what goes to the log on the screen, too.")
@click.version_option(__version__, prog_name="tune-worker")
@one_sentence
def tune_worker(places: Places, ephemeral: bool, local_checkpoints: bool, **options: Any) -> int:
    """Work on a study until it is done; typed again, the same command goes on where it stood.

    \b
    Exit codes: 0 the study is done · 75 suspended with work left · 2 wrong usage or
    a study that cannot run · 1 anything unforeseen.
    """
    places = replace(places, ephemeral=ephemeral, local_checkpoints=local_checkpoints)
    with Signals() as signals:  # before the second that the imports below take
        return ended(start_worker(places, Request(**options), signals))


@one_sentence
def one_of_several() -> int:
    """The worker of one of several devices, in a process of its own: what was typed comes from its parent."""
    with filtered_output(), Signals(of_child=True) as signals:
        parent, places, request, typed_at = pickle.load(sys.stdin.buffer)
        end_with_parent(parent)
        return ended(_work(places, request, signals, _since(typed_at)))


def ended(code: int) -> int:
    """The exit code of a worker; one that is suspended ends this process at once."""
    if code == EXIT_SUSPENDED:
        end_now(code)  # the forkserver may still import torch, and Python would wait for it
    return code


def start_worker(places: Places, request: Request, signals: Signals) -> int:
    """Run a worker, or one for each of several devices, to its end. Returns the exit code.

    Args:
        places: where.
        request: of the worker.
        signals: heard from before the imports on.

    Raises:
        UsageError: wrong usage, or a study that cannot run.
    """
    from petskin_tune.identity import process_age
    from petskin_tune.worker.notify import address

    devices = check(request)
    began = time.monotonic() - min(process_age(), LONGEST_START_SECONDS)  # the imports count for its hours
    notify = address(request.notify, os.environ)
    if notify is not None and notify == request.notify:
        click.echo("warning: other users can see the address in --notify (by `ps`); TUNE_NOTIFY hides it", err=True)
    request = replace(request, notify=notify)
    if len(devices) > 1 and signals.came is None:
        return _one_worker_each(devices, places, request, signals, began)
    return _work(places, replace(request, device=devices[0]), signals, began)


def check(request: Request) -> list[str]:
    """The devices that a request names.

    Raises:
        UsageError: one is not here, or it asks for what excludes each other.
    """
    from petskin_tune.worker.devices import device_list

    if request.exact and request.allow_different_machine:
        raise UsageError("Name either --exact or --allow-different-machine: one leaves what the other goes on with.")
    return device_list(request.device)


def _since(typed_at: float) -> float:
    """An instant (UNIX time) before now as this process's monotonic time."""
    return time.monotonic() - max(0.0, time.time() - typed_at)


# ---- one worker ------------------------------------------------------------------------------------------------------


def _work(places: Places, request: Request, signals: Signals, began: float) -> int:
    """Open the study, and work on it until it is done or a signal comes.

    Args:
        places: where.
        request: of the worker.
        signals: heard from before the imports on.
        began: the instant (monotonic) from which ``max_hours`` count.
    """
    from petskin_tune.trial.process.runner import Runner
    from petskin_tune.trial.timings import Deadline
    from petskin_tune.trial.workplace import Workplace
    from petskin_tune.views.screen import open_progress
    from petskin_tune.worker.log import WorkerLog
    from petskin_tune.worker.suspension import Suspension

    log = WorkerLog(verbose=request.verbose)
    logger.info(
        "petskin-tune %s, Python %s, process %d: %s", __version__, sys.version, os.getpid(), _typed(sys.argv, request)
    )
    variables.seconds(variables.GRACE, 0.0)  # or refused, before anything is opened
    view = open_progress(plain=request.verbose)
    signals.before_exit = view.close
    way_on = (
        request.command
        or f"tune-worker --study {shlex.quote(places.study)}{places.typed}{places.typed_for_workers}{request.typed}"
    )
    signals.last_words = printable(f"stopped at once; its trial goes on from the last snapshot. Type: {way_on}")
    try:
        opened = unless(lambda: signals.came is not None, lambda: _open(places, request, view))
        try:
            processes, options = Runner(opened.home.work / "ultralytics"), _options(places, request)
            log.open(opened.home.logs, options.worker, view.note)
            place = Workplace(opened.study, opened.home, processes, view, options, opened.prepared)
        except BaseException:
            opened.home.close(LAST_COPY_SECONDS)
            raise
        deadline = None if options.max_hours is None else Deadline(began, options.max_hours, place.times)
        return _work_until_the_end(place, Suspension(place, deadline), signals, request.notify)
    except Interrupted:
        view.suspended(way_on)
        return EXIT_SUSPENDED
    except UsageError as refusal:
        logger.error("%s", refusal)
        raise
    except Exception:
        logger.exception("this worker ends for a reason that nobody foresaw")
        if log.path:
            view.note(f"this worker's log is {log.path}")
        raise
    finally:
        view.close()
        log.close()


def _open(places: Places, request: Request, view: Progress) -> Opened:
    from petskin_tune.opening.study import open_or_create

    view.doing("opening the study, its data set and its model")
    opened = open_or_create(replace(places, take_over=request.take_over), view.note, request.data)
    if changes := _changes(request, opened.study.spec):
        opened.study.change(**changes)
    return opened


def _changes(request: Request, spec: StudySpec) -> dict[str, int]:
    """What a person asks of the study itself, where it is news to it.

    Raises:
        UsageError: it is not for a study of this kind.
    """
    asked: dict[str, int] = {}
    if request.budget is not None:
        asked = _budget(request.budget, spec)
    if request.target_trials is not None:
        asked["target_trials"] = request.target_trials
    return {key: value for key, value in asked.items() if value != getattr(spec, key)}


def _budget(typed: str, spec: StudySpec) -> dict[str, int]:
    """``--budget`` in epochs, and with it the most configurations, where nobody has said how many.

    Raises:
        UsageError: it is no budget, or the study ends after a number of trials.
    """
    from petskin_tune.study.study_file.choosers import most_configurations
    from petskin_tune.study.study_file.units import parse_budget

    if spec.budget is None or spec.sampler.rungs is None:
        raise UsageError(
            f"--budget is for studies of the sampler `freeze-thaw`; {spec.study} ends after its trials: "
            "give --target-trials."
        )
    try:
        budget = parse_budget(typed, spec.epochs)
    except ValueError as error:
        raise UsageError(f"--budget {error}.") from error
    by_itself = spec.target_trials == most_configurations(spec.budget, spec.sampler.rungs)
    return {"budget": budget} | (
        {"target_trials": most_configurations(budget, spec.sampler.rungs)} if by_itself else {}
    )


def _options(places: Places, request: Request) -> Options:
    from petskin_tune.trial.workplace import Options

    return Options(
        typed=places.typed,
        typed_for_workers=f"{places.typed_for_workers}{request.typed}",
        command=request.command,
        worker=request.name or f"{socket.gethostname()}-{os.getpid()}",
        device=request.device,
        data=request.data,
        max_hours=request.max_hours,
        max_trials=request.max_trials,
        take_over=request.take_over,
        allow_different_machine=request.allow_different_machine,
        exact=request.exact,
    )


def _work_until_the_end(place: Workplace, suspension: Suspension, signals: Signals, notify: str | None) -> int:
    from petskin_tune.worker.news import News
    from petskin_tune.worker.notify import EVERY_SECONDS, Notifier
    from petskin_tune.worker.worker import Worker

    notifier = Notifier(notify)
    news = News(place, notifier)
    signals.tell(suspension.ask)
    try:
        code = Worker(place, suspension, news).work()
        if code == EXIT_DONE and not suspension.asked():
            suspension.close()
            signals.tell(lambda _name: notifier.give_up())  # nothing else is left that would be waited for
        return code
    except UsageError as refusal:
        news.stopped(str(refusal))
        raise
    except Exception as error:
        news.stopped(f"for a reason that nobody foresaw, {type(error).__name__}")
        raise
    finally:
        if not place.home.close(LAST_COPY_SECONDS):
            place.view.note("the home does not answer: its copy of the database is older than what was done here")
        notifier.close(min(EVERY_SECONDS + 1, suspension.seconds_left()))
        suspension.close()


def _typed(words: Sequence[str], request: Request) -> list[str]:
    """What was typed, for the log, without the address that is a secret and without passwords."""
    secret = request.notify
    known = (word if secret is None or secret not in word else word.replace(secret, "***") for word in words)
    return [masked_word(word) for word in known]


# ---- several devices -------------------------------------------------------------------------------------------------


def _one_worker_each(devices: Sequence[str], places: Places, request: Request, signals: Signals, began: float) -> int:
    """Run a worker process for each device. Returns one exit code.

    On a network home this process is the one that owns it, and keeps the copies of its database. Its last copy needs
    time after the workers' end, so their hours begin that much earlier.
    """
    from petskin_tune.opening.lookup import resolve
    from petskin_tune.trial.timings import SIGNAL_SECONDS
    from petskin_tune.worker.devices import WorkerProcesses

    grace = variables.seconds(variables.GRACE, SIGNAL_SECONDS)
    typed_at = time.time() - (time.monotonic() - began)
    home = resolve(places)
    if home.network:
        typed_at -= LAST_COPY_SECONDS
        home.start("owner", take_over=request.take_over, say=print)
    warn_of_visible_password(places)
    workers = WorkerProcesses(signals)
    try:
        requests = _requests(devices, places, request, typed_at)
        return workers.work(ONE_OF_SEVERAL, requests, _requests(devices, places, _of_later(request), typed_at))
    finally:
        home.close(max(SHORTEST_COPY_SECONDS, min(LAST_COPY_SECONDS, grace - workers.seconds_since_sigterm())))


def _of_later(request: Request) -> Request:
    """What a worker is told that takes the place of one that died: not what held for the instant of the command.

    By now the owners of running trials are others, and a person may have changed the study's target or its budget.
    """
    return replace(request, take_over=False, target_trials=None, budget=None)


def _requests(devices: Sequence[str], places: Places, request: Request, typed_at: float) -> dict[str, bytes]:
    """What each device's process is told, see :func:`one_of_several`; its hours count from ``typed_at`` (UNIX time)."""
    places = replace(places, mode="guest")
    requests = {}
    for device in devices:
        own = replace(
            request,
            device=device,
            typed_device=request.device,
            name=f"{request.name}-{device}" if request.name is not None else None,
            take_over=request.take_over and device == devices[0],  # or siblings take from each other
        )
        requests[device] = pickle.dumps((os.getpid(), places, own, typed_at))
    return requests
