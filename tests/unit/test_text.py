from __future__ import annotations

from petskin_tune import text as words


def test_a_name_cannot_begin_a_line_of_its_own() -> None:
    assert words.page(["worker: a\nerror: forged", "", "\x1b[2J"]) == "worker: a\\nerror: forged\n\n\\x1b[2J\n"
