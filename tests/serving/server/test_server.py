"""The command: what it refuses before it listens, who may ask, what it writes down, and how it stops."""

import json
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.golden.golden import golden_folder
from serving.server.__main__ import main
from tests.serving.conftest import network_model
from tests.serving.golden_files import golden_of
from tests.serving.server.running import running

SECRET = "a-token-of-some-length"


def test_engines_of_one_name_are_refused_naming_the_option(engine):
    with pytest.raises(UserError, match=r"engines of one name: onnx_fp32; give each its own, .*--name A --name B"):
        main([str(engine), str(engine), "--port", "0"])
    with pytest.raises(UserError, match="expected one for each of 2 engines, in their order, got 1"):
        main([str(engine), str(engine), "--name", "a", "--port", "0"])
    with pytest.raises(UserError, match="without a slash"):
        main([str(engine), "--name", "a/b", "--port", "0"])


def test_a_port_that_is_taken_is_told_in_a_line(engine):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="choose another --port"):
        main([str(engine), "--port", str(taken.getsockname()[1])])


@pytest.mark.parametrize("option", ["--queue", "--timeout", "--max-pixels", "--workers", "--max-batch"])
def test_limits_of_nothing_are_refused(engine, option):
    with pytest.raises(UserError, match="expected"):
        main([str(engine), option, "0", "--port", "0"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--port", "99999", "--port: expected at most 65535, got 99999"),  # the system takes it for 34463
        ("--port", "-1", "--port: expected at least 0, got -1"),
        ("--workers", "100000", "--workers: expected at most 1024, got 100000"),
        ("--threads", "100000", "--threads: expected at most 1024, got 100000"),
        ("--max-batch", "1000000", "--max-batch: expected at most 1024, got 1000000"),
        ("--max-body-mib", "nan", "--max-body-mib: expected a number, got nan"),
        ("--max-body-mib", "inf", "--max-body-mib: expected a number, got inf"),
        ("--batch-delay", "nan", "--batch-delay: expected a number, got nan"),
        ("--timeout", "inf", "--timeout: expected a number, got inf"),
        (
            "--option",
            "threads=2",
            "--option threads=2: calls of an engine share its threads here; use --threads, for all of them together",
        ),
    ],
)
def test_values_beyond_all_reason_are_refused_by_their_option(engine, option, value, message):
    with pytest.raises(UserError) as caught:
        main([str(engine), "--queue", "1", option, value])
    assert str(caught.value) == message


@pytest.mark.parametrize("token", ["short", "with a space in it, and long", "ümlaut-and-long-enough"])
def test_a_weak_token_is_refused_and_not_shown(engine, tmp_path, token):
    (tmp_path / "token").write_text(token)
    with pytest.raises(UserError, match="expected a token of 16") as caught:
        main([str(engine), "--token-file", str(tmp_path / "token"), "--port", "0"])
    assert token not in str(caught.value)


def test_an_engine_that_fails_its_self_test_is_not_served(engine, photo):
    golden_of(network_model(), file_sha256(engine), photo).save(golden_folder(engine))
    text = (golden_folder(engine) / "golden.json").read_text()
    (golden_folder(engine) / "golden.json").write_text(text.replace(file_sha256(engine), "0" * 64))
    with pytest.raises(UserError, match="the self-test failed: golden files of another engine"):
        main([str(engine), "--port", "0"])


def test_without_the_extra_one_line_says_what_to_install(engine):
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'fastapi' else find(name, *rest)\n"
        f"import sys; sys.argv = ['contrail', 'serve', {str(engine)!r}]\n"
        "from serving.command_line import script; script()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"error: not installed: fastapi; pip install 'contrail-s\w+\[server\]'\n", done.stderr)


@pytest.fixture(scope="module")
def guarded(engine_files):
    with running(engine_files["onnx_fp32"], CONTRAIL_TOKEN=SECRET) as server:
        yield server


class TestWhoMayAsk:
    def test_every_request_bears_the_token(self, guarded, png, photo):
        body = png(photo(32, 32))
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {SECRET}"}):
            answer = guarded.post("/v1/segment", body, **headers)
            assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert guarded.post("/v1/segment", body, Authorization=f"Bearer {SECRET}").status == 200

    @pytest.mark.parametrize(
        "path", ["/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/onnx_fp32", "/v1/engines"]
    )
    def test_nothing_is_told_without_it(self, guarded, path):
        assert guarded.get(path).status == 401

    @pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/", "/page/page.js"])
    def test_probes_and_the_page_that_asks_for_it_need_none(self, guarded, path):
        assert guarded.get(path).status == 200

    def test_no_path_leads_around_it(self, guarded):
        for path in ("/page/../metrics", "/page/..%2fmetrics", "/page/%2e%2e/v1/engines", "//metrics"):
            assert guarded.get(path).status in (401, 404), path

    def test_the_token_is_never_logged(self, guarded):
        guarded.get("/metrics", Authorization=f"Bearer {SECRET}")
        assert SECRET not in json.dumps(guarded.log) and SECRET not in "".join(guarded.text)


