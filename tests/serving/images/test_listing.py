"""Every file is taken, or left out with the reason: deep folders, links, odd endings, names of all kinds."""

import os
import socket
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.images.listing import MAX_WAYS, list_images, summary


@pytest.fixture
def make(tmp_path, photo):
    """Makes small images (or files with the given content) below a folder; returns the folder."""

    def build(*names, content=None, below="photos"):
        for seed, name in enumerate(names):
            path = tmp_path / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                Image.fromarray(photo(9, 11, seed)).save(path, "PNG")
            else:
                path.write_bytes(content)
        return tmp_path / below

    return build


def relatives(listing):
    return [image.relative for image in listing.images]


def reasons(listing, root):
    return {os.path.relpath(path, root): reason for path, reason in listing.left_out}


def test_folders_are_walked_in_order_without_hidden_files_and_results(make, tmp_path):
    root = make("b/2.png", "b/1.JPG", "b/._1.jpg", "b/.cache/x.png", "b/out/1.png", "b/c/d/e/deep.tif", "a.png")
    listing = list_images([str(root / "a.png"), str(root)], results=str(root / "b" / "out"))
    assert relatives(listing) == ["a.png", "b/1.JPG", "b/2.png", "b/c/d/e/deep.tif"]
    assert reasons(listing, root) == {
        "b/._1.jpg": "hidden",
        "b/.cache": "hidden",
        "b/out": "the folder of the results",
    }


def test_a_file_that_is_named_is_taken_whatever_it_is(make, tmp_path):
    root = make("notes.txt", content=b"text")
    assert relatives(list_images([str(root / "notes.txt"), str(tmp_path / "gone.png")])) == ["notes.txt", "gone.png"]


def test_odd_endings_are_told_by_the_first_bytes(make):
    root = make("a.jpg~", "b.jpeg_original", "c", "d.PNG ", "e.jfif", "f.Png")
    make("g.doc", content=b"BMW is a maker of cars")
    make("h", content=b"P5 is a house number")
    make("labels.json", content=b"{}")
    make("i.gif", content=b"GIF89a....")
    make("j.heic", content=b"\0\0\0\x18ftypheic....")
    make("k.dng", content=b"II*\0........")  # a raw file begins as the TIFF of its thumbnail
    make("l.mp4", content=b"\0\0\0\x18ftypisom....")
    make("m.dat", content=b"")
    listing = list_images([str(root)])
    assert relatives(listing) == ["a.jpg~", "b.jpeg_original", "c", "d.PNG ", "e.jfif", "f.Png"]
    assert reasons(listing, root) == {
        "g.doc": "no image (.doc)",
        "h": "no image (no ending)",
        "labels.json": "no image (.json)",
        "i.gif": "GIF is not read",
        "j.heic": "HEIC is not read",
        "k.dng": "camera raw is not read",
        "l.mp4": "a video: name it itself, or by a pattern",
        "m.dat": "no image (.dat)",
    }


def test_links_are_followed_and_two_names_of_one_file_are_two_images(make):
    root = make("here.png")
    store = make("x.png", "y.png", below="store")
    (root / "day2").symlink_to(store)
    (root / "b.png").symlink_to(store / "x.png")
    (root / "c.png").symlink_to(store / "x.png")
    os.link(store / "y.png", root / "hard.png")
    listing = list_images([str(root)])
    assert relatives(listing) == ["b.png", "c.png", "hard.png", "here.png", "day2/x.png", "day2/y.png"]
    assert [image.target for image in listing.images[:3]] == [str(store / "x.png")] * 2 + [None]
    assert listing.left_out == []


def test_links_that_lead_nowhere_or_back_are_named(make):
    root = make("deep/a.png")
    (root / "gone.jpg").symlink_to(root / "nothing.jpg")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    (root / "deep" / "up").symlink_to(root)
    (root / "deep" / "self").symlink_to(root / "deep")
    listing = list_images([str(root)])
    assert relatives(listing) == ["deep/a.png"]
    back = "a link back to a folder that it lies in"
    assert reasons(listing, root) == {
        "gone.jpg": "a link that leads nowhere",
        "loop.jpg": "a link that leads nowhere",
        "deep/up": back,
        "deep/self": back,
    }


