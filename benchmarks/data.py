"""Speed and memory of the training input: `python -m benchmarks.data [--json]`.

Crops of 512x1024 are cut from street scenes of 1024x2048, JPEG and PNG, as training does it, on one core. The floor is
what no loader can do without: Pillow decoding the image and its label, nothing more. Both take turns and CPU time is
counted, so that a busy machine changes neither much. The first time that a file is read its bytes are compared with the
prepared hash: what that adds to the first epoch is measured apart. Memory is that of fresh processes which run through
few and through many images. Exit status 1 when the speed is below 0.6 of the floor, the hashes take more than 3 % or
the memory grows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from pipeline.data.datasets.folder.dataset import Folder
from pipeline.data.datasets.shared.prepared import Entry, PreparedSplit
from pipeline.data.datasets.streets.dataset import Streets
from pipeline.data.datasets.streets.scenes.render import render_street
from pipeline.data.reading.batches import TrainingBatches
from pipeline.data.reading.config import AugmentConfig
from serving.contract.errors import run_command

REQUIRED_RATIO = 0.6
ALLOWED_GROWTH = 0.05
ALLOWED_HASH_SHARE = 0.03
WARM_UP_IMAGES = 240  # by then the allocator's pools have found their size, whatever the number of images
FORMATS = {"JPEG": (".jpg", {"quality": 90}), "PNG": (".png", {})}
MEGABYTE = 1e6


@dataclass(frozen=True)
class Speed:
    """Images per second of CPU time on one core, medians over the rounds.

    Attributes:
        training: read, augmented and put into batches.
        decode_floor: image and label decoded by Pillow.
        ratio: of the two, median of the rounds' own ratios.
        image_floor: the image alone decoded by Pillow.
        reading: image and label read to checked arrays, without augmentation.
        hash_share: what comparing files with their prepared hashes, once each, adds to an epoch of training input.
        cached: augmented and put into batches, already decoded.
    """

    training: float
    decode_floor: float
    ratio: float
    image_floor: float
    reading: float
    cached: float
    hash_share: float


@dataclass(frozen=True)
class Memory:
    """Largest resident memory in bytes of processes that run through their images once after a warm-up.

    Attributes:
        images: how many, few and many.
        resident_bytes: at these counts.
        growth: relative growth from few to many.
    """

    images: tuple[int, int]
    resident_bytes: tuple[int, int]
    growth: float


def write_pictures(folder: Path, count: int, size: tuple[int, int], image_format: str) -> None:
    """Write street scenes with their labels in the layout of the dataset `folder`."""
    suffix, options = FORMATS[image_format]
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(Streets.class_names) + "\n")
    for index in range(count):
        image, label = render_street((0, 0, index), *size)
        Image.fromarray(image).save(folder / "images" / f"{index}{suffix}", image_format, **options)
        Image.fromarray(label).save(folder / "labels" / f"{index}.png")


def open_split(folder: Path, count: int | None = None) -> PreparedSplit:
    """The pictures of `folder`; with `count`, that many pairs, the files taken in turns."""
    images = sorted((folder / "images").iterdir())
    entries = []
    for index in range(count or len(images)):
        image = images[index % len(images)]
        with Image.open(image) as opened:
            width, height = opened.size
        label = folder / "labels" / f"{image.stem}.png"
        of_image, of_label = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (image, label))
        names = (f"images/{image.name}", f"labels/{label.name}")
        entries.append(Entry(str(index), names[0], names[1], of_image, of_label, height, width, None))
    return PreparedSplit(Folder(folder, {}), folder, tuple(entries))


def measure_speed(folder: Path, crop: tuple[int, int], rounds: int) -> Speed:
    """Time the pictures of `folder`, one round of everything after the other."""
    torch.set_num_threads(1)
    split = open_split(folder)
    count = len(split)

    def batches(cache_bytes: int) -> Callable[[], object]:
        config = AugmentConfig(crop=crop, cache_decoded_bytes=cache_bytes)
        iterator = iter(TrainingBatches(split, config, batch_size=count, iterations=rounds + 1, seed=0))
        return lambda: next(iterator)

    def decode_images() -> None:
        for index in range(count):
            with Image.open(split.image_path(index)) as image:
                image.load()

    def decode() -> None:
        decode_images()
        for index in range(count):
            with Image.open(split.label_paths(index)[0]) as label:
                label.load()

    def read(split: PreparedSplit = split) -> None:
        for index in range(count):
            split.read_image(index)
            split.read_label(index)

    def read_first() -> None:
        read(replace(split))  # which knows no file yet

    everything = sum(4 * height * width for height, width in map(split.size, range(count)))
    tasks: dict[str, Callable[[], object]] = {
        "training": batches(0),
        "decode_floor": decode,
        "image_floor": decode_images,
        "reading": read,
        "first_reading": read_first,
        "cached": batches(everything),
    }
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            started = time.process_time()
            task()
            rates[name].append(count / (time.process_time() - started))
    rates = {name: values[1:] for name, values in rates.items()}  # the first round warms up, and fills the cache
    ratios = [a / b for a, b in zip(rates["training"], rates["decode_floor"], strict=True)]
    hash_shares = [
        (1 / first - 1 / known) * training
        for first, known, training in zip(rates.pop("first_reading"), rates["reading"], rates["training"], strict=True)
    ]
    return Speed(
        ratio=statistics.median(ratios),
        hash_share=statistics.median(hash_shares),
        **{name: statistics.median(values) for name, values in rates.items()},
    )


def resident_bytes(folder: Path, count: int, crop: tuple[int, int]) -> int:
    """Largest resident memory of this process while it cuts a warm-up, then a crop from each of `count` images.

    Nothing is cached. Memory that stays with every image of the split would show, and with every image that is read.
    """
    torch.set_num_threads(1)
    config = AugmentConfig(crop=crop, cache_decoded_bytes=0)
    import psutil  # not at the top: a bare GPU machine, where only the supply is measured, may lack it

    process = psutil.Process(os.getpid())
    largest = 0
    iterations = -(-(WARM_UP_IMAGES + count) // 4)
    for _ in TrainingBatches(open_split(folder, count), config, batch_size=4, iterations=iterations, seed=0):
        largest = max(largest, process.memory_info().rss)
    return largest


def measure_memory(folder: Path, crop: tuple[int, int], images: tuple[int, int]) -> Memory:
    """Measure two fresh processes."""
    context = multiprocessing.get_context("spawn")
    few, many = (_in_fresh_process(context, folder, count, crop) for count in images)
    return Memory(images, (few, many), many / few - 1)


def _in_fresh_process(
    context: multiprocessing.context.SpawnContext, folder: Path, count: int, crop: tuple[int, int]
) -> int:
    with context.Pool(1) as pool:
        return pool.apply(resident_bytes, (folder, count, crop))


def verdict(speeds: dict[str, Speed], memory: Memory) -> list[str]:
    """What falls short, one line each."""
    failures = [
        f"{name}: {speed.ratio:.2f} of the decode floor; expected at least {REQUIRED_RATIO}"
        for name, speed in speeds.items()
        if speed.ratio < REQUIRED_RATIO
    ]
    failures += [
        f"{name}: comparing hashes adds {speed.hash_share:.1%} to the first epoch; expected at most "
        f"{ALLOWED_HASH_SHARE:.0%}"
        for name, speed in speeds.items()
        if speed.hash_share > ALLOWED_HASH_SHARE
    ]
    if memory.growth > ALLOWED_GROWTH:
        failures.append(
            f"memory: {memory.growth:+.1%} from {memory.images[0]} to {memory.images[1]} images; expected at most "
            f"{ALLOWED_GROWTH:+.0%}"
        )
    return failures


def show(speeds: dict[str, Speed], memory: Memory, crop: tuple[int, int], size: tuple[int, int]) -> str:
    """The results as text."""
    lines = [
        f"images/s per core, {crop[0]}x{crop[1]} crops of {size[0]}x{size[1]} images",
        f"{'':6}{'training':>10}{'decode floor':>14}{'ratio':>8}{'read only':>12}{'image floor':>13}{'cached':>9}"
        f"{'hashes':>9}",
    ]
    for name, speed in speeds.items():
        lines.append(
            f"{name:6}{speed.training:10.1f}{speed.decode_floor:14.1f}{speed.ratio:8.2f}{speed.reading:12.1f}"
            f"{speed.image_floor:13.1f}{speed.cached:9.1f}{speed.hash_share:+9.1%}"
        )
    few, many = (value / MEGABYTE for value in memory.resident_bytes)
    lines.append(
        f"resident memory: {few:.0f} MB with {memory.images[0]} images, {many:.0f} MB with {memory.images[1]} "
        f"({memory.growth:+.1%})"
    )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--crop", type=int, nargs=2, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--pictures", type=int, default=4, help="different images")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, nargs=2, default=(16, 128), metavar=("FEW", "MANY"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size, crop = tuple(arguments.size), tuple(arguments.crop)
    speeds = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in FORMATS:
            write_pictures(Path(temporary) / name, arguments.pictures, size, name)
            speeds[name] = measure_speed(Path(temporary) / name, crop, arguments.rounds)
        memory = measure_memory(Path(temporary) / "JPEG", crop, tuple(arguments.images))
    failures = verdict(speeds, memory)
    if arguments.json:
        result = {
            "size": size,
            "crop": crop,
            "images_per_second_per_core": {name: asdict(speed) for name, speed in speeds.items()},
            "required_ratio": REQUIRED_RATIO,
            "memory": asdict(memory),
            "failures": failures,
        }
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        sys.stdout.write(show(speeds, memory, crop, size))
    sys.stderr.write("".join(f"failed: {line}\n" for line in failures))
    return 1 if failures else 0


if __name__ == "__main__":
    run_command(main)
