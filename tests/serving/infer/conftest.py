"""Images for the tests of the command."""

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path, photo):
    images = tmp_path / "images"
    (images / "night").mkdir(parents=True)
    for seed, name in enumerate(["a.png", "b.png", "night/a.png"]):
        Image.fromarray(photo(40, 60, seed)).save(images / name)
    return images
