"""``petskin-tune doctor``: can this study run here, how long will it take, and how much room does it need.

Nothing is written to the study. A few real batches are trained in a process of their own, see ``probe``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from petskin_tune import text as words
from petskin_tune.commands.options import data_here, in_a_language, on_a_study, one_sentence, typed_data
from petskin_tune.errors import EXIT_DONE, EXIT_USAGE
from petskin_tune.language import _, several
from petskin_tune.opening.places import Places, warn_of_visible_password

if TYPE_CHECKING:
    from petskin_tune.doctor.examination import Examination
    from petskin_tune.study.spec import StudySpec


@click.command()
@on_a_study()
@data_here
@in_a_language
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
        counted = several(problems, _("{count} problem"), _("{count} problems"))
        click.echo(_("{problems}: the study cannot run here yet").format(problems=counted))
        return EXIT_USAGE
    click.echo(_("next, type: {command}").format(command=f"{places.to_type('tune-worker')}{typed_data(data)}"))
    return EXIT_DONE


def _expectations(found: Examination) -> Iterator[str]:
    """What a study of these figures will see here; nothing where no batch was trained."""
    from petskin_tune.doctor.estimate import FEWEST_TRIALS, fits_a_session, of_the_study, suggestions
    from petskin_tune.doctor.examination import marked
    from petskin_tune.study.extent import begun_here, extent

    measured = found.probe.measured if found.probe else None
    if measured is None or (figures := found.figures) is None:
        return
    spec = found.spec
    train, val = found.images
    yield _(
        "an epoch: {time} ({train} images at {rate:.3g} a second, and {val} to validate); a snapshot: {size}"
    ).format(
        time=words.duration(figures.epoch),
        train=train,
        rate=measured.images_per_second,
        val=val,
        size=words.size(measured.snapshot_bytes),
    )
    epochs = several(spec.epochs, _("{count} epoch"), _("{count} epochs"))
    yield _("a full trial of {epochs}: {time}").format(epochs=epochs, time=words.duration(figures.full_trial))
    done = extent(spec, begun_here(found.study.trials()) if found.study else ())
    yield of_the_study(done, figures)
    ways = suggestions(spec, figures, train, val)
    if ways or not fits_a_session(done, figures):
        yield _(
            "a session of 24 hours: about {trials:.0f} trials {chosen}, {epochs:.3g} epochs each on average"
        ).format(trials=figures.trials, chosen=_with(spec), epochs=figures.epochs_of_a_trial)
    if ways:
        few = _("that is fewer than {fewest}; any one of these makes room for them: {ways}")
        yield marked("warning", few.format(fewest=FEWEST_TRIALS, ways="; ".join(ways)))


def _with(spec: StudySpec) -> str:
    """What decides how long a trial trains."""
    if spec.sampler.name == "freeze-thaw":
        return _("with the sampler freeze-thaw")
    return _("with the pruner {name}").format(name=spec.pruner.name)
