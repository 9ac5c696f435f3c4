"""Videos for the tests, made by PyAV itself."""

import struct

import av


def write_video(path, frames, *, codec="ffv1", rate=10, pixel_format="bgr0", options=None):
    """Write `[H,W,3]` uint8 frames; FFV1 in Matroska keeps every bit of them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def turn(path, a, b, c, d):
    """Write another display matrix into an MP4's track header (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one = 1 << 16
    content[start : start + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
