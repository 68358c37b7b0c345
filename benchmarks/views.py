"""What it costs to look at a study: the report, and the dashboard's study page beside stock optuna-dashboard.

    python benchmarks/views.py [--trials 100 1000 5000] [--epochs 50] [--runs 3]

Every figure is of a process of its own that begins with a study in an SQLite file: seconds from its start, those of
them that it computed (others stretch these less), the size of what it makes, and the most memory that it had. Of
several runs the one counts that computed least: what others do on the machine adds to it, and takes nothing away.
Ours and stock serve the same study with the same optuna-dashboard.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

MAKE = """
import sys
import optuna
from petskin_tune.database.storage import open_storage
from tests.support.made_studies import made
optuna.logging.set_verbosity(optuna.logging.ERROR)
made(int(sys.argv[2]), int(sys.argv[3]), storage=open_storage(sys.argv[1]))
"""

REPORT = """
import optuna
from pathlib import Path
from petskin_tune.database.storage import open_storage
from petskin_tune.views import report
file = Path(sys.argv[1].removeprefix("sqlite:///")).with_suffix(".html")
report.write(optuna.load_study(study_name="made-up", storage=open_storage(sys.argv[1])), file)
done(file.stat().st_size)
"""

OURS = """
import optuna
from petskin_tune.database.storage import open_storage
from petskin_tune.views.dashboard.notes import notes
from petskin_tune.views.dashboard.server import make_server
storage = open_storage(sys.argv[1])
study = optuna.load_study(study_name="made-up", storage=storage)
server = make_server(study._storage, port=0, notes=lambda _: notes(study, ()))
done(*asked(server.get_app()))
"""

STOCK = """
import optuna, optuna_dashboard
from optuna.storages import RDBStorage, get_storage
done(*asked(optuna_dashboard.wsgi(get_storage(RDBStorage(sys.argv[1])))))
"""

AROUND = """
import io, json, resource, sys, time
begin = time.perf_counter()

def asked(application):
    # The study's page asks for its trials; the second time is a refresh.
    sizes, times = [], []
    for _ in range(2):
        since = time.process_time()
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies/1", "QUERY_STRING": "", "HTTP_HOST": "127.0.0.1"}
        environ |= {"SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
        environ["wsgi.input"] = io.BytesIO()
        sizes.append(len(b"".join(application(environ, lambda *answer: None))))
        times.append(time.process_time() - since)
    return sizes[0], times[0], times[1]

def done(size, first=None, again=None):
    seconds = time.perf_counter() - begin
    computed = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pages = {"first": first, "again": again}
    print(json.dumps({"seconds": seconds, "computed": computed, "size": size, "memory": memory, **pages}))

"""


def measured(code: str, *arguments: str, runs: int = 1) -> dict[str, float]:
    """What a process that runs ``code`` says of itself."""
    return min((_measured(code, *arguments) for _ in range(runs)), key=lambda found: found["computed"])


def _measured(code: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-c", AROUND + code, *arguments]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print("| trials | | seconds from its start | computed | first page, a refresh: computed | size | memory |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for trials in options.trials:
            url = f"sqlite:///{folder}/{trials}.db"
            subprocess.run([sys.executable, "-c", MAKE, url, str(trials), str(options.epochs)], cwd=PROJECT, check=True)
            for name, code in (("report", REPORT), ("dashboard, ours", OURS), ("dashboard, stock", STOCK)):
                found = measured(code, url, runs=options.runs)
                pages = "" if found["first"] is None else f"{found['first']:.2f} s, {found['again']:.2f} s"
                print(
                    f"| {trials:,} | {name} | {found['seconds']:.2f} s | {found['computed']:.2f} s | {pages} "
                    f"| {found['size'] / 1e6:.1f} MB | {found['memory'] / 1e6:.0f} MB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
