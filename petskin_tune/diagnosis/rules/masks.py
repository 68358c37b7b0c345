"""Masks and classes: outlines that do not fit, and a class that is never found."""

from __future__ import annotations

import numpy as np

from petskin_tune.diagnosis.curves import Curves
from petskin_tune.diagnosis.finding import CLEARLY_FOUND, NOTHING_FOUND, Finding
from petskin_tune.language import _, several

MASK_SHARE = 0.6  # of box mAP50-95, below which masks do not fit; COCO's YOLOv8l-seg has 0.81


def class_never_found(curves: Curves) -> Finding | None:
    """A class whose mask mAP stayed at nothing although the others were learnt; one without a number is not known."""
    missing = [name for name, values in curves.classes.items() if np.max(values) < NOTHING_FOUND]
    best = float(curves.fitness[curves.best])
    if not missing or best < 2 * NOTHING_FOUND:
        return None
    return Finding(
        kind="class-never-found",
        epoch=None,
        message=_(
            "Never found: {names}. Mask mAP of {classes} stayed below {nothing} in all {epochs} epochs, while the mean "
            "reached {best:.3f}."
        ).format(
            names=", ".join(missing),
            classes=several(len(missing), _("{count} class"), _("{count} classes")),
            nothing=NOTHING_FOUND,
            epochs=len(curves),
            best=best,
        ),
        advice=_(
            "See how many labels there are and where they lie (petskin-tune data check). Add images of it, give rare "
            "classes more weight (cls_pw), or leave it out: it costs the mean its share."
        ),
        numbers={"classes": float(len(missing))},
    )


def mask_worse_than_box(curves: Curves) -> Finding | None:
    """Objects are found, but their outlines do not fit."""
    if curves.mask is None or curves.box is None:
        return None
    best = np.argsort(curves.mask)[-3:]
    mask, box = float(np.mean(curves.mask[best])), float(np.mean(curves.box[best]))
    if box < CLEARLY_FOUND or mask > MASK_SHARE * box:
        return None
    return Finding(
        kind="mask-worse-than-box",
        epoch=None,
        message=_(
            "Masks are much worse than boxes: mask mAP {mask:.3f}, box mAP {box:.3f} ({share:.0%} of it; 80 % is "
            "usual)."
        ).format(mask=mask, box=box, share=mask / box),
        advice=_(
            "Objects are found, their outlines do not fit. Try a larger imgsz, mask_ratio=1 or overlap_mask=False, and "
            "see whether the polygons lie on the lesions (petskin-tune data check)."
        ),
        numbers={"mask": mask, "box": box},
    )
