"""The routes of the Open Inference Protocol v2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import metadata
from typing import TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response

from serving.server.batching import Answer
from serving.server.gate import TOLD
from serving.server.oip import EXTENSIONS, HEADER_LENGTH, InferRequest, build_response, parse_request, tensors_of
from serving.server.services import Services

Result = TypeVar("Result")
VERSIONS = ["1"]
_MUCH = 2**18  # bytes: up to 20 ms where they are numbers in JSON, while handing them over takes 0.1 ms
_INFER_BODY = {
    "description": "The protocol's JSON; binary tensors follow it, and the header "
    f"`{HEADER_LENGTH}` says where they begin. Packed by gzip or deflate, where `Content-Encoding` says so.",
    "required": True,
    "content": {
        "application/json": {
            "example": {
                "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [0, 0, 0, 9, 9, 9]}],
                "outputs": [{"name": "mask"}],
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


def protocol_router(services: Services) -> APIRouter:
    """`/v2/...` for these engines."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])

    @router.get("/health/live")
    async def server_live() -> Response:
        """Whether the server runs."""
        return Response()

    @router.get("/health/ready")
    async def server_ready() -> Response:
        """Whether every engine is open and has passed its self-test: a server without that does not listen."""
        return Response()

    @router.get("")
    async def server_metadata() -> dict[str, object]:
        """Name, version and extensions of the server."""
        return {"name": "contrail", "version": server_version(), "extensions": list(EXTENSIONS)}

    @router.post("/repository/index")
    async def repository_index() -> list[dict[str, str]]:
        """The engines (Triton's extension)."""
        return [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in services.engines]

    @router.get("/models/{name}")
    @router.get("/models/{name}/versions/{version}", include_in_schema=False)
    async def model_metadata(name: str, version: str = "1") -> dict[str, object]:
        """An engine's tensors, and what it is: classes, colours, precision, file, self-test."""
        engine = services.engine(name, version)
        manifest = engine.manifest
        return {
            "name": name,
            "versions": VERSIONS,
            "platform": f"contrail_{engine.predictor.runtime.name}",
            **tensors_of(manifest),
            "parameters": {
                "class_names": manifest.class_names,
                "palette": manifest.palette,
                "precision": manifest.precision,
                "sha256": engine.sha256,
                "self_test": engine.tested,
                "max_batch": engine.max_batch,
            },
        }

    @router.get("/models/{name}/ready")
    @router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(name: str, version: str = "1") -> dict[str, object]:
        """Whether an engine is there."""
        services.engine(name, version)
        return {"name": name, "ready": True}

    @router.post("/models/{name}/infer", openapi_extra={"requestBody": _INFER_BODY})
    @router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def model_infer(name: str, request: Request, version: str = "1") -> Response:
        """Segment a batch of images: `image` UINT8 [B,H,W,3] RGB in, `mask` UINT8 [B,H,W] out."""
        engine = services.engine(name, version)
        known = [str(each["name"]) for each in tensors_of(engine.manifest)["outputs"]]
        async with services.bodies.receive(request) as body:
            length = request.headers.get(HEADER_LENGTH)
            asked = await beside(len(body), parse_request, body, length, known, services.limits.max_pixels)
            answers = await engine.segment(list(asked.images))
        services.metrics.observe(name, answers)
        request.scope["state"][TOLD].update(engine=name, images=len(answers))
        size = sum(getattr(answer.segmentation, output).nbytes for answer in answers for output in asked.outputs)
        content, headers = await beside(size, _response, name, asked, answers)
        return Response(content, headers=headers)

    async def beside(size: int, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function; beside the event loop, which answers probes meanwhile, where there is much to do."""
        if size <= _MUCH:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(services.codecs, function, *arguments)

    return router


def server_version() -> str:
    """Version of the installed distribution; `unknown` where the folder is used as it is."""
    for name in ("contrail-seg", "contrail-serving"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _response(name: str, asked: InferRequest, answers: list[Answer]) -> tuple[bytes, dict[str, str]]:
    return build_response(name, asked, {output: _stacked(answers, output) for output in asked.outputs})


def _stacked(answers: list[Answer], output: str) -> np.ndarray:
    return np.stack([getattr(answer.segmentation, output) for answer in answers])
