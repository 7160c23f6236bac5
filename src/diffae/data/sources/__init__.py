"""Where images come from: a folder, a zip, an LMDB, tables, shards, arrays, slides. Listed by name and read one at a time."""

from diffae.data.sources.arrays import Arrays
from diffae.data.sources.folder import Folder
from diffae.data.sources.hub import HUB, from_hub
from diffae.data.sources.lmdb import Lmdb
from diffae.data.sources.opening import KINDS, open_source
from diffae.data.sources.parquet import Table
from diffae.data.sources.parts import divided
from diffae.data.sources.series import Series
from diffae.data.sources.shards import Shards
from diffae.data.sources.slides import Slides, tile_map
from diffae.data.sources.source import Labelled, Source
from diffae.data.sources.zip import Zip

__all__ = [
    "HUB",
    "KINDS",
    "Arrays",
    "Folder",
    "Labelled",
    "Lmdb",
    "Series",
    "Shards",
    "Slides",
    "Source",
    "Table",
    "Zip",
    "divided",
    "from_hub",
    "open_source",
    "tile_map",
]
