"""Serve engines over HTTP: the Open Inference Protocol v2, `POST /v1/segment` and a page to try it on.

Only programs on this machine reach it, unless --host says otherwise. Exit status: 0 stopped by a signal, every request
answered; 2 nothing was begun: an engine cannot be opened or fails its self-test, or the port is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging.config
import math
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serving.contract.command import program_name, require_at_least
from serving.contract.errors import UserError, run_command
from serving.contract.manifest import read_sidecar
from serving.engines.runtimes.arguments import add_runtime_arguments, runtime_options
from serving.engines.runtimes.runtime import MOST_THREADS
from serving.extras import require_extra

if TYPE_CHECKING:
    from serving.server.config import Limits

TOKEN_VARIABLE = "CONTRAIL_TOKEN"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_LEAST_TOKEN = 16  # characters
_MOST_BATCH = 1024  # images in memory at once


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    _require_in_range(arguments)
    require_extra("server", ("fastapi", "fastapi_offline", "uvicorn", "httptools", "prometheus_client"))
    import uvicorn

    from serving.server.app import build_app
    from serving.server.connections import protocol_class
    from serving.server.engines import EngineSettings, choose_names, open_engines
    from serving.server.telemetry import LOGGER, log_config

    logging.config.dictConfig(log_config(arguments.log_level.upper()))
    limits = _limits(arguments)
    token = _token(arguments.token_file)
    names = choose_names([read_sidecar(path) for path in arguments.engines], arguments.name)
    settings = EngineSettings(
        runtime=arguments.runtime,
        options={name: value for name, value in runtime_options(arguments).items() if name != "threads"},
        workers=arguments.workers,
        threads=arguments.threads,
        max_batch=arguments.max_batch,
        delay_s=arguments.batch_delay / 1e3,
    )
    local = _is_local(arguments.host)
    with _listen(arguments.host, arguments.port) as listener:  # a taken port is told before engines are opened
        engines = open_engines(arguments.engines, names, settings, limits)
        hosts = _LOOPBACK | {host.lower() for host in arguments.allow_host} if local else None
        app = build_app(engines, limits, token=token, hosts=hosts)
        listener.listen(limits.max_connections)
        host, port = listener.getsockname()[:2]
        fields = {
            "url": f"http://{f'[{host}]' if ':' in host else host}:{port}/",
            "engines": {name: engine.arrangement for name, engine in engines.items()},
            "token": token is not None,
        }
        if not local and token is None:
            LOGGER.warning("reachable from other machines, and no token is asked for", extra={"fields": {"host": host}})
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=protocol_class(limits),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(limits.stop_s) + 1,
            )
        )
        # Before uvicorn has its own handlers, and behind its graceful stop, when it raises once more what stopped it.
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: setattr(server, "should_exit", True))
        LOGGER.info("ready", extra={"fields": fields})
        server.run(sockets=[listener])
        LOGGER.info("stopped", extra={"fields": {}})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("serving.server"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "engines", nargs="+", type=Path, metavar="ENGINE", help="model.onnx or model.plan, manifest.json beside it"
    )
    parser.add_argument("--name", action="append", default=[], help="what clients call an engine (default: its "
                        "manifest's name); once for each engine, in their order")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="to listen on (default 8000; 0: any that is free)")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="also answer to this name on 127.0.0.1, as behind a proxy")  # fmt: skip
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with a token that every request has to "
                        f"bear (or the variable {TOKEN_VARIABLE})")  # fmt: skip
    parser.add_argument("--workers", type=int, help="calls of an engine at once (default: one for each CPU, 8 at most; "
                        "1 on a GPU); each gets its share of --threads")  # fmt: skip
    parser.add_argument("--max-batch", type=int, help="images in one call (default: what is fastest, measured)")
    parser.add_argument("--batch-delay", type=float, default=0.0, metavar="MS",
                        help="how long a batch that is not full waits for more (default 0)")  # fmt: skip
    parser.add_argument("--queue", type=int, default=64, help="images that may wait for an engine (default 64)")
    parser.add_argument("--max-body-mib", type=float, default=64, help="of one request (default 64)")
    parser.add_argument("--max-pixels", type=int, default=50_000_000, help="of one request (default 50000000)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="for an answer (default 30)")
    parser.add_argument("--receive-timeout", type=float, default=20.0, metavar="S",
                        help="for a request to arrive (default 20)")  # fmt: skip
    parser.add_argument("--max-connections", type=int, default=512, help="open at once (default 512)")
    parser.add_argument("--log-level", choices=("info", "warning", "error"), default="info")
    add_runtime_arguments(parser)
    return parser


def _require_in_range(arguments: argparse.Namespace) -> None:
    """Raise UserError for numbers that are out of range: first those that are too small, then all others at once."""
    require_at_least(arguments, {"workers": 1, "max_batch": 1, "batch_delay": 0, "threads": 1, "port": 0})
    # A port beyond is taken modulo 65536 by the system; not-a-number is less than nothing and more than nothing.
    most = {"port": 65535, "workers": MOST_THREADS, "threads": MOST_THREADS, "max_batch": _MOST_BATCH}
    problems = [
        f"--{name.replace('_', '-')}: expected at most {largest}, got {value}"
        for name, largest in most.items()
        if (value := getattr(arguments, name)) is not None and value > largest
    ]
    problems += [
        f"--{name.replace('_', '-')}: expected a number, got {value}"
        for name in ("batch_delay", "max_body_mib", "timeout", "receive_timeout")
        if not math.isfinite(value := getattr(arguments, name))
    ]
    problems += [
        f"--option {text}: calls of an engine share its threads here; use --threads, for all of them together"
        for text in arguments.option
        if text.startswith("threads=")
    ]
    if problems:
        raise UserError("\n".join(problems))


def _limits(arguments: argparse.Namespace) -> Limits:
    from serving.server.config import Limits

    largest = int(arguments.max_body_mib * 2**20)
    try:
        return Limits(
            max_body_bytes=largest,
            max_pixels=arguments.max_pixels,
            max_bodies_bytes=max(8 * largest, Limits.max_bodies_bytes),
            queue=arguments.queue,
            timeout_s=arguments.timeout,
            receive_timeout_s=arguments.receive_timeout,
            max_connections=arguments.max_connections,
            stop_s=arguments.timeout,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _token(path: Path | None) -> str | None:
    """The token that requests have to bear, from a file or the environment: all users see command lines."""
    token = os.environ.get(TOKEN_VARIABLE)
    source = TOKEN_VARIABLE
    if path is not None:
        source = str(path)
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--token-file {path}: cannot be read: {error}") from error
    if token is None:
        return None
    if len(token) < _LEAST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise UserError(f"{source}: expected a token of {_LEAST_TOKEN} printable ASCII characters or more, no spaces")
    return token


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises UserError where there is none to be had."""
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.socket(family, kind)
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: {error}") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another --port") from error
        yield listener


if __name__ == "__main__":
    run_command(main)
