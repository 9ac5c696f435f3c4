"""The application behind its gate: what it answers where it fails itself, and what runs beside its event loop."""

import asyncio
import json
import threading

import pytest

from serving.server.app import build_app
from serving.server.config import Limits
from serving.server.engines import EngineSettings, ServedEngine
from serving.server.routes import protocol
from serving.server.telemetry import LOGGER


@pytest.fixture
def served(engine):
    engine = ServedEngine("engine", engine, EngineSettings(workers=1, threads=1, max_batch=1), Limits())
    yield engine
    engine.close()


@pytest.fixture
def failing_app(served, monkeypatch):
    """A server whose engine has a fault that nobody thought of."""

    async def segment(_images):
        raise ZeroDivisionError("a fault of the server's own")

    monkeypatch.setattr(served, "segment", segment)
    return build_app({"engine": served}, Limits())


def ask(app, path, body):
    """One request, as an ASGI server passes it on; returns status, headers and body."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start, *parts = sent
    return start["status"], dict(start["headers"]), b"".join(part["body"] for part in parts)


def test_a_fault_of_the_server_s_own_is_500_in_json_and_logged_with_its_traceback(
    failing_app, png, photo, caplog, monkeypatch
):
    # Whether pytest attaches its handler here itself depends on what an earlier test made of this logger.
    monkeypatch.setattr(LOGGER, "propagate", False)
    monkeypatch.setattr(LOGGER, "handlers", [caplog.handler])
    status, headers, body = ask(failing_app, "/v1/segment", png(photo(32, 32)))
    assert (status, headers[b"content-type"]) == (500, b"application/json")
    assert json.loads(body) == {"error": "the server failed on this request; its log says why"}
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert "a fault of the server's own" in caplog.text and "Traceback" in caplog.text
    (line,) = [record.fields for record in caplog.records if record.message == "request"]
    assert line["status"] == 500 and line["reason"] == "ZeroDivisionError: a fault of the server's own"


@pytest.mark.parametrize(("side", "thread"), [(8, "MainThread"), (600, "codec")])
def test_much_json_is_read_and_written_beside_the_event_loop(served, monkeypatch, side, thread):
    """Small requests are not handed over: that would take longer than they do."""
    threads = []
    for name in ("parse_request", "build_response"):
        function = getattr(protocol, name)

        def watched(*arguments, function=function):
            threads.append(threading.current_thread().name)
            return function(*arguments)

        monkeypatch.setattr(protocol, name, watched)
    entry = {"name": "image", "datatype": "UINT8", "shape": [1, side, side, 3], "data": [7] * 3 * side * side}
    body = json.dumps({"inputs": [entry]}).encode()
    status, _, answer = ask(build_app({"engine": served}, Limits()), "/v2/models/engine/infer", body)
    assert status == 200 and len(json.loads(answer)["outputs"][0]["data"]) == side * side
    assert len(threads) == 2 and all(name.startswith(thread) for name in threads)