def test_only_this_machine_reaches_it_and_only_by_its_own_names(server):
    assert server.address[0] == "127.0.0.1"
    for host, status in [("localhost", 200), ("127.0.0.1:80", 200), ("evil.example", 421), ("", 421)]:
        assert server.get("/v1/engines", Host=host).status == status


def test_answers_forbid_what_a_page_does_not_need(server):
    page = server.get("/")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"


def test_the_documentation_needs_no_network(server):
    page = server.get("/docs")
    assert page.status == 200
    sources = re.findall(r"""(?:src|href)=["']([^"']+)""", page.body.decode())
    assert sources and not [source for source in sources if source.startswith(("http:", "https:", "//"))]
    assert all(server.get(source).status == 200 for source in sources if source.endswith((".js", ".css")))


def test_the_schema_lists_the_routes_and_their_bodies(server):
    paths = server.get("/openapi.json").json["paths"]
    assert {"/v2/models/{name}/infer", "/v1/segment", "/metrics", "/v2/health/ready"} <= set(paths)
    assert paths["/v1/segment"]["post"]["requestBody"]["required"] is True


def test_metrics_count_requests_images_and_what_waits(server, png, photo):
    server.post("/v1/segment", png(photo(32, 32)))
    samples = server.metrics()
    assert samples['contrail_images_total{engine="onnx_fp32"}'] >= 1
    assert samples['contrail_requests_total{route="/v1/segment",status="200"}'] >= 1
    assert samples['contrail_waiting_images{engine="confident"}'] == 0
    assert samples['contrail_running_images{engine="confident"}'] == 0
    assert samples['contrail_engine_seconds_count{engine="onnx_fp32"}'] >= 1
    assert samples["process_resident_memory_bytes"] > 0


def test_what_is_not_there_is_told_in_json_and_counted_under_one_name(server):
    for path in ("/nothing", "/v3/x", "/page/none.js"):
        answer = server.get(path)
        assert answer.status == 404 and "/docs lists" in answer.json["error"]
    assert "/nothing" not in server.get("/metrics").body.decode()
    assert server.get("/v1/segment").status == 405


def test_every_request_is_one_line_of_json(server, png, photo):
    server.post("/v1/segment?engine=nobody", png(photo(32, 32)))
    until = time.monotonic() + 30
    while not (lines := [entry for entry in server.log if entry.get("status") == 404 and "nobody" in str(entry)]):
        assert time.monotonic() < until
    (line,) = lines[:1]
    assert {"time", "level", "message", "method", "path", "status", "ms", "client", "reason"} <= set(line)
    assert line["path"] == "/v1/segment"  # no query: it may hold what the client would not see written down


def test_requests_in_hand_are_finished_when_it_is_stopped(engine_files, predictor, png, photo, pixels):
    """Four wait for their batch to fill up when the signal comes."""
    image = photo(300, 400)
    options = ("--workers", 1, "--threads", 1, "--max-batch", 8, "--batch-delay", 1000)
    with running(engine_files["onnx_fp32"], *options) as server, ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(server.post, "/v1/segment", png(image)) for _ in range(4)]
        server.wait_for(lambda count: count("images_total") + count("waiting_images") + count("running_images") == 4)
        assert server.stop() == 0
        answers = [each.result(60) for each in asked]
    assert [answer.status for answer in answers] == [200] * 4
    assert all(np.array_equal(pixels(answer.body), predictor.predict(image)) for answer in answers)


def test_a_queue_that_is_full_says_when_to_come_again(engine_files, png, photo):
    """One image in a batch that waits for its like, one of another size in the queue, and room for one more there."""
    small, large = png(photo(32, 32)), png(photo(64, 64))
    two = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2, 1, 1, 3], "data": [0] * 6}]}
    options = ("--workers", 1, "--max-batch", 2, "--batch-delay", 60_000, "--timeout", 120, "--queue", 2)
    with running(engine_files["onnx_fp32"], *options) as server, ThreadPoolExecutor(2) as clients:
        held = clients.submit(server.post, "/v1/segment", small)
        server.wait_for(lambda count: count("running_images") == 1)
        queued = clients.submit(server.post, "/v1/segment", large)
        server.wait_for(lambda count: count("waiting_images") == 1)
        refused = server.post("/v2/models/onnx_fp32/infer", json.dumps(two).encode())
        assert refused.status == 503 and "1 images wait and at most 2 may" in refused.json["error"]
        assert int(refused.headers["Retry-After"]) >= 1
        for body, before in ((small, held), (large, queued)):
            assert server.post("/v1/segment", body).status == 200  # it fills the batch
            assert before.result(60).status == 200


def test_what_takes_too_long_is_504(engine_files, png, photo):
    with running(engine_files["onnx_fp32"], "--timeout", "0.001") as server:
        answer = server.post("/v1/segment", png(photo(512, 512)))
        assert answer.status == 504 and "not done within 0.001 s" in answer.json["error"]
        assert server.get("/v2/health/live").status == 200
