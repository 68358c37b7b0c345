"""Architecture files are judged by the source of whichever Ultralytics is there, not of the newest alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import releases

SMALL = releases.PROJECT / "tests" / "support" / "small-seg.yaml"
BROKEN = "broken-seg.yaml"  # names a layer that no release has
MOST_OF_THEM = 40  # architectures that each release comes with, at least
# In a process of its own, with the release first on the path; Ultralytics is read and never imported.
JUDGE = """
import json, sys
from pathlib import Path
from petskin_tune.errors import UsageError
from petskin_tune.files.model_kinds import read_model
from petskin_tune.study.space.arguments import ultralytics_folder
from petskin_tune.trial.model import layers
from petskin_tune.trial.model.architectures import require_buildable
found = {"folder": str(ultralytics_folder()), "layers": len(layers.names() or ()), "judged": [], "refused": {}}
found |= {name: len(layers.group(name)) for name in ("base_modules", "repeat_modules")}
for path in [*sorted((ultralytics_folder() / "cfg" / "models").rglob("*.yaml")), *map(Path, sys.argv[1:])]:
    if read_model(path) is not None:
        found["judged"].append(path.name)
    try:
        require_buildable(path)
    except UsageError as error:
        found["refused"][path.name] = str(error)
assert "ultralytics" not in sys.modules
print(json.dumps(found))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["8.4.150", releases.OLDER])
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where a release is unpacked, and what is said of its architectures by its own source."""
    source = releases.unpack(request.param, tmp_path_factory.mktemp("release"))
    broken = tmp_path_factory.mktemp("broken") / BROKEN
    broken.write_text(SMALL.read_text().replace("C2f", "C2ff", 1))
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, str(broken)],
        env={**os.environ, "PYTHONPATH": source},
        cwd=releases.PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(source), json.loads(done.stdout)


def test_every_architecture_of_an_older_release_is_accepted_under_its_own_source(
    judged: tuple[Path, dict[str, Any]],
) -> None:
    source, found = judged
    assert Path(found["folder"]) == source / "ultralytics", "another release was read"
    assert [name for name in found["refused"] if name != BROKEN] == []
    assert len(found["judged"]) >= MOST_OF_THEM


def test_the_layers_of_an_older_release_are_read_so_that_something_is_judged(
    judged: tuple[Path, dict[str, Any]],
) -> None:
    _, found = judged
    assert found["layers"] > 100, "its own and those of torch"
    assert found["base_modules"] > 20
    assert found["repeat_modules"] > 5
    assert "names `C2ff`, which this Ultralytics lacks: did you mean `C2f`?" in found["refused"][BROKEN]
