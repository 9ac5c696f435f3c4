"""Where every result goes, decided before anything runs: no two results one file, no image overwritten."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from serving.contract.errors import UserError, shown
from serving.images.listing import LeftOut, ListedImage
from serving.inference.marks import ENDINGS, LEGEND, read_mark

if TYPE_CHECKING:
    from serving.inference.supply import Frame

OWN_RESULT = "a result of an earlier run"
FRAME_DIGITS = 6
_SHOWN = 20
_LEGEND_STEM = os.path.splitext(LEGEND)[0]
_ONE_CASE = ("darwin", "win32")
_LONG_ENDINGS = tuple(ending for ending in ENDINGS.values() if ending != ENDINGS["mask"])
_SHORT_ENDINGS = tuple({os.path.splitext(ending)[1] or ending for ending in ENDINGS.values()})


class Job(NamedTuple):
    """One image and where its results go.

    Attributes:
        image: what to read.
        stem: path of its results without their endings.
        frame: of the video that `image` is; None for a picture, and for the video as a whole.

    A video's frames write `STEM.NUMBER` and the ending.
    """

    image: ListedImage
    stem: str
    frame: Frame | None = None

    @property
    def name(self) -> str:
        """What to call it in messages."""
        number = None if self.frame is None else self.frame.number
        return self.image.path if number is None else f"{self.image.path}: frame {number}"


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        jobs: in the order of the images.
        left_out: images that turned out to be results of an earlier run.
    """

    jobs: list[Job]
    left_out: list[LeftOut]


def plan(images: Sequence[ListedImage], output: str, *, endings: Sequence[str], legend: str | None = None) -> Plan:
    """Decide where everything goes.

    An image `x/a.jpg` gives `x/a.png`, a video `x/a.mp4` gives `x/a.000000.png` and so on; where two would give the
    same file, all of those keep their own ending (`a.jpg.png`, `a.bmp.png`). What an earlier run wrote among the images
    is left out.

    Args:
        images: what to segment.
        output: the folder for the results.
        endings: of the results of every image.
        legend: a further file that will be written.

    Raises:
        UserError: two results would be one file, or a result would overwrite an image; all at once.
    """
    kept, left_out = _without_own_results(images)
    while True:
        jobs = _name(kept, output, endings)
        own, problems = _overwritten(jobs, endings, legend)
        own_frames, more = _taken_for_frames(jobs, endings)
        own, problems = own | own_frames, problems + more
        if not own:
            break
        left_out += [LeftOut(image.path, OWN_RESULT) for image in kept if image in own]
        kept = [image for image in kept if image not in own]
    problems += _clashes(jobs, output, endings, legend)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:_SHOWN]) + ("\n  ..." if problems[_SHOWN:] else "")
        raise UserError(f"names clash, nothing was written; run such images apart with another --output:{listed}")
    return Plan(jobs, left_out)


def results_of_other_runs(
    jobs: Sequence[Job], output: str, *, endings: Sequence[str], legend: str | None = None
) -> list[str]:
    """Results of earlier runs in the output folder that this run does not write again.

    Where images are read from that folder (or from below it), only the folders that this run writes into are searched:
    it may be anything, a home folder for instance.
    """
    if not os.path.isdir(output):
        return []
    written = set(_results(jobs, endings, legend))
    videos = {job.stem for job in jobs if job.image.video}
    around = os.path.join(os.path.realpath(output), "")
    if any(os.path.join(folder, "").startswith(around) for folder in {job.image.folder for job in jobs}):
        folders: Iterable[str] = sorted({os.path.dirname(job.stem) for job in jobs} | {output})
    else:
        folders = (folder for folder, _, _ in os.walk(output))
    return [
        path
        for folder in folders
        for path in _results_in(folder)
        if path not in written and _video_of(path, endings) not in videos and read_mark(path)
    ]


def _without_own_results(images: Sequence[ListedImage]) -> tuple[list[ListedImage], list[LeftOut]]:
    """Part the images from what looks and proves to be the result of one of them, `a.png` beside `a.jpg`."""
    families = [_family(image.relative) for image in images]
    sizes = Counter(families)
    videos = {_stem(image.relative) for image in images if image.video}
    videos |= {image.relative for image in images if image.video}
    kept: list[ListedImage] = []
    left_out: list[LeftOut] = []
    for image, family in zip(images, families, strict=True):
        suspect = sizes[family] > 1 or family.endswith(_LEGEND_STEM)
        suspect = suspect or (bool(videos) and _video_of(image.relative, tuple(ENDINGS.values())) in videos)
        if suspect and image.relative.endswith(_SHORT_ENDINGS) and read_mark(image.path):
            left_out.append(LeftOut(image.path, OWN_RESULT))
        else:
            kept.append(image)
    return kept, left_out


def _family(relative: str) -> str:
    """What an image and all of its results have in common."""
    if relative.endswith(_LONG_ENDINGS):
        return relative[: -len(next(each for each in _LONG_ENDINGS if relative.endswith(each)))]
    return _stem(relative)


def _stem(relative: str) -> str:
    """Without the ending; `os.path.splitext` in a third of its time."""
    dot = relative.rfind(".")
    return relative[:dot] if dot > relative.rfind(os.sep) + 1 else relative


