"""Clients that break off, dawdle or lie: each is answered or cut off, and the next one is served."""

import gzip
import socket
import zlib

import pytest

from tests.serving.server.running import running

HEAD = "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def impatient(engine_files):
    with running(engine_files["onnx_fp32"], "--workers", 1, "--receive-timeout", 0.5) as server:
        yield server


def talk(server, *parts, half_close=False, wait=20.0):
    """Send bytes over a connection, and read to its end."""
    with socket.create_connection(server.address, timeout=wait) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part.encode() if isinstance(part, str) else part)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer += more
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def still_serves(server, png, photo):
    return server.post("/v1/segment", png(photo(40, 40))).status == 200


def test_a_body_that_ends_early_is_400_where_the_client_still_listens(server, png, photo):
    answer = talk(server, f"{HEAD}Content-Length: 1000\r\n\r\n", b"x" * 10, half_close=True)
    assert answer.startswith(b"HTTP/1.1 400") and b"ends before its body does" in answer
    assert still_serves(server, png, photo)


def test_a_client_that_goes_away_in_the_middle_costs_nothing(server, png, photo):
    for _ in range(20):
        with socket.create_connection(server.address, timeout=20) as connection:
            connection.sendall(f"{HEAD}Content-Length: 500000\r\n\r\n".encode() + b"x" * 1000)
    assert still_serves(server, png, photo)


def test_a_client_whose_request_is_whole_may_close_its_side(server, png, photo):
    body = png(photo(40, 40))
    answer = talk(server, f"{HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n", body, half_close=True)
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_slow_body_is_408(impatient, png, photo):
    answer = talk(impatient, f"{HEAD}Content-Length: 1000\r\n\r\n", b"x")
    assert answer.startswith(b"HTTP/1.1 408") and b"only 1 bytes of the body came within 0.5 s" in answer
    assert any(still_serves(impatient, png, photo) for _ in range(20))  # this machine may be slow, too


@pytest.mark.parametrize("begin", ["", "POST /v1/seg", f"{HEAD}X-Slow: "], ids=["nothing", "line", "header"])
def test_a_slow_head_is_408(impatient, begin):
    answer = talk(impatient, begin)
    assert answer.startswith(b"HTTP/1.1 408") and b"no whole head of a request within 0.5 s" in answer


@pytest.mark.parametrize(
    "end", ["", "\r\n\r\n", f"\r\nContent-Length: 100000\r\n\r\n{100000 * 'x'}"], ids=["none", "end", "body"]
)
def test_a_head_of_any_size_is_431(server, png, photo, end):
    answers = [talk(server, f"{HEAD}X-Long: ", 70_000 * b"a", end) for _ in range(5)]
    # A connection that is closed before all was read may take the answer with it.
    assert all(not each or (each.startswith(b"HTTP/1.1 431") and b"more than 65536 bytes" in each) for each in answers)
    assert any(answers)
    answer = talk(server, f"{HEAD}X-Long: ", 20_000 * b"a", "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and b"an empty file is no image" in answer
    assert still_serves(server, png, photo)


def test_connections_are_bounded_and_come_free_again(server, png, photo):
    idle = [socket.create_connection(server.address, timeout=20) for _ in range(40)]
    try:
        answer = talk(server, f"{HEAD}Content-Length: 0\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503") and b"too many connections" in answer
        assert b"retry-after: 1" in answer.lower()
    finally:
        for connection in idle:
            connection.close()
    assert any(still_serves(server, png, photo) for _ in range(50))


@pytest.mark.parametrize("packing", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_bomb_is_413_and_is_not_unpacked(server, packing):
    bomb = packing(bytes(100 * 2**20))
    assert len(bomb) < 2**20  # the server takes 4 MiB
    before = server.metrics()["process_resident_memory_bytes"]
    name = "gzip" if packing is gzip.compress else "deflate"
    answer = server.post("/v1/segment", bomb, Content_Encoding=name)
    assert answer.status == 413 and "unpacked" in answer.json["error"]
    assert server.metrics()["process_resident_memory_bytes"] < before + 50 * 2**20


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"not packed", "gzip", 400),
        (gzip.compress(b"x" * 1000)[:-4], "gzip", 400),
        (gzip.compress(b"x") + b"more", "gzip", 400),
        (b"x", "br", 415),
    ],
    ids=["not packed", "cut off", "more behind", "unknown packing"],
)
def test_bodies_that_cannot_be_unpacked_are_told_why(server, body, encoding, status):
    answer = server.post("/v1/segment", body, Content_Encoding=encoding)
    assert answer.status == status and answer.json["error"]


def test_a_body_without_an_end_is_413(server):
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    answer = talk(server, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", chunk * 70, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "request_",
    [
        "GET\r\n\r\n",
        "\0\1\2\3\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        f"{HEAD}Content-Length: minus one\r\n\r\n",
        f"{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["short", "binary", "version", "length", "smuggling"],
)
def test_what_is_no_http_is_400(server, request_):
    answer = talk(server, request_)
    assert answer.startswith(b"HTTP/1.1 400") and b'{"error": "' in answer
