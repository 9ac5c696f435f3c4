"""Files, folders, patterns and lists: what the command line names, and where results of them go."""

import io
import os
import types

import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.inference.sources import find_images


@pytest.fixture
def root(tmp_path, photo, monkeypatch):
    for seed, name in enumerate(["a.jpg", "b.png", "day1/c.jpg", "day1/d.png", "day2/c.jpg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(9, 11, seed)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def relatives(listing):
    return [image.relative for image in listing.images]


@pytest.fixture
def type_in(monkeypatch):
    """Puts bytes on standard input."""

    def write(content):
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))

    return write


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["a.jpg"]),
        ("photos/**/*.jpg", ["a.jpg", "day1/c.jpg", "day2/c.jpg"]),
        ("photos/day?/c.jpg", ["day1/c.jpg", "day2/c.jpg"]),
        ("photos/day[12]", ["day1/c.jpg", "day1/d.png", "day2/c.jpg"]),  # folders are walked
        ("*/b.png", ["photos/b.png"]),
    ],
)
def test_patterns_are_filled_in_and_keep_the_tree_below_their_fixed_part(root, pattern, expected):
    assert relatives(find_images([pattern])) == expected
    assert relatives(find_images([str(root / pattern)])) == expected


def test_a_pattern_that_fits_nothing_and_a_file_that_looks_like_one(root):
    with pytest.raises(UserError, match=r"photos/\*\.gif: fits no file"):
        find_images(["photos/*.gif"])
    (root / "photos" / "a.jpg").rename(root / "photos" / "[a].jpg")
    assert relatives(find_images(["photos/[a].jpg"])) == ["[a].jpg"]


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_lists_keep_the_tree_below_the_folder_that_all_share(root, type_in, separator):
    names = [b"photos/day1/c.jpg", b"photos/day2/c.jpg"]
    type_in(separator.join(names) + separator)
    assert relatives(find_images(["-"])) == ["day1/c.jpg", "day2/c.jpg"]
    absolute = [os.fsencode(root / os.fsdecode(name)) for name in names]
    (root / "list.txt").write_bytes(separator.join([*absolute, b""]))
    assert relatives(find_images([], lists=["list.txt"])) == ["day1/c.jpg", "day2/c.jpg"]


def test_a_list_may_hold_folders_undecodable_names_and_what_is_gone(root, type_in):
    (root / "photos" / "b.png").rename(root / "photos" / "caf\udce9.png")
    type_in(b"photos/day1\nphotos/caf\xe9.png\nphotos/gone.jpg\n\n")
    assert relatives(find_images(["-"])) == ["day1/c.jpg", "day1/d.png", "caf\udce9.png", "gone.jpg"]


def test_lists_folders_and_files_go_together_and_each_is_read_once(root, type_in):
    type_in(b"photos/a.jpg\nphotos/day1/c.jpg\n")
    listing = find_images(["photos/b.png", "-", "photos/day1", "photos/a.jpg"])
    assert relatives(listing) == ["b.png", "a.jpg", "day1/c.jpg", "d.png"]


def test_a_list_that_an_editor_marked_as_utf8_is_read(root, type_in):
    type_in(b"\xef\xbb\xbfphotos/day1/c.jpg\r\n")
    assert relatives(find_images(["-"])) == ["c.jpg"]


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
def test_a_list_in_utf16_is_no_list_of_single_letters_and_of_the_root_folder(root, type_in, coding):
    type_in("\ufeffphotos/a.jpg\n".encode(coding))
    with pytest.raises(UserError, match=r"standard input: is UTF-16; expected names in UTF-8"):
        find_images(["-"])


def test_what_cannot_be_read_or_names_nothing_is_one_line(root, type_in):
    with pytest.raises(UserError, match="an image without a name"):
        find_images(["photos", ""])
    with pytest.raises(UserError, match="no image is named; give files, folders"):
        find_images([])
    with pytest.raises(UserError, match=r"gone\.txt: cannot be read"):
        find_images([], lists=["gone.txt"])
    (root / "empty.txt").write_bytes(b"\n\n")
    with pytest.raises(UserError, match=r"empty\.txt: no name in it"):
        find_images([], lists=["empty.txt"])
    type_in(b"")
    with pytest.raises(UserError, match="standard input: no name in it"):
        find_images(["-"])
