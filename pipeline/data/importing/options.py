"""What `contrail import` takes, here and in the environment that does the work."""

from __future__ import annotations

import argparse
from pathlib import Path

FORMATS = ("coco", "roboflow-coco", "cvat", "voc", "labelme", "labelme-xml", "yolo")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", type=Path, help="the folder of the export, unpacked")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write; absent or empty")
    parser.add_argument("--format", choices=FORMATS, help="of the export; told by its files where it is not given")
    parser.add_argument(
        "--overlap",
        choices=("last", "smallest", "void", "refuse"),
        help="pixels in annotations of two classes (default last where the tool keeps an order: cvat, labelme, voc; "
        "else void)",
    )
    parser.add_argument(
        "--boxes",
        choices=("void", "fill", "leave-out"),
        default="void",
        help="boxes without a mask: their pixels are void (default), of their class, or as if there were none",
    )
    parser.add_argument(
        "--crowd", choices=("class", "void"), default="class", help="regions of many objects (COCO's iscrowd)"
    )
    parser.add_argument(
        "--drawn-on",
        choices=("shown", "stored"),
        help="photos with an EXIF orientation that keeps their size: whether annotations were drawn on the image as it "
        "is shown, or as it is stored (default what the sizes of the other photos tell, else shown, and it is said)",
    )
    parser.add_argument(
        "--background",
        metavar="NAME",
        help="class of the pixels in no annotation, or void (default the class called background, which is made where "
        "there is none)",
    )
