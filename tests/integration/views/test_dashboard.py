from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import optuna_dashboard
import pytest

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import UsageError
from petskin_tune.views.dashboard import make_server, serve


@pytest.fixture
def storage(tmp_path: Path) -> PetskinStorage:
    storage = open_storage(f"sqlite:///{tmp_path}/tune.db")
    study = optuna.create_study(storage=storage, study_name="petskin", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("lr0", 0.0, 1.0), n_trials=2)
    return storage


@pytest.fixture
def port(storage: PetskinStorage) -> Iterator[int]:
    server = make_server(storage, port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port: int, method: str, path: str, host: str | None = None, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    headers = {"Accept-Encoding": "identity"} | ({"Host": host} if host else {})
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


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
        assert b"for looking only" in body
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

    monkeypatch.setattr("petskin_tune.views.dashboard._Server.serve_forever", stop_at_once)
    serve(storage, optuna.load_study(study_name="petskin", storage=storage), port=0, say=said.append)
    assert "/dashboard/studies/1 (Ctrl-C ends it)" in said[0]
