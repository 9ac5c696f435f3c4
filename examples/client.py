"""Ask a server for the mask of an image and for the areas of its classes: `python examples/client.py IMAGE MASK`.

The server is `contrail serve examples/demo/model.onnx`. Nothing but Python's own library is needed here.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def ask(url: str, image: bytes, output: str) -> bytes:
    """The answer to one image.

    Args:
        url: of the server.
        image: the bytes of an image file.
        output: `mask` (PNG), `classes` (PNG), `overlay` (JPEG) or `areas` (JSON).

    Raises:
        SystemExit: the server is not there or refuses the image; it says why.
    """
    request = urllib.request.Request(f"{url}/v1/segment?output={output}", data=image, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        raise SystemExit(f"error: {json.loads(error.read())['error']}") from None
    except OSError as error:
        raise SystemExit(f"error: {url}: {error}; is `contrail serve` running there?") from None


def main() -> None:
    """Write the mask and print the areas."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("mask", type=Path, help="where the mask is written, as PNG")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    arguments = parser.parse_args()
    try:
        image = arguments.image.read_bytes()
        arguments.mask.write_bytes(ask(arguments.url, image, "mask"))
    except OSError as error:
        raise SystemExit(f"error: {error.filename}: {error.strerror}") from None
    for each in json.loads(ask(arguments.url, image, "areas"))["classes"]:
        sys.stdout.write(f"{100 * each['share']:5.1f} %  {each['name']}\n")


if __name__ == "__main__":
    main()