def test_links_to_and_fro_come_to_an_end(tmp_path, make):
    """Twelve folders, each with links to all others: more ways through them than atoms in a grain of sand."""
    names = [f"f{index:02}" for index in range(12)]
    root = make(*(f"{name}/a.png" for name in names))
    for name in names:
        for other in names:
            if other != name:
                (root / name / f"to_{other}").symlink_to(root / other)
    listing = list_images([str(root)])
    assert len(listing.images) == MAX_WAYS * len(names)
    assert {reason for _, reason in listing.left_out} == {
        "a link back to a folder that it lies in",
        f"a folder reached in more than {MAX_WAYS} ways",
    }


def test_names_in_both_ways_of_writing_accents_and_undecodable_ones_are_all_taken(make):
    composed, decomposed = unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")
    root = make(composed, decomposed, "日本.png", "a\nb.png", "space .png", "Screen\u202fshot.png")
    (root / "日本.png").rename(root / "caf\udce9.png")  # the single byte E9, as Python names it
    (root / "d\udcff").mkdir()
    (root / "space .png").rename(root / "d\udcff" / "x.png")
    listing = list_images([str(root)])
    assert len(listing.images) == 6 and listing.left_out == []
    assert all(Path(image.path).is_file() for image in listing.images)


def test_what_is_no_file_is_left_out_and_never_opened(make):
    root = make("a.png")
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "pipe")
    (root / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.png"))
        listing = list_images([str(root)])
    assert relatives(listing) == ["a.png"]
    assert set(reasons(listing, root).values()) == {"a pipe, a socket or a device"}
    assert len(listing.left_out) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_opened_is_named(make):
    root = make("a.png", "locked/b.png")
    (root / "locked").chmod(0)
    try:
        listing = list_images([str(root)])
        assert reasons(listing, root) == {"locked": "a folder that cannot be opened: Permission denied"}
        with pytest.raises(UserError, match="locked: cannot be opened: Permission denied"):
            list_images([str(root / "locked")])
    finally:
        (root / "locked").chmod(0o755)


def test_a_folder_named_twice_is_read_once_and_one_without_images_is_refused(make, tmp_path):
    root = make("a.png", "b/c.png")
    assert relatives(list_images([str(root), str(root), str(root / "b")])) == ["a.png", "b/c.png"]
    assert relatives(list_images([str(root / "b" / ".." / "a.png"), str(root / "a.png")])) == ["a.png"]
    (tmp_path / "nothing").mkdir()
    make("x.txt", content=b"", below="texts")
    with pytest.raises(UserError) as caught:
        list_images([str(root), str(tmp_path / "nothing"), str(tmp_path / "texts")])
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path / 'nothing'}: no image in this folder (looked for .bmp")
    assert second.startswith(f"{tmp_path / 'texts'}: no image in this folder (1 left out, no image (.txt): ")


def test_dots_after_a_link_are_not_taken_for_the_folder_before_it(make, tmp_path):
    """`photos/link/../a.png` is the a.png beside the folder that the link leads to, not photos/a.png."""
    root, store = make("a.png"), make("inner/x.png", "a.png", below="store")
    (root / "link").symlink_to(store / "inner")
    listing = list_images([str(root / "a.png"), f"{root}/link/../a.png"])
    assert [image.folder for image in listing.images] == [str(root), str(store)]


def test_left_out_files_are_summed_up_by_reason(make):
    root = make("a.png", *(f".h{index}" for index in range(5)))
    make("b.txt", content=b"")
    assert summary(list_images([str(root)]).left_out) == [
        f"5 left out, hidden: {root}/.h0, {root}/.h1, {root}/.h2 and 2 more",
        f"1 left out, no image (.txt): {root}/b.txt",
    ]
