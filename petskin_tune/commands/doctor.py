"""``petskin-tune doctor``: can this study run here, how long will it take, and how much room does it need.

Nothing is written to the study. A few real batches are trained in a process of their own, see ``probe``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from petskin_tune import text as words
from petskin_tune.commands.options import data_here, on_a_study, one_sentence
from petskin_tune.errors import EXIT_DONE, EXIT_USAGE
from petskin_tune.opening.places import Places, warn_of_visible_password

if TYPE_CHECKING:
    from petskin_tune.doctor.examination import Examination
    from petskin_tune.study.spec import StudySpec


@click.command()
@on_a_study()
@data_here
@one_sentence
def doctor(places: Places, data: str | None) -> int:
    """Check whether the study can run here, and how long it takes.

    Exit code 2 when it cannot.
    """
    from petskin_tune.doctor import checks
    from petskin_tune.doctor.examination import Examination
    from petskin_tune.opening.lookup import resolve
    from petskin_tune.study.wanted import wanted

    found = Examination(places, data, wanted(places.study), resolve(places), click.echo)
    try:
        if found.home.network and found.home.is_there:
            found.home.start("reader", say=click.echo)
        problems = 0
        for check in checks.run(found):
            click.echo(str(check))
            problems += check.verdict == "problem"
        for line in _expectations(found):
            click.echo(line)
    finally:
        found.pulse.close()
        found.home.close()
    warn_of_visible_password(places)
    if problems:
        click.echo(f"{words.counted(problems, 'problem')}: the study cannot run here yet")
        return EXIT_USAGE
    click.echo(f"next, type: {places.to_type('tune-worker')}")
    return EXIT_DONE


def _expectations(found: Examination) -> Iterator[str]:
    """What a study of these figures will see here; nothing where no batch was trained."""
    from petskin_tune.doctor.estimate import FEWEST_TRIALS, fits_a_session, of_the_study, suggestions
    from petskin_tune.study.extent import begun_here, extent

    measured = found.probe.measured if found.probe else None
    if measured is None or (figures := found.figures) is None:
        return
    spec = found.spec
    train, val = found.images
    yield (
        f"an epoch: {words.duration(figures.epoch)} ({train} images at {measured.images_per_second:.3g} a second, and "
        f"{val} to validate); a snapshot: {words.size(measured.snapshot_bytes)}"
    )
    yield f"a full trial of {words.counted(spec.epochs, 'epoch')}: {words.duration(figures.full_trial)}"
    done = extent(spec, begun_here(found.study.trials()) if found.study else ())
    yield of_the_study(done, figures)
    ways = suggestions(spec, figures, train, val)
    if ways or not fits_a_session(done, figures):
        yield (
            f"a session of 24 hours: about {figures.trials:.0f} trials {_with(spec)}, "
            f"{figures.epochs_of_a_trial:.3g} epochs each on average"
        )
    if ways:
        yield f"warning  that is fewer than {FEWEST_TRIALS}; any one of these makes room for them: {'; '.join(ways)}"


def _with(spec: StudySpec) -> str:
    """What decides how long a trial trains."""
    if spec.sampler.name == "freeze-thaw":
        return "with the sampler freeze-thaw"
    return f"with the pruner {spec.pruner.name}"
