"""Where everything of a user lies: the database, the snapshots and this machine's own working folder.

::

    home = resolve_home(home=None, storage=None, checkpoints=None, environ=os.environ, study="petskin")
    home.start()                 # folders; on a network disk: claim it, bring the database to this machine
    ...                          # work with home.storage_url and home.store_for(...)
    home.epoch_saved()           # after every epoch: the database is copied into a network home, in the background
    home.close()

``--home`` > ``TUNE_HOME`` > ``tune-home`` (:mod:`petskin_tune.home.default`); ``--storage`` > ``TUNE_STORAGE`` > the
database of the home; ``--checkpoints`` > ``TUNE_CHECKPOINTS`` > the store that the study names > the home's
``checkpoints`` folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from petskin_tune.checkpoints import opening
from petskin_tune.database.urls import file_url, read_url
from petskin_tune.errors import UsageError
from petskin_tune.files import temporary
from petskin_tune.files.disks import is_network, local_folder
from petskin_tune.files.durable import StoreError
from petskin_tune.files.paths import is_file, looks_like_url, resolved, typed
from petskin_tune.home.astray import require_not_astray
from petskin_tune.home.default import COPIES, DATABASE, WORK, default_home
from petskin_tune.printable import printable, quoted, raw

if TYPE_CHECKING:
    from petskin_tune.checkpoints.base import Store
    from petskin_tune.home.replica import DatabaseReplica, Mode

CHECKPOINTS = "checkpoints"
IN_THE_HOME = f"home:{CHECKPOINTS}"  # how a study names the store of its own home, wherever that home is mounted
COLAB_DRIVE = Path("/content/drive")

Notebook = Literal["colab", "kaggle"]


@dataclass
class Home:
    """The places in force. Nothing is created before :meth:`start`.

    Attributes:
        folder: what the user named (absolute).
        storage_url: SQLAlchemy URL of the study's database, password included.
        asked_store: the store that the user named; None: the study's own, else the home's.
        work: this machine's own folder for run folders, outboxes and logs; never on a network disk.
        network: whether ``folder`` is on a network or FUSE disk.
        local_checkpoints: whether a store that only this machine sees was insisted upon.
        copied: the home's database, where it is copied into a network home; None: it is used where it lies.
    """

    folder: Path
    storage_url: str
    asked_store: str | None
    work: Path
    network: bool
    local_checkpoints: bool = False
    copied: DatabaseReplica | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def logs(self) -> Path:
        """The folder of workers' logs: in the home, or on this machine where the home is on a network disk."""
        return self.work.parent / "logs"

    @property
    def is_there(self) -> bool:
        """Whether the home's folder exists.

        Raises:
            UsageError: its disk does not answer.
        """
        try:
            return self.folder.is_dir()
        except OSError as error:
            raise UsageError(f"The home {self.folder} does not answer ({error.strerror}): try again later.") from error

    def start(
        self, mode: Mode = "owner", *, take_over: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Create the folders; on a network home also claim it and bring its database to this machine.

        To be called before the database is opened.

        Args:
            mode: ``owner``: a worker; ``guest``: a command that writes, or the worker of one GPU, beside an owner on
                this machine; ``reader``: creates and claims nothing.
            take_over: the user says that whoever claims a network home is gone.
            say: takes one sentence for people.

        Raises:
            UsageError: a folder cannot be created; another worker uses the network home, it does not answer, or none
                of its copies is whole.
        """
        if mode != "reader":
            for folder in (self.folder, self.work):
                _create(folder)
            temporary.place()  # or refused, before anything else is made
        database = self.database
        if database is not None and self._copies_database:
            from petskin_tune.home.replica import DatabaseReplica  # only here: most homes need none of it

            self.copied = DatabaseReplica(self.folder, database, say)
            self.copied.open(mode, take_over=take_over)

    @property
    def database_is_left_over(self) -> bool:
        """Whether a database on this machine is all that is left of a network home that was deleted."""
        return self._copies_database and (self.copied is None or not self.copied.has_home)

    @property
    def _copies_database(self) -> bool:
        """Whether the database on this machine is a copy of the one in a network home."""
        return self.network and self.database is not None and self.database.parent == self.work.parent

    def epoch_saved(self) -> None:
        """The database has something new worth keeping: copy it into a network home soon.

        Raises:
            LeaseLost: another worker has taken the network home over.
        """
        if self.copied is not None:
            self.copied.request_save()

    def require(self) -> None:
        """Make sure that a network home is still this machine's.

        Raises:
            LeaseLost: another worker has taken it over.
        """
        if self.copied is not None:
            self.copied.require()

    def save(self) -> None:
        """Return once a network home has all that the database has.

        To be called before something is deleted that an older copy of the database points to.

        Raises:
            StoreError: the home refuses (:data:`petskin_tune.files.durable.PASSING`).
            LeaseLost: another worker has taken the network home over.
        """
        if self.copied is not None:
            self.copied.save()

    @property
    def is_saved(self) -> bool:
        """Whether the home has all that :meth:`epoch_saved` announced."""
        return self.copied is None or self.copied.is_saved

    def close(self, timeout: float = 60.0) -> bool:
        """Copy the database for the last time, within ``timeout`` seconds; whether the home has everything."""
        return self.copied is None or self.copied.close(timeout)

    def network_store(self, url: str) -> bool | None:
        """Whether a store is on a network disk, where the home knows better than this machine's mounts; else None."""
        return self.network if "://" not in url and Path(url).is_relative_to(self.folder) else None

    @property
    def database(self) -> Path | None:
        """The SQLite file; None when the study is in a database server."""
        return sqlite_file(self.storage_url)

    def open_store(self, recorded: str | None, uid: str | None = None) -> Store:
        """Open the store in force for a study.

        Args:
            recorded: what the study names as its store (:attr:`to_record` of the home that created it); None: new.
            uid: the study's; None: new.

        Raises:
            UsageError: see :meth:`store_for` and :func:`petskin_tune.checkpoints.opening.open_store`.
        """
        try:
            url = self.store_for(recorded, lambda url: uid is not None and bool(opening.open_store(url).entries(uid)))
        except StoreError as error:
            raise UsageError(f"The store {self.asked_store} cannot be looked at: {error}.") from error
        return opening.open_store(url, network=self.network_store(url))

    def store_for(self, recorded: str | None, holds_study: Callable[[str], bool]) -> str:
        """The URL of the store in force for a study.

        Args:
            recorded: what the study names as its store (:attr:`to_record` of the home that created it); None: new.
            holds_study: whether the store of a URL holds anything of this study.

        Raises:
            UsageError: the store asked for is not the study's, or nobody but this machine could read it.
        """
        own = None if recorded is None else self._absolute(recorded)
        asked = self.asked_store
        if asked is not None and own not in (None, asked) and not self.local_checkpoints and not holds_study(asked):
            raise UsageError(
                f"The study keeps its snapshots in {own}, and {asked} holds none of them: leave --checkpoints out, or "
                f"copy the snapshots to {asked} first."
            )
        url = asked or own or self._absolute(IN_THE_HOME)
        self._refuse_store_of_this_machine(url, holds_study)
        return url

    @property
    def to_record(self) -> str:
        """What a new study stores as its store: a URL, or a name that holds wherever this home is mounted."""
        return self.asked_store or IN_THE_HOME

    def _absolute(self, recorded: str) -> str:
        return str(self.folder / CHECKPOINTS) if recorded == IN_THE_HOME else recorded

    def _refuse_store_of_this_machine(self, url: str, holds_study: Callable[[str], bool]) -> None:
        if self.local_checkpoints or "://" in url or is_network(Path(url)):
            return
        if holds_study(url):  # it was insisted upon when the study was begun here
            self.local_checkpoints = True
            return
        if (host := database_host(self.storage_url)) is not None:
            raise UsageError(
                f"The study's database is on {host} but its snapshots would lie on this machine's disk ({url}), where "
                "no other worker could go on with a trial: name a shared store with --checkpoints (s3://, gs:// or a "
                "shared folder), or insist with --local-checkpoints."
            )


def resolve_home(
    home: str | None,
    storage: str | None,
    checkpoints: str | None,
    environ: Mapping[str, str],
    *,
    study: str,
    ephemeral: bool = False,
    local_checkpoints: bool = False,
    command: str = "tune-worker",
) -> Home:
    """Settle where everything lies, from the command line, the environment and the machine.

    Creates nothing but this user's own folder on this machine, where the home is on a network disk.

    ``TUNE_NETWORK_HOME=1`` (or ``0``) overrules what the mounts say about the home's disk.

    Raises:
        UsageError: the machine's disk would be deleted with the session, Drive is not mounted, SQLite would lie on a
            network disk, or a URL cannot be used.
    """
    home = home or environ.get("TUNE_HOME") or None
    storage = storage or environ.get("TUNE_STORAGE") or None
    checkpoints = checkpoints or environ.get("TUNE_CHECKPOINTS") or None
    notebook = hosted_notebook(environ)
    folder = _home_folder(home or default_home())
    # Where a database lies a worker was told to use this disk: other commands may look at it.
    insisted = ephemeral or (command != "tune-worker" and is_file(folder / DATABASE))
    if notebook and not (home or storage or insisted):
        raise UsageError(_deleted_disk(notebook, command, study))
    if notebook == "colab":
        _require_drive(folder)
    forced = environ.get("TUNE_NETWORK_HOME")
    network = is_network(folder) if forced is None else forced == "1"
    local = local_folder(environ) / _short_hash(str(folder)) if network else folder
    if storage is None:
        if printable(str(local)) != str(local) or not _is_utf8(folder):
            raise UsageError(
                f"The home {quoted(folder)} cannot be used: its path is not UTF-8, as that of a database is."
            )
        storage = file_url(local / DATABASE)
        require_not_astray(local / DATABASE)
        _require_not_moved(folder, network=network)
    else:
        read_url(storage)  # refused here, before anything is made
        _refuse_sqlite_on_network(storage)
    work = (local / WORK).absolute()  # trials run in a folder of their own
    temporary.fall_back_on(work)
    return Home(
        folder=folder,
        storage_url=storage,
        asked_store=None if checkpoints is None else opening.store_address(checkpoints),
        work=work,
        network=network,
        local_checkpoints=local_checkpoints,
    )


def _require_not_moved(folder: Path, *, network: bool) -> None:
    """Refuse a home that was copied from another kind of disk, rather than begin its study anew.

    Raises:
        UsageError: says what to type.
    """
    database = folder / DATABASE
    try:
        there = is_file(database)
        moved = there if network else not there and (folder / COPIES).is_dir()
    except OSError:
        return  # a disk that does not answer is told of when it is opened
    if moved:
        from petskin_tune.home.moved import require_not_moved  # only here: most homes need none of it

        require_not_moved(database, network=network)


def _home_folder(home: str) -> Path:
    """The folder that ``--home`` or ``TUNE_HOME`` names.

    Raises:
        UsageError: it is the URL of something else, or holds a control character.
    """
    if "://" in home or looks_like_url(home):
        raise UsageError(
            "A home is a folder of this machine, not a URL: name a bucket by --checkpoints and a database by --storage."
        )
    if re.search(r"[\x00-\x1f\x7f-\x9f]", home):
        raise UsageError(f"The home {home[:80]!r} cannot be used: its name holds a control character.")
    return resolved(typed(home))


def hosted_notebook(environ: Mapping[str, str]) -> Notebook | None:
    """Whether this is a hosted notebook whose disk goes with the session.

    Kaggle is looked for first: its image is built on Colab's.
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in environ or "KAGGLE_URL_BASE" in environ:
        return "kaggle"
    if any(name.startswith("COLAB_") for name in environ):
        return "colab"
    google = importlib.util.find_spec("google")
    places = google.submodule_search_locations if google and google.submodule_search_locations else ()
    return "colab" if any((Path(place) / "colab").is_dir() for place in places) else None


def sqlite_file(storage_url: str) -> Path | None:
    """The file behind a SQLite URL; None for anything else."""
    try:
        return read_url(storage_url).file
    except UsageError:
        return None


def database_host(storage_url: str) -> str | None:
    """The host of a database server on another machine; None when the database is on this one.

    Raises:
        UsageError: this is no database URL.
    """
    return read_url(storage_url).other_machine()


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be created ({error.strerror}): name another place with --home."
        ) from error


def _deleted_disk(notebook: Notebook, command: str, study: str) -> str:
    name, begun = shlex.quote(Path(study).stem), f"{command} --study {shlex.quote(study)}"
    way_on = (
        f"--home {COLAB_DRIVE}/MyDrive/{name}"
        if notebook == "colab"
        else f"--storage postgresql://… --checkpoints s3://BUCKET/{name}"
    )
    return f"This machine's disk is deleted when the session ends. Type: {begun} {way_on}"


def _require_drive(folder: Path) -> None:
    if folder.is_relative_to(COLAB_DRIVE) and not is_network(folder):
        raise UsageError(
            f"Google Drive is not mounted at {COLAB_DRIVE}: run `from google.colab import drive; "
            f"drive.mount('{COLAB_DRIVE}')` in a cell first, then the same command again."
        )


def _refuse_sqlite_on_network(storage: str) -> None:
    file = sqlite_file(storage)
    if file is not None and is_network(file):
        raise UsageError(
            f"SQLite gets damaged on a network disk ({file.parent}): use --home {file.parent} instead of --storage, "
            "which keeps the database on this machine and copies it there."
        )


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _short_hash(text: str) -> str:
    return hashlib.sha256(raw(text)).hexdigest()[:16]
