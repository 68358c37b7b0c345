from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.training.pictures.choice import SHOWN, Labelled, choose

CLASSES = frozenset(range(5))


def a_split(count: int, classes: int = 3, seed: int = 0) -> dict[str, Labelled]:
    draw = random.Random(seed)
    found = {}
    for index in range(count):
        objects = draw.randint(1, 4)
        kinds = frozenset(draw.randrange(classes) for _ in range(objects))
        found[f"images/val/{index:04d}.jpg"] = Labelled(kinds, objects, draw.uniform(0.01, 0.5))
    return found


def test_the_choice_is_the_same_in_whatever_order_files_lie_and_another_for_another_seed() -> None:
    images = a_split(200)
    turned = dict(reversed(images.items()))
    assert choose(images, 1) == choose(turned, 1)
    assert choose(images, 1) != choose(images, 2)
    assert len(set(choose(images, 1))) == SHOWN


def test_a_class_of_one_image_among_many_is_shown() -> None:
    images = a_split(500) | {"images/val/rare.jpg": Labelled(frozenset({7}), 1, 0.2)}
    assert choose(images, 0)[0] == "images/val/rare.jpg"


@given(st.lists(st.frozensets(st.integers(0, 11), max_size=3), min_size=1, max_size=60), st.integers(0, 9))
def test_every_class_is_shown_where_there_are_no_more_than_places(kinds: list[frozenset[int]], seed: int) -> None:
    images = {f"{index}.jpg": Labelled(found, len(found)) for index, found in enumerate(kinds)}
    chosen = choose(images, seed)
    assert len(chosen) == len(set(chosen)) == min(SHOWN, len(images))
    assert frozenset().union(*(images[name].classes for name in chosen)) == frozenset().union(*kinds)


def test_the_smallest_object_the_most_objects_and_an_image_without_any_are_among_them() -> None:
    images = a_split(300)
    images["tiny.jpg"] = Labelled(frozenset({0}), 1, 0.0001)
    images["crowd.jpg"] = Labelled(frozenset({0}), 40, 0.02)
    images["nothing.jpg"] = Labelled(frozenset(), 0)
    assert {"tiny.jpg", "crowd.jpg", "nothing.jpg"} <= set(choose(images, 3))


def test_of_more_classes_than_places_those_images_are_shown_that_have_most() -> None:
    images = {f"{index}.jpg": Labelled(frozenset({index}), 1) for index in range(40)}
    images["many.jpg"] = Labelled(frozenset(range(40)), 40)
    assert choose(images, 0)[0] == "many.jpg"
