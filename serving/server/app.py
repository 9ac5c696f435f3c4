"""The application: routes, page, documentation and metrics behind the gate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from serving.server.bodies import Bodies
from serving.server.config import Limits, Refusal
from serving.server.engines import ServedEngine, cpu_count
from serving.server.gate import TOLD, Gate
from serving.server.routes.protocol import protocol_router, server_version
from serving.server.routes.segment import segment_router
from serving.server.services import Services
from serving.server.telemetry import Metrics

PAGE = Path(__file__).with_name("page")


def build_app(
    engines: Mapping[str, ServedEngine],
    limits: Limits,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = None,
) -> Gate:
    """The whole server as an ASGI application; it closes the engines when it is shut down.

    Args:
        engines: open, by the name that clients call them; at least one.
        limits: of requests.
        token: that every request has to bear; None asks for none.
        hosts: see `Gate`.
    """
    metrics = Metrics(engines)
    codecs = ThreadPoolExecutor(cpu_count(), thread_name_prefix="codec")
    services = Services(engines, limits, Bodies(limits, codecs), metrics, codecs)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        services.close()

    app: FastAPI = FastAPIOffline(
        title="Contrail",
        version=server_version(),
        summary="Segments images with exported engines.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(protocol_router(services))
    app.include_router(segment_router(services))

    @app.get("/metrics", tags=["Operation"], response_class=Response)
    async def metrics_page() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return Gate(app, token=token, hosts=hosts, metrics=metrics)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _say(request, error.status, error.reason, error.headers)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = f"{request.method} {request.url.path[:200]}: {error.detail}; /docs lists what there is"
    return _say(request, error.status_code, reason, error.headers or {})


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [f"{each['loc'][-1]}: {each['msg']}, got {str(each.get('input'))[:60]!r}" for each in error.errors()]
    return _say(request, 422, "; ".join(problems), {})


async def _failed(request: Request, error: Exception) -> Response:
    """The answer to a fault of the server's own; the error itself goes on to the gate, which logs it."""
    return _say(request, 500, "the server failed on this request; its log says why", {})


def _say(request: Request, status: int, reason: str, headers: Mapping[str, str]) -> Response:
    request.scope["state"][TOLD]["reason"] = reason
    return JSONResponse({"error": reason}, status, dict(headers))
