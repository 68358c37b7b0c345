from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
from optuna.trial import FrozenTrial

from petskin_tune.checkpoints.artifacts import Artifacts
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.views.dashboard import storage as dashboard_storage
from petskin_tune.views.dashboard.artifacts import table_of
from petskin_tune.views.dashboard.names import checked
from petskin_tune.views.dashboard.notes import Notes, notes, notes_if_there
from petskin_tune.views.dashboard.server import make_server, serve
from petskin_tune.views.dashboard.storage import LONGEST, DashboardStorage, asked_about
from tests.support.made_studies import made
from tests.support.pictures import kept


@pytest.fixture
def storage(tmp_path: Path) -> PetskinStorage:
    storage = open_storage(f"sqlite:///{tmp_path}/tune.db")
    study = optuna.create_study(storage=storage, study_name="petskin", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("lr0", 0.0, 1.0), n_trials=2)
    return storage


@contextmanager
def serving(storage: Any, **options: Any) -> Iterator[int]:
    server = make_server(storage, port=0, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def port(storage: PetskinStorage) -> Iterator[int]:
    with serving(storage) as port:
        yield port


def ask(
    port: int, method: str, path: str, host: str | None = None, body: bytes | None = None, origin: str | None = None
) -> tuple[int, bytes]:
    answer = answered(port, method, path, host, body, origin)
    return answer.status, answer.read()


def answered(
    port: int, method: str, path: str, host: str | None = None, body: bytes | None = None, origin: str | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    given = {"Host": host, "Origin": origin, "Content-Type": "application/json" if body else None}
    headers = {"Accept-Encoding": "identity"} | {name: value for name, value in given.items() if value}
    connection.request(method, path, body=body, headers=headers)
    return connection.getresponse()


def test_the_study_can_be_read(port: int) -> None:
    status, body = ask(port, "GET", "/api/studies")
    assert status == 200
    assert json.loads(body)["study_summaries"][0]["study_name"] == "petskin"
    assert ask(port, "GET", "/dashboard/studies/1")[0] == 200
    assert len(json.loads(ask(port, "GET", "/api/studies/1")[1])["trials"]) == 2


def test_every_route_of_optuna_dashboard_that_is_not_a_read_is_refused(port: int, storage: PetskinStorage) -> None:
    routes = [route for route in optuna_dashboard.wsgi(storage).routes if route.method != "GET"]
    assert len(routes) >= 10
    for route in routes:
        path = "/".join("1" if part.startswith("<") else part for part in route.rule.split("/"))
        status, body = ask(port, route.method, path, body=b"{}")
        assert (route.rule, status) == (route.rule, 405)
        assert b"start it with --write" in body
    assert [study.study_name for study in optuna.get_all_study_summaries(storage)] == ["petskin"]


def test_without_the_refusal_the_same_request_deletes_the_study(storage: PetskinStorage) -> None:
    """What the wrapper is for: if this fails, optuna-dashboard has learnt to be read-only."""
    app = optuna_dashboard.wsgi(storage)
    environ = {"REQUEST_METHOD": "DELETE", "PATH_INFO": "/api/studies/1", "HTTP_HOST": "evil.example"}
    b"".join(app(environ, lambda *answer: None))
    assert optuna.get_all_study_summaries(storage) == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", "10.0.0.1"])
def test_a_host_that_is_not_this_machine_is_refused(port: int, host: str) -> None:
    status, body = ask(port, "GET", "/api/studies", host=host)
    assert status == 403
    assert b"petskin" not in body


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "LOCALHOST", "[::1]:8080"])
def test_this_machines_own_names_are_answered_whatever_port_a_tunnel_gave_them(port: int, host: str) -> None:
    assert ask(port, "GET", "/api/studies", host=host)[0] == 200


