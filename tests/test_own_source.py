"""A source of one's own: what is not in the package can be trained on."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from diffae.config import DataConfig
from diffae.data import prepare
from diffae.data.sources import Folder, Labelled, Source
from diffae.data.sources.names import is_image


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFAE_CACHE", str(tmp_path / "cache"))


class Greys:
    """Squares of one grey each, drawn when they are read."""

    def __init__(self, levels):
        self.levels = {f"grey-{i}.png": level for i, level in enumerate(levels)}
        self.names = list(self.levels)
        self.others = 0
        self.holders = []
        self.notes = ["Drawn in memory."]

    def read(self, name):
        file = io.BytesIO()
        Image.new("L", (8, 8), self.levels[name]).save(file, "PNG")
        return file.getvalue()

    def label_rows(self):
        return [{"file": name, "Bright": level > 99} for name, level in self.levels.items()]


def prepared(own, **settings):
    return prepare(DataConfig(validation=0.0, **settings), size=(4, 4), channels=1, source=own)


def test_a_source_of_ones_own_is_prepared_with_its_labels():
    source = Greys([10, 200, 100])
    assert isinstance(source, Source)
    assert isinstance(source, Labelled)
    data = prepared(source)
    assert data.names == source.names
    assert np.array_equal(data.pixels, np.broadcast_to(np.array([10, 200, 100])[:, None, None, None], (3, 1, 4, 4)))
    assert data.labels["Bright"].tolist() == [0, 1, 1]
    assert data.notes == ["Drawn in memory."]


def test_without_files_the_images_themselves_identify_the_data():
    first, again, other = (prepared(Greys(levels)) for levels in ([10, 200], [10, 200], [10, 201]))
    assert first.key == again.key != other.key
    assert other.pixels[1, 0, 0, 0] == 201


def test_a_table_goes_before_the_labels_of_the_source_and_the_source_before_the_path(tmp_path):
    (tmp_path / "labels.csv").write_text("file,Own\ngrey-0.png,1\ngrey-1.png,0\n")
    Image.new("L", (8, 8), 50).save(tmp_path / "a.png")
    source = Greys([10, 200])
    assert list(prepared(source, source=str(tmp_path)).labels) == ["Bright"]
    assert prepared(source, labels=str(tmp_path / "labels.csv")).labels["Own"].tolist() == [1, 0]


def test_an_image_that_its_source_cannot_give_is_skipped_and_named():
    class Holed(Greys):
        def read(self, name):
            if name == "grey-0.png":
                raise OSError("the line is dead")
            return super().read(name)

    data = prepared(Holed([10, 200]))
    assert data.names == ["grey-1.png"]
    assert "grey-0.png cannot be read (the line is dead)" in data.notes[-1]
    with pytest.raises(ValueError, match=r"None of the images in Holed can be used\."):
        prepared(Holed([10]))
    with pytest.raises(ValueError, match=r"None of the images in squares can be used\."):
        prepared(Holed([10]), source="squares")


def test_a_folder_given_as_a_source_is_the_folder_at_its_path(tmp_path):
    (tmp_path / "set").mkdir()
    for i, level in enumerate((10, 200)):
        Image.new("L", (8, 8), level).save(tmp_path / "set" / f"{i}.png")
    given = prepared(Folder(tmp_path / "set"))
    found = prepare(dataclasses.replace(given.config, source=str(tmp_path / "set")), size=(4, 4), channels=1)
    assert given.key == found.key
    assert np.array_equal(given.pixels, found.pixels)
    assert is_image("a.PNG")
    assert not is_image("png")