def _name(images: Sequence[ListedImage], output: str, endings: Sequence[str]) -> list[Job]:
    """Names that differ wherever that can be had: with their endings kept, all of those that would be the same."""
    stems = [_stem(image.relative) for image in images]
    while True:
        taken = Counter([stem + ending for stem in stems for ending in endings])
        if len(taken) == len(stems) * len(endings):
            break
        longer = [
            image.relative if any(taken[stem + ending] > 1 for ending in endings) else stem
            for image, stem in zip(images, stems, strict=True)
        ]
        if longer == stems:
            break
        stems = longer
    prefix = os.path.join(output, "")
    return [Job(image, prefix + stem) for image, stem in zip(images, stems, strict=True)]


def _overwritten(jobs: Sequence[Job], endings: Sequence[str], legend: str | None) -> tuple[set[ListedImage], list[str]]:
    """(images that are results of earlier runs and would be written again, what would overwrite another image)."""
    own: set[ListedImage] = set()
    problems: list[str] = []
    linked = [job.image for job in jobs if job.image.target is not None]
    read_from = {job.image.folder for job in jobs} | {os.path.dirname(image.target or "") for image in linked}
    real = {folder: os.path.realpath(folder) for folder in {os.path.dirname(job.stem) for job in jobs}}
    if legend is not None:
        real[os.path.dirname(legend)] = os.path.realpath(os.path.dirname(legend))
    if read_from.isdisjoint(real.values()) and sys.platform not in _ONE_CASE:
        return own, problems
    inputs = {_key(os.path.join(job.image.folder, os.path.basename(job.image.path))): job.image for job in jobs}
    inputs |= {_key(image.target or ""): image for image in linked}
    for path in _results(jobs, endings, legend):
        folder, name = os.path.split(path)
        image = inputs.get(_key(os.path.join(real[folder], name)))
        if image is None:
            continue
        if read_mark(image.path):
            own.add(image)
        else:
            problems.append(f"{shown(path)}: is an image to read; choose another --output")
    return own, problems


def _taken_for_frames(jobs: Sequence[Job], endings: Sequence[str]) -> tuple[set[ListedImage], list[str]]:
    """(images that are frames' results of earlier runs, other images whose files are named as those of a frame)."""
    own: set[ListedImage] = set()
    problems: list[str] = []
    videos = {_key(job.stem): job for job in jobs if job.image.video}
    for job in list(videos.values()):
        folder, name = os.path.split(job.stem)
        videos[_key(os.path.join(os.path.realpath(folder), name))] = job
    for job in jobs if videos else ():
        if job.image.video:
            continue
        place = os.path.join(job.image.folder, os.path.basename(job.image.path))
        for path in (place, job.image.target or place, *(job.stem + ending for ending in endings)):
            video = videos.get(_key(_video_of(path, endings) or ""))
            if video is None:
                continue
            if read_mark(job.image.path):
                own.add(job.image)
            else:
                frames = f"a frame of {shown(video.image.path)}"
                problems.append(f"{shown(path)}: is of {shown(job.image.path)}, and would be written for {frames}")
            break
    return own, problems


def _video_of(path: str, endings: Sequence[str]) -> str | None:
    """The stem of the video whose frame has this result; None for what is named otherwise."""
    for ending in endings:
        stem, dot, number = path.removesuffix(ending).rpartition(".")
        if path.endswith(ending) and dot and len(number) >= FRAME_DIGITS and number.isascii() and number.isdecimal():
            return stem
    return None


def _clashes(jobs: Sequence[Job], output: str, endings: Sequence[str], legend: str | None) -> list[str]:
    """What would be written for two images."""
    results = list(_results(jobs, endings, legend))
    if len({_folded(path) for path in results}) == len(results):
        return []
    owners: dict[str, str] = {_folded(legend): "the legend"} if legend is not None else {}
    exact = {legend: "the legend"} if legend is not None else {}
    one_case: bool | None = None
    problems: list[str] = []
    for job in jobs:
        for ending in endings:
            path, whose = job.stem + ending, shown(job.image.path)
            other = exact.get(path)
            if other is None and _folded(path) in owners:
                # The names differ in capitals or in the way accents are written: on some file systems they are one.
                one_case = not _tells_names_apart(output) if one_case is None else one_case
                other = owners[_folded(path)] if one_case else None
            if other is not None:
                problems.append(f"{shown(path)}: would be written for {other} and for {whose}")
            exact.setdefault(path, whose)
            owners.setdefault(_folded(path), whose)
    return problems


def _results(jobs: Sequence[Job], endings: Sequence[str], legend: str | None) -> Iterator[str]:
    if legend is not None:
        yield legend
    for ending in endings:
        for job in jobs:
            yield job.stem + ending


def _results_in(folder: str) -> list[str]:
    """The files of a folder that are named as results are."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(_SHORT_ENDINGS))
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names]


def _key(path: str) -> str:
    """What makes two paths one file: on macOS and Windows, capitals do not tell files apart."""
    return _folded(path) if sys.platform in _ONE_CASE else path


def _folded(path: str) -> str:
    """Equal for names that some file system takes for one."""
    if path.isascii():
        return path.lower()
    import unicodedata  # only now: few names need it

    return unicodedata.normalize("NFC", path).casefold()


def _tells_names_apart(folder: str) -> bool:
    """Whether the file system of a folder (or of the first one above it that exists) knows `a` from `A`."""
    if sys.platform in _ONE_CASE:
        return False
    place = Path(folder).absolute()
    existing = next(each for each in (place, *place.parents) if os.path.isdir(each))
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".Contrail-", suffix=".Probe") as probe:
            return not os.path.exists(os.path.join(existing, os.path.basename(probe.name).swapcase()))
    except OSError:
        return True  # not writable: nothing will be written