def test_only_127_0_0_1_listens(storage: PetskinStorage) -> None:
    with make_server(storage, port=0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_behind_a_proxy_another_address_listens_and_one_that_is_not_here_is_refused(
    storage: PetskinStorage,
) -> None:
    with make_server(storage, port=0, names=checked("0.0.0.0", behind_proxy=True)) as server:
        assert server.server_address[0] == "0.0.0.0"
    with pytest.raises(UsageError, match=r"This machine has no address 192\.0\.2\.1: .* --host"):
        make_server(storage, port=0, names=checked("192.0.2.1", behind_proxy=True))


def test_behind_a_proxy_no_name_is_believed_that_was_not_given(storage: PetskinStorage) -> None:
    names = checked("127.0.0.1", behind_proxy=True, public=("tune.example.com",))
    with serving(storage, names=names, write=True) as port:
        assert ask(port, "GET", "/api/studies", host="tune.example.com")[0] == 200
        refused, body = ask(port, "GET", "/api/studies", host="evil.example")
        assert refused == 403
        assert b"--public-name" in body
        assert b"petskin" not in body
        rename = {"method": "POST", "path": "/api/studies/1/rename", "body": b'{"study_name": "renamed"}'}
        assert ask(port, **rename, host="tune.example.com", origin="https://evil.example")[0] == 403
        assert ask(port, **rename, host="tune.example.com", origin="https://tune.example.com")[0] in (200, 201)


@pytest.mark.parametrize("behind_proxy", [False, True])
def test_a_redirect_leads_to_no_place_that_a_header_names(storage: PetskinStorage, behind_proxy: bool) -> None:
    with serving(storage, names=checked("127.0.0.1", behind_proxy=behind_proxy)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
        connection.request("GET", "/", headers={"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"})
        answer = connection.getresponse()
    assert (answer.status, answer.getheader("Location")) == (302, "/dashboard")


def test_a_taken_port_is_one_clear_sentence(storage: PetskinStorage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=r"Port \d+ is taken .* --port"):
            make_server(storage, port=taken.getsockname()[1])


def test_serving_says_where_to_look(storage: PetskinStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def stop_at_once(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("petskin_tune.views.dashboard.server._Server.serve_forever", stop_at_once)
    serve(storage, optuna.load_study(study_name="petskin", storage=storage), port=0, say=said.append)
    assert "/dashboard/studies/1 (Ctrl-C ends it)" in said[0]


def test_a_page_that_is_for_looking_only_says_so_and_how_to_change_that(port: int, storage: PetskinStorage) -> None:
    assert b"start it with --write" in ask(port, "GET", "/dashboard/studies/1")[1]
    with serving(storage, write=True) as free:
        assert b"start it with --write" not in ask(free, "GET", "/dashboard/studies/1")[1]


def test_with_write_a_study_can_be_changed_but_not_by_a_page_from_elsewhere(storage: PetskinStorage) -> None:
    with serving(storage, write=True) as port:
        rename = {"method": "POST", "path": "/api/studies/1/rename", "body": b'{"study_name": "renamed"}'}
        assert ask(port, **rename, origin="https://evil.example")[0] == 403
        assert ask(port, **rename, origin="null")[0] == 403
        assert ask(port, **rename, host="evil.example")[0] == 403
        assert [study.study_name for study in optuna.get_all_study_summaries(storage)] == ["petskin"]
        assert ask(port, **rename, origin=f"http://127.0.0.1:{port}")[0] in (200, 201)
    assert [study.study_name for study in optuna.get_all_study_summaries(storage)] == ["renamed"]


def test_attributes_are_short_notes_are_true_and_nothing_of_it_is_written(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/made.db")
    study = made(12, 5, storage=storage).study
    before = storage.get_study_system_attrs(1), repr(storage.get_all_trials(1))
    with serving(storage, notes=lambda _: notes(study, ())) as port:
        shown = json.loads(ask(port, "GET", "/api/studies/1")[1])
    assert (storage.get_study_system_attrs(1), repr(storage.get_all_trials(1))) == before
    for owner in (shown, *shown["trials"], *shown["best_trials"]):
        assert all(len(attribute["value"]) <= LONGEST for attribute in owner["user_attrs"])
    best = shown["best_trials"][0]["number"]
    assert f"in trial {best}" in shown["note"]["body"]
    assert "tune-worker --study made-up" in shown["note"]["body"]
    of_best = shown["trials"][best]["note"]["body"]
    assert of_best.startswith("**The best of the study**: 5 of 5 epochs, best mask mAP 0")
    assert "data datasets/petskin/data\\.yaml" in of_best
    assert "petskin-tune best --study made-up\n```" in of_best
    assert len(of_best) < 500
    assert attributes.HISTORY not in {attribute["key"] for attribute in shown["trials"][best]["user_attrs"]}


def test_the_page_and_its_notes_read_each_finished_trial_once(
    storage: PetskinStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(12, 5, storage=storage)
    read: list[int] = []
    usual = type(storage)._get_trials

    def counted(self: PetskinStorage, *given: Any, **named: Any) -> Any:
        found = usual(self, *given, **named)
        read.extend(trial._trial_id for trial in found if trial.state.is_finished())
        return found

    monkeypatch.setattr(type(storage), "_get_trials", counted)
    study = optuna.load_study(study_name="made-up", storage=storage)
    with serving(study._storage, notes=lambda number: notes(study, ()) if number == study._study_id else None) as port:
        assert json.loads(ask(port, "GET", f"/api/studies/{study._study_id}")[1])["note"]["body"]
    assert len(read) == len(set(read)) > 0


def test_a_note_that_somebody_wrote_stays(storage: PetskinStorage) -> None:
    study = optuna.load_study(study_name="petskin", storage=storage)
    optuna_dashboard.save_note(study, "mine")
    with serving(storage, notes=lambda _: Notes("made")) as port:
        assert json.loads(ask(port, "GET", "/api/studies/1")[1])["note"]["body"] == "mine"


def test_with_write_a_note_that_was_made_is_edited_and_stays_as_it_was_written(storage: PetskinStorage) -> None:
    """optuna-dashboard takes a note whose version is the one after that of the note in the database."""
    with serving(storage, notes=lambda _: Notes("made"), write=True) as port:

        def shown(of_trial: bool) -> Any:
            study = json.loads(ask(port, "GET", "/api/studies/1")[1])
            return study["trials"][0]["note"] if of_trial else study["note"]

        for of_trial in (False, True):
            path = "/api/studies/1/1/note" if of_trial else "/api/studies/1/note"
            for body in ("mine", "mine, again"):
                before = shown(of_trial)
                assert before["body"]
                edited = json.dumps({"version": before["version"] + 1, "body": body}).encode()
                assert ask(port, "PUT", path, body=edited)[0] == 204
                assert shown(of_trial) == {"version": before["version"] + 1, "body": body}


def test_the_trials_that_get_notes_are_the_best_and_those_in_trouble() -> None:
    trials = made(300, 3, running=5).study.get_trials(deepcopy=False)
    chosen = asked_about(trials)
    assert len(chosen) <= 100
    failed = next(trial for trial in chosen if trial.state.name == "FAIL")
    assert "**Failed: crashed" in Notes("").of_trial(failed, has_table=True)
    assert {trial.number for trial in trials[-5:]} <= {trial.number for trial in chosen}


def test_trials_are_ranked_anew_only_once_one_has_begun_or_ended(
    storage: PetskinStorage, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def counting(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        counted.append(len(trials))
        return asked_about(trials)

    monkeypatch.setattr(dashboard_storage, "asked_about", counting)
    study = optuna.load_study(study_name="petskin", storage=storage)
    shown = DashboardStorage(storage, lambda _: Notes("made"), lambda _: artifacts)
    running = study.ask()
    for _ in range(2):
        shown.get_all_studies()
    counts = [len(counted)]
    study.tell(running, 0.9)
    found = shown.get_all_studies()[0].system_attrs
    assert f"dashboard:{running._trial_id}:note_ver" in found
    counts.append(len(counted))
    study.ask()
    shown.get_all_studies()
    assert [*counts, len(counted)] == [1, 2, 3]


# ---- pictures --------------------------------------------------------------------------------------------------------

UID = "0123456789ab"


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    store = FolderStore(tmp_path / "store", network=False)
    kept(store, UID, 1, tmp_path / "drawn")
    return Artifacts(store, UID, tmp_path / "artifacts")


def test_the_page_of_a_trial_shows_its_pictures_and_nothing_of_it_is_written(
    storage: PetskinStorage, artifacts: Artifacts, tmp_path: Path
) -> None:
    before = storage.get_study_system_attrs(1), repr(storage.get_all_trials(1))
    with serving(storage, artifacts=artifacts, study_id=1) as port:
        assert json.loads(ask(port, "GET", "/api/meta")[1])["artifact_is_available"]
        first, second = json.loads(ask(port, "GET", "/api/studies/1")[1])["trials"]
        assert first["artifacts"] == []
        assert [row["filename"] for row in second["artifacts"]][3] == "4 Confusion matrix.jpg"
        path = f"/artifacts/1/2/{second['artifacts'][3]['artifact_id']}"
        answer = answered(port, "GET", path)
        assert answer.read() == (tmp_path / "drawn" / "confusion-matrix.jpg").read_bytes()
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert ask(port, "GET", path, host="evil.example")[0] == 403
        assert ask(port, "GET", path[:-1] + ("0" if path[-1] != "0" else "1"))[0] == 404
    assert (storage.get_study_system_attrs(1), repr(storage.get_all_trials(1))) == before


def test_a_trials_arguments_are_a_table_behind_its_pictures(tmp_path: Path, artifacts: Artifacts) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/made.db")
    best = made(12, 5, storage=storage).study.best_trial
    with serving(storage, artifacts=artifacts, study_id=1, write=True) as port:
        rows = json.loads(ask(port, "GET", "/api/studies/1")[1])["trials"][best.number]["artifacts"]
        assert [row["filename"] for row in rows][-1] == "Arguments.csv"
        path = f"/artifacts/1/{best._trial_id}/{rows[-1]['artifact_id']}"
        ask(port, "DELETE", f"/api{path}")
        answer = answered(port, "GET", path)
        lines = answer.read().decode("utf-8-sig").splitlines()
        invented = [path[: -len(last)] + last for last in ("00000000ffff", "ffffffffffff")]
        assert [answered(port, "GET", other).status for other in invented] == [404, 404]
    assert answer.headers["Content-Type"] == "text/csv"
    assert lines[0] == "argument,value"
    assert "imgsz,480" in lines


def test_a_spreadsheet_computes_nothing_of_a_trials_arguments() -> None:
    lines = table_of({"name": "=1+1", "@data": "-x", "lr0": -0.5}).decode("utf-8-sig").splitlines()
    assert lines[1:] == ["'@data,'-x", "lr0,-0.5", "name,'=1+1"]


def test_a_note_names_no_table_where_there_are_no_artifacts(tmp_path: Path, artifacts: Artifacts) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/made.db")
    study = made(3, 5, storage=storage).study
    for pictures, expected in ((artifacts, True), (None, False)):
        shown = DashboardStorage(storage, lambda _: notes(study, ()), lambda _, pictures=pictures: pictures)
        assert ("under the artifacts below" in repr(shown.get_all_studies()[0].system_attrs)) is expected


def test_no_page_from_elsewhere_may_read_a_picture(storage: PetskinStorage, artifacts: Artifacts) -> None:
    """optuna-dashboard itself allows it to any page."""
    with serving(storage, artifacts=artifacts, study_id=1) as port:
        answer = answered(port, "GET", f"/artifacts/1/2/{artifacts.rows()[1][0]['artifact_id']}")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_rows_that_are_no_artifacts_end_no_page_and_a_page_among_them_is_a_file_to_save(
    storage: PetskinStorage, artifacts: Artifacts, tmp_path: Path
) -> None:
    mine = "01234567-89ab-cdef-0123-456789abcdef"
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / mine).write_text("<script>alert(1)</script>")
    row = {"artifact_id": mine, "filename": "a.html", "mimetype": "text/html", "encoding": None}
    evil = {**row, "artifact_id": "../../tune.db"}
    for number, value in enumerate(("null", "{", "[]", json.dumps(evil))):
        storage.set_study_system_attr(1, f"artifacts:{number}", value)
        storage.set_study_system_attr(1, f"dashboard:artifacts:1:{number}", value)
    storage.set_study_system_attr(1, f"artifacts:{mine}", json.dumps(row))
    with serving(storage, artifacts=artifacts, study_id=1) as port:
        status, body = ask(port, "GET", "/api/studies/1")
        assert status == 200
        shown = json.loads(body)
        assert shown["artifacts"] == [row]
        assert shown["trials"][0]["artifacts"] == []
        answer = answered(port, "GET", f"/artifacts/1/{mine}")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment"


def test_with_write_a_person_adds_an_artifact_and_pictures_of_ours_stay(
    storage: PetskinStorage, artifacts: Artifacts
) -> None:
    upload = json.dumps({"file": "data:text/plain;base64,aGVsbG8=", "filename": "a.txt"}).encode()
    with serving(storage, artifacts=artifacts, study_id=1, write=True) as port:
        status, body = ask(port, "POST", "/api/artifacts/1", body=upload)
        assert status == 201
        added = json.loads(body)["artifact_id"]
        assert ask(port, "GET", f"/artifacts/1/{added}") == (200, b"hello")
        ours = artifacts.rows()[1][0]["artifact_id"]
        ask(port, "DELETE", f"/api/artifacts/1/2/{ours}")
        assert ask(port, "GET", f"/artifacts/1/2/{ours}")[0] == 200
    with serving(storage, artifacts=artifacts, study_id=1) as port:
        assert ask(port, "POST", "/api/artifacts/1", body=upload)[0] == 405


def test_a_study_that_is_deleted_while_it_is_shown_has_no_note_and_is_no_error(storage: PetskinStorage) -> None:
    study = made(12, 5, storage=storage).study
    assert notes_if_there(study, tuple) is not None
    with serving(storage, notes=lambda _: notes_if_there(study, tuple)) as port:
        assert ask(port, "GET", f"/api/studies/{study._study_id}")[0] == 200
        optuna.delete_study(study_name=study.study_name, storage=storage)
        assert notes_if_there(study, tuple) is None
        assert ask(port, "GET", f"/api/studies/{study._study_id}")[0] == 404
        assert ask(port, "GET", "/api/studies")[0] == 200
