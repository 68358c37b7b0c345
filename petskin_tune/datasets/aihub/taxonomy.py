"""AI-Hub 561's classes, and the ways in which its files write them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

ASYMPTOMATIC = "A7"  # no lesion: an image of it is background, never an object


@dataclass(frozen=True)
class Lesion:
    """A class that is learned. ``species`` are the letters of the animals that have it in this data set."""

    code: str
    english: str
    korean: str
    species: str


LESIONS = (
    Lesion("A1", "papule_plaque", "구진_플라크", "D"),
    Lesion("A2", "dandruff_scale_epidermal_collarette", "비듬_각질_상피성잔고리", "DC"),
    Lesion("A3", "lichenification_hyperpigmentation", "태선화_과다색소침착", "D"),
    Lesion("A4", "pustule_acne", "농포_여드름", "DC"),
    Lesion("A5", "erosion_ulcer", "미란_궤양", "D"),
    Lesion("A6", "nodule_mass", "결절_종괴", "DC"),
)
SPECIES = {"D": "반려견", "C": "반려묘"}  # dog, cat: the folders' names
ASYMPTOMATIC_KOREAN = "무증상"

_CODE = re.compile(r"\s*A\s*([1-7])(?!\d)", re.IGNORECASE)
_HANGUL = re.compile(r"[^가-힣]+")
_BY_KOREAN = {_HANGUL.sub("", lesion.korean): lesion.code for lesion in LESIONS} | {ASYMPTOMATIC_KOREAN: ASYMPTOMATIC}


def class_code(text: object) -> str | None:
    """The class that a label means (``A4_농포_여드름``, ``A1_구진/플라크``, ``a 4``, ``농포 여드름``); None if none."""
    if not isinstance(text, str):
        return None
    text = unicodedata.normalize("NFC", text)
    if found := _CODE.match(text):
        return f"A{found.group(1)}"
    return _BY_KOREAN.get(_HANGUL.sub("", text))


def lesions_of(species: str) -> tuple[str, ...]:
    """The codes of the classes that the given species (letters of SPECIES) have."""
    return tuple(lesion.code for lesion in LESIONS if set(species) & set(lesion.species))
