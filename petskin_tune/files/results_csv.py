"""``results.csv`` as Ultralytics writes it: a header, then one row an epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence


def render(columns: Mapping[str, Sequence[float]]) -> str:
    """The table of ``columns``, all of one length, to six digits; nothing where there is no row.

    Lines end in LF. A comma in a class's name is quoted.
    """
    rows = list(zip(*columns.values(), strict=True))
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{value:.6g}" for value in row] for row in rows)
    return text.getvalue()
