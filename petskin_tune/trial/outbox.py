"""Epochs that wait on local disk until the database has them: one append-only file for each trial.

An epoch is written here, and synced, before anything else is done with it. Entries carry the token under which they
were trained. Whoever takes the trial over on this machine answers for those of its direct predecessor; older ones are
dropped, because somebody else may have trained the trial elsewhere in between.

They carry the trial's birth mark as well: once a database was restored from a copy, another trial may have the same
number and the same token. Entries of another birth are dropped; those without a mark were written before it was kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import replacing, sync_folder
from petskin_tune.files.regular import NotRegular, open_regular
from petskin_tune.protocol import EpochDone


class Outbox:
    """The epochs of one trial that were trained on this machine.

    Args:
        path: the file; it need not exist.
        token: of the lease under which this worker holds the trial.
        birth: what no other trial was marked with at its birth; None: it is not known.
    """

    def __init__(self, path: Path, token: int, birth: str | None = None) -> None:
        self.path = path
        self.token = token
        self.birth = birth

    def add(self, epoch: EpochDone) -> None:
        """Append an epoch; it is on disk when this returns.

        Raises:
            OSError: the disk refuses (full, gone).
        """
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_regular(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, follow=False)
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write("\n" + self._line(epoch))  # on a line of its own, whatever a kill has left of the one before
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.path.parent)

    def take_over(self) -> list[EpochDone]:
        """The epochs of this owner and of its direct predecessor, by epoch; they are this owner's from now on.

        Raises:
            UsageError: something else than a file lies there.
        """
        found: dict[int, EpochDone] = {}
        for token, birth, epoch in self._entries():
            if token in (self.token, self.token - 1) and self._may_be_of_this_trial(birth):
                found.setdefault(epoch.epoch, epoch)
        epochs = [found[number] for number in sorted(found)]
        if epochs:
            with replacing(self.path) as file:
                file.write("".join(self._line(epoch) for epoch in epochs).encode())
        else:
            self.discard()
        return epochs

    def discard(self) -> None:
        """Forget everything: the database has it, or the trial is another's."""
        self.path.unlink(missing_ok=True)

    def _may_be_of_this_trial(self, birth: str | None) -> bool:
        return birth is None or self.birth is None or birth == self.birth

    def _line(self, epoch: EpochDone) -> str:
        return json.dumps({"token": self.token, "birth": self.birth, **asdict(epoch)}) + "\n"

    def _entries(self) -> Iterator[tuple[int, str | None, EpochDone]]:
        try:
            with open(open_regular(self.path, follow=False), encoding="utf-8", errors="replace") as file:
                text = file.read()
        except FileNotFoundError:
            return
        except NotRegular as error:
            raise UsageError(f"{self.path} cannot keep the trial's epochs: {error.strerror}; move it away.") from error
        for line in text.split("\n")[:-1]:
            try:
                entry: dict[str, Any] = json.loads(line)
                yield entry.pop("token"), entry.pop("birth", None), EpochDone(**entry)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # cut off by a kill, or of another version: no epoch, it will be trained again
