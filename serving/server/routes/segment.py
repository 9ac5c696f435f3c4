"""`POST /v1/segment`: one image file in, its mask, overlay or areas out."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from PIL import Image

from serving.contract.errors import UserError, did_you_mean
from serving.contract.manifest import Manifest
from serving.engines.predictor import Segmentation
from serving.images.decoding import DecodedImage, decode_image, image_size
from serving.images.image_io import MAX_JPEG_SIDE
from serving.render import encode_image, encode_mask, overlay
from serving.server.config import Refusal
from serving.server.gate import TOLD
from serving.server.services import Services

UInt8 = NDArray[np.uint8]
_QUERY = ("engine", "output", "opacity")
Output = Literal["mask", "classes", "overlay", "areas", "confidence"]

_IMAGE_BODY = {
    "description": "The image file itself: JPEG, PNG, BMP, WebP, TIFF, PPM or PGM (`curl --data-binary @street.jpg`).",
    "required": True,
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
}
_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A PNG, a JPEG (overlay) or JSON (areas). `Server-Timing` has the milliseconds of each part.",
        "content": {**_PNG, "image/jpeg": _PNG["image/png"], "application/json": {}},
    },
    400: {"description": "No image, or a damaged one."},
    413: {"description": "Too many bytes or pixels."},
    503: {"description": "Too busy; `Retry-After` says when to come again."},
    504: {"description": "Not done in time."},
}


def segment_router(services: Services) -> APIRouter:
    """`/v1/...` for these engines."""
    router = APIRouter(prefix="/v1", tags=["Images"])

    @router.get("/engines")
    async def engines() -> list[dict[str, object]]:
        """The engines that may be asked for, the default first, with the names and colours of their classes."""
        return [
            {
                "name": name,
                "class_names": engine.manifest.class_names,
                "palette": engine.manifest.palette,
                "precision": engine.manifest.precision,
                "confidence": engine.manifest.confidence_output is not None,
            }
            for name, engine in services.engines.items()
        ]

    @router.post("/segment", response_class=Response, responses=_ANSWERS, openapi_extra={"requestBody": _IMAGE_BODY})
    async def segment(
        request: Request,
        engine: Annotated[str | None, Query(description="Name of the engine; the default is the first.")] = None,
        output: Annotated[
            Output,
            Query(
                description="`mask`: PNG whose pixel values are the classes and whose palette shows them; `classes`: "
                "the same values as a grey PNG, for programs that turn palettes into colours; `overlay`: JPEG; "
                "`areas`: JSON with the pixels of every class; `confidence`: grey PNG, where the engine gives it."
            ),
        ] = "mask",
        opacity: Annotated[float, Query(ge=0, le=1, description="Of the overlay's colours.")] = 0.5,
    ) -> Response:
        """Segment one image."""
        start = time.perf_counter()
        for key in request.query_params:
            if key not in _QUERY:  # else a slip would be answered with the default
                raise Refusal(422, f"query: unknown {key!r}{did_you_mean(key, _QUERY)}")
            if len(request.query_params.getlist(key)) > 1:  # else the last would be taken
                raise Refusal(422, f"query: {key} is there more than once; expected it once")
        name = engine if engine is not None else next(iter(services.engines))
        served = services.engine(name)
        manifest = served.manifest
        if output == "confidence" and manifest.confidence_output is None:
            raise Refusal(400, f"output: {name} gives no confidence; export it with `output: mask+confidence`")
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise Refusal(415, "expected the image file itself as the body, got a form: curl --data-binary @street.jpg")
        loop = asyncio.get_running_loop()
        async with services.bodies.receive(request) as body:
            received = time.perf_counter()
            image = await loop.run_in_executor(services.codecs, _decode, body, services.limits.max_pixels)
        decoded = time.perf_counter()
        height, width = image.pixels.shape[:2]
        if output == "overlay" and max(height, width) > MAX_JPEG_SIDE:
            raise Refusal(
                422,
                f"output: an overlay is a JPEG, which has at most {MAX_JPEG_SIDE} pixels a side, got {width}x{height}; "
                "ask for output=mask, or cut the image into parts",
            )
        (answer,) = await served.segment([image.pixels])
        segmented = time.perf_counter()
        services.metrics.observe(name, [answer])
        request.scope["state"][TOLD].update(engine=name, images=1)
        if output == "areas":
            areas = await loop.run_in_executor(services.codecs, areas_of, answer.segmentation, manifest)
            response: Response = JSONResponse({"engine": name, "notes": image.notes, **areas})
        else:
            content, media = await loop.run_in_executor(
                services.codecs, _encode, output, opacity, image.pixels, answer.segmentation, manifest
            )
            response = Response(content, media_type=media)
        parts = {
            "receive": (received - start) * 1e3,
            "decode": (decoded - received) * 1e3,
            "queue": answer.queue_ms,
            "engine": answer.engine_ms,
            "encode": (time.perf_counter() - segmented) * 1e3,
            "total": (time.perf_counter() - start) * 1e3,
        }
        response.headers["Server-Timing"] = ", ".join(f"{part};dur={took:.1f}" for part, took in parts.items())
        return response

    return router


def areas_of(segmentation: Segmentation, manifest: Manifest) -> dict[str, object]:
    """How much of an image each class takes.

    Returns:
        `height` and `width`, and `classes`: name, index, pixels and share of the image (in [0, 1]) of each.
    """
    mask = segmentation.mask
    counts = np.bincount(mask.ravel(), minlength=manifest.num_classes).tolist()
    classes = [
        {"name": name, "index": index, "pixels": counts[index], "share": counts[index] / mask.size}
        for index, name in enumerate(manifest.class_names)
    ]
    return {"height": mask.shape[0], "width": mask.shape[1], "classes": classes}


def _decode(body: bytes, max_pixels: int) -> DecodedImage:
    try:
        return decode_image(io.BytesIO(body), "image", max_pixels=max_pixels)
    except UserError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):  # Pillow has refused it first
            most = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
            raise Refusal(413, f"image: too many pixels; at most {most} are read: cut it into parts") from error
        raise Refusal(413 if _pixels(body) > max_pixels else 400, str(error)) from error


def _pixels(body: bytes) -> int:
    """Pixels of an image as its header says; 0 where it is none."""
    try:
        height, width = image_size(io.BytesIO(body), "image")
    except UserError:
        return 0
    return height * width


def _encode(
    output: Output, opacity: float, image: UInt8, segmentation: Segmentation, manifest: Manifest
) -> tuple[bytes, str]:
    """The file of one output, and its media type."""
    if output == "mask":
        return encode_mask(segmentation.mask, manifest.palette), "image/png"
    if output == "overlay":
        drawn = overlay(image, segmentation.mask, manifest.palette, opacity=opacity)
        return encode_image(Image.fromarray(drawn), "JPEG", quality=90), "image/jpeg"
    grey = segmentation.mask if output == "classes" else segmentation.confidence
    assert grey is not None, "the route has refused it"
    return encode_image(Image.fromarray(grey), "PNG", compress_level=3), "image/png"
