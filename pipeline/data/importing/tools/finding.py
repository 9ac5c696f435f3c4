"""Where the images of an export lie, which seldom is where its annotations say."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from pipeline.data.datasets.shared.facts import listed
from pipeline.data.datasets.shared.names import composed
from pipeline.data.datasets.shared.walking import walk
from serving.images.formats import SUFFIXES


class Finder:
    """The images below a folder.

    Args:
        source: the folder.
        leave_out: folders in it whose pictures are no images.
    """

    def __init__(self, source: Path, leave_out: Iterable[str] = ()) -> None:
        self._source = source
        without = tuple(f"{folder}/" for folder in leave_out)
        self._files = {
            composed(file): source / file
            for file in walk(source).files
            if Path(file).suffix.lower() in SUFFIXES and not f"/{file}".startswith(tuple(f"/{one}" for one in without))
        }
        self._by_base: dict[str, list[str]] = {}
        for file in self._files:
            self._by_base.setdefault(PurePosixPath(file).name, []).append(file)
        self._elsewhere: dict[str, str] = {}  # what annotations call an image in a folder of another name -> its file

    def find(self, stated: str, folders: Sequence[Path]) -> Path | None:
        """The file that annotations call `stated`: below one of the folders, else the only one of that name.

        Args:
            stated: a name or a path, of another machine maybe.
            folders: where it may lie, the likeliest first.
        """
        text = composed(stated.replace("\\", "/"))
        if not text:
            return None
        for folder in folders:
            place = folder.relative_to(self._source).as_posix()
            found = self._files.get(posixpath.normpath(posixpath.join(place, text)))
            if found is not None:
                return found
        text = posixpath.normpath(text)
        while text.startswith("../"):
            text = text.removeprefix("../")
        alike = self._by_base.get(PurePosixPath(text).name, [])
        longer = [file for file in alike if f"/{file}".endswith(f"/{text}")]
        chosen = longer if len(longer) == 1 else alike
        if len(chosen) != 1:
            return None
        named, real = PurePosixPath(text).parent.name, PurePosixPath(chosen[0]).parent.name
        if named not in ("", real):
            self._elsewhere[stated] = chosen[0]
        return self._files[chosen[0]]

    def of_subset(self, subset: str) -> list[Path]:
        """Folders where the images of a subset use to lie."""
        plain = subset.strip("/")
        of_its_own = (f"images/{plain}", f"{plain}/images", plain) if plain else ()
        return [self._source / place for place in (*of_its_own, "images", "")]

    def name(self, path: Path) -> str:
        """The place of an image, without ending and without the folders that all exports have."""
        return path.relative_to(self._source).with_suffix("").as_posix()

    def notes(self, used: Iterable[Path]) -> list[str]:
        """Lines about images that were found in other folders than is stated, and those that nothing lists."""
        taken = set(used)
        rest = sorted(file for file, path in self._files.items() if path not in taken)
        found = []
        if self._elsewhere:
            told = listed((f"{file} for {stated}" for stated, file in self._elsewhere.items()), 3)
            found.append(
                f"LOOK: {len(self._elsewhere)} images were found by their names alone, in other folders than the "
                f"annotations say: {told}; where these are other images, their labels are wrong"
            )
        if rest:
            found.append(f"{len(rest)} images are in no list of the export and were left out: {listed(rest, 3)}")
        return found
