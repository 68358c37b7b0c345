"""The import from end to end. Killed at any instant and called again, it ends with the same bytes.

What makes it so: nothing depends on the order in which anything is found or done; every file is whole or not there;
pictures wait in a pool, under names of their own, until all of them are known and the splits can be drawn; and
``data.yaml`` comes last. Label files are read anew after a death, which takes a minute for half a million.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petskin_tune.datasets.aihub import catalogue as catalogues
from petskin_tune.datasets.aihub import conversion, selection, splitting, writing
from petskin_tune.datasets.aihub.catalogue import Catalogue
from petskin_tune.datasets.aihub.members import Listing, list_sources
from petskin_tune.datasets.aihub.options import Options
from petskin_tune.datasets.aihub.report import Report, summary
from petskin_tune.datasets.aihub.writing import KEPT, Placed
from petskin_tune.datasets.archives.writing import require_writable_archive, write_archive
from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import claim, only_one, write_whole
from petskin_tune.files.paths import is_file, resolved, typed

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is, how much there is

REPORT = "import_report.json"
SUMMARY = "import_report.txt"
_ORDER = "import.json"  # what the import was asked for, and of what
_WORK = ".import"  # in the destination, until it is complete
_ONLY_PLACES = ("val", "test", "seed")  # options that decide nothing of the pool


@dataclass(frozen=True)
class Imported:
    """The outcome: the data set, its report (as in ``import_report.json``) and the same as text."""

    data_yaml: Path
    report: dict[str, Any]
    summary: str
    already_there: bool = False  # a former run had done all of it


def import_aihub(
    sources: Sequence[Path],
    dest: Path,
    options: Options,
    *,
    jobs: int = 1,
    archive: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Imported:
    """Make a YOLO segmentation data set of an AI-Hub 561 download.

    Args:
        sources: folders or zips, as the download wrote them; zips inside folders are read too, none is unpacked.
        dest: folder of the data set: new, empty, or left by an unfinished import with the same options.
        options: what to take and how to write it.
        jobs: processes; the outcome does not depend on their number.
        archive: also write the data set into this one .tar, for a network disk.
        progress: called often, from this process.

    Raises:
        UsageError: a source or ``dest`` is not what it must be, nothing is left to import, or val would be empty.
    """
    dest = resolved(typed(dest))
    sources = [resolved(typed(source)) for source in sources]
    if any(dest.is_relative_to(source) for source in sources if source.is_dir()):
        raise UsageError(f"{dest} lies inside the source; give a folder elsewhere.")
    if archive is not None:
        require_writable_archive(dest, archive)
    listing = list_sources(sources)
    is_new = not dest.exists()
    with only_one(dest, wait=False):
        order = {**options.to_json(), "source": listing.signature()}
        claim(dest, _ORDER, order, may_change=() if (dest / "images").exists() else _ONLY_PLACES)
        try:
            imported = _former(dest) or _import(listing, dest, options, jobs, progress)
        except UsageError:
            _leave_if_nothing_was_done(dest, is_new)
            raise
        shutil.rmtree(dest / _WORK, ignore_errors=True)
        if archive is not None:
            write_archive(dest, archive, lambda done, total: progress("writing archive", done, total))
    return imported


def _leave_if_nothing_was_done(dest: Path, is_new: bool) -> None:
    """Give the folder back, so that the same command with better options finds it as it was.

    Args:
        dest: of the import.
        is_new: whether it was made for it.
    """
    if not (dest / "images").exists() and not any((dest / _WORK).rglob("*.jpg")):
        shutil.rmtree(dest / _WORK, ignore_errors=True)
        (dest / _ORDER).unlink()
        if is_new and not any(dest.iterdir()):
            dest.rmdir()


def _former(dest: Path) -> Imported | None:
    """The complete import that is already there; None where it is not complete."""
    if not is_file(dest / "data.yaml") or not (dest / "data.yaml").stat().st_size:
        return None
    try:
        report = json.loads((dest / REPORT).read_text(encoding="utf-8"))
        return Imported(dest / "data.yaml", report, summary(report), already_there=True)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # a power cut has emptied it: it is written again


def _import(listing: Listing, dest: Path, options: Options, jobs: int, progress: Progress) -> Imported:
    work = dest / _WORK
    found = catalogues.build(listing, jobs, lambda done, total: progress("reading labels", done, total))
    choices = selection.select(found, listing, options)
    if not any(not choice.background for choice in choices):
        raise UsageError(f"There is no image of {options.species} with {', '.join(options.codes)} in the source.")
    _split([_expected(choice, options) for choice in choices], choices, options)  # or refuse, before any work
    converted = conversion.convert(
        choices, listing, options, work, jobs, lambda done, total: progress("converting images", done, total)
    )
    outcome = list(zip(choices, converted, strict=True))
    report = Report(options.to_json(), archives=len(listing.archives))
    kept = _distinct(outcome, found, options, report)
    _require_lesions(kept, [done.reason for _, done in outcome if done.reason])
    placed = _placed(kept, options, report)
    for item in placed:
        found.fates[item.choice.entry.label] = found.fates[item.choice.entry.image] = KEPT
    writing.count(report, found, listing, placed)
    report.check()
    writing.place(placed, dest, work / "pool", lambda done, total: progress("placing images", done, total))
    return _write_records(placed, listing, found, report, options, dest)


def _write_records(
    placed: Sequence[Placed], listing: Listing, found: Catalogue, report: Report, options: Options, dest: Path
) -> Imported:
    content = report.to_json()
    writing.write_groups(placed, dest)
    writing.write_files(listing, found.fates, placed, dest)
    write_whole(dest / SUMMARY, summary(content))
    write_whole(dest / REPORT, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    data_yaml = writing.write_data_yaml(options, report.splits, dest)
    return Imported(data_yaml, content, summary(content))


def _distinct(
    outcome: Sequence[tuple[selection.Choice, conversion.Converted]],
    found: Catalogue,
    options: Options,
    report: Report,
) -> list[tuple[selection.Choice, conversion.Converted]]:
    """Without what could not be converted, and one of each set of identical images: the first by name.

    With AI-Hub's own split, one for each side: its leaks are reported and not healed.
    """
    first: dict[tuple[str, str], conversion.Converted] = {}
    kept = []
    for choice, converted in outcome:
        side = choice.entry.split if options.keep_split else ""
        keys = [(side, digest) for digest in (converted.digest, converted.written)]
        twin = next((first[key] for key in keys if key in first), None)
        reason = converted.reason
        if reason is None and twin is not None:
            reason = "identical to another image"
            if twin.rows != converted.rows:
                report.notes["identical image with other labels dropped"] += 1
        if reason is not None:
            found.fates[choice.entry.label] = found.fates[choice.entry.image] = reason
            continue
        first.update(dict.fromkeys(keys, converted))
        kept.append((choice, converted))
    return kept


def _require_lesions(kept: Sequence[tuple[selection.Choice, conversion.Converted]], reasons: Sequence[str]) -> None:
    if not any(done.objects for _, done in kept):
        commonest, count = Counter(reasons).most_common(1)[0]
        raise UsageError(f"No image with a lesion is left; the commonest reason is, {count} times: {commonest}.")


def _placed(
    kept: Sequence[tuple[selection.Choice, conversion.Converted]], options: Options, report: Report
) -> list[Placed]:
    classes = {done.objects: frozenset(options.codes.index(code) for code, _ in done.objects) for _, done in kept}
    samples = [
        splitting.Sample(choice.entry.group, (done.digest, done.written), classes[done.objects])
        for choice, done in kept
    ]
    splits = _split(samples, [choice for choice, _ in kept], options)
    leaks = splitting.find_leaks(samples, splits)
    if leaks and not options.keep_split:
        raise RuntimeError(f"the split leaks: {leaks}")
    report.leaking_groups, report.leaking_images = leaks.groups, leaks.images
    return [Placed(choice, done, split) for (choice, done), split in zip(kept, splits, strict=True)]


def _expected(choice: selection.Choice, options: Options) -> splitting.Sample:
    """What is known of an image before it is converted."""
    codes = () if choice.background else choice.entry.codes
    return splitting.Sample(
        choice.entry.group, (), frozenset(options.codes.index(code) for code in codes if code in options.codes)
    )


def _split(samples: Sequence[splitting.Sample], choices: Sequence[selection.Choice], options: Options) -> list[str]:
    splits: list[str] = (
        [choice.entry.split for choice in choices]
        if options.keep_split
        else splitting.assign(samples, options.val, options.test, options.seed)
    )
    way_on = "import without --keep-split" if options.keep_split else "give other shares by --val and --test"
    splitting.require_lesions(samples, splits, way_on)
    return splits
