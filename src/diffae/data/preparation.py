"""From a source to an `ImageSet`: every image is decoded once, to a cache at the training size.

Images that cannot be used are found here, before training, and named. Afterwards an image is a memory-mapped row.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from diffae.config import DataConfig
from diffae.data.avatars import SETS, avatars_folder
from diffae.data.cache import Decoder, cached
from diffae.data.companions import CompanionFiles
from diffae.data.contents import UNREADABLE, Progress, caching, digests
from diffae.data.dataset import ImageSet, divided_as_configured
from diffae.data.images import in_range
from diffae.data.labelling import Labelling, LabelTable
from diffae.data.labels import load_labels
from diffae.data.measuring import MEASURES, resolved
from diffae.data.sources import HUB, Series, Source, from_hub, open_source
from diffae.data.sources.folder import Folder
from diffae.frozen.vae import FrozenAutoencoder, frozen_autoencoder
from diffae.runtime import seeding
from diffae.runtime.files import cache_folder, digest_lines, printable, write_text


def prepare(
    config: DataConfig,
    *,
    size: tuple[int, ...],
    channels: int,
    progress: Progress | None = None,
    source: Source | None = None,
    labels: LabelTable | None = None,
    divide: Callable[[ImageSet], ImageSet] = divided_as_configured,
) -> ImageSet:
    """Decodes images once, to the cache, and adds their labels and their split.

    Args:
        config: what to read and how.
        size: sides of the model's images; of latents, theirs.
        channels: of the model's images, or latents.
        progress: called as long work goes on.
        source: images to take in place of those at `config.source`, which is then only their name in messages. Their labels are in
            the table `config.labels`, or come from the source if it is `Labelled`.
        labels: a table that is read in place of those labels, after the images were divided by the groups that those have.
        divide: divides the images into those to train on and those held out; by default as `config.validation` says.

    Raises:
        FileNotFoundError: there is no such source or label table.
        ValueError: no image is usable, a label table cannot be right, or latents have another shape than the model's.
    """
    progress = progress or (lambda what, done, total: None)
    grid, latent_channels, vae = size, channels, None
    if config.latents is not None:
        vae = frozen_autoencoder(config.latents)
        size, channels = vae.image_size(channels, size), vae.image_channels
    if source is None:
        root, source = source_of(config, size=size, progress=progress)
        beside = root / "labels.csv"
    else:
        root, beside = Path(config.source or type(source).__name__), None
    decode = decoder_of(config, source, size=size, channels=channels, progress=progress)
    config = decode.config
    number, closed = _look(decode, progress)
    key = f"{number if vae is None else seeding.mix('latents-1', number, vae.digest, int(config.flip)):016x}"
    folder = cache_folder() / "pixels" / f"{'x'.join(map(str, grid))}x{latent_channels}-{key}"
    convert = None if vae is None else lambda images: _latents(vae, images, flip=config.flip)
    with caching():
        readable = [name for name in source.names if name not in closed]
        names, pixels, skipped, remarks, meaning = cached(decode, readable, folder, convert=convert, progress=progress)
    skipped = [*closed.items(), *skipped]
    mirrored, known, notes = None, None, remarks
    if vae is not None and names:
        pixels, mirrored = pixels[:, 0], pixels[:, 1] if config.flip else None
        notes += _scale_note(vae, pixels)
    if config.mask is not None and names:
        pixels, known = pixels[:, :channels], pixels[:, channels:]
    others = source.others - _tables(source, root, Path(config.labels) if config.labels else beside)
    if others > 0 and config.source not in SETS:
        them = (
            "file in {} was left alone: its name is not that of an image"
            if others == 1
            else ("files in {} were left alone: their names are not those of images")
        )
        notes.append(f"{others} {them.format(root)}.")
    if skipped:
        listed = "\n".join(f"  {printable(name)} {reason}" for name, reason in skipped[:20])
        more = f"\n  and {len(skipped) - 20} more" if len(skipped) > 20 else ""
        notes.append(f"{len(skipped)} of {len(source.names)} images were skipped:\n{listed}{more}")
    if not names:
        shapes = [reason for _, reason in skipped if "has shape" in reason or "channels" in reason or "volume" in reason]
        ask = "\nA model is of one shape: --model.channels and --model.image-size (H W, or D H W of volumes) say which."
        raise ValueError(f"None of the images in {root} can be used.\n{notes[-1]}{ask if shapes else ''}")
    notes[:0] = source.notes
    labelling = Labelling(source, root, beside, names, config)
    if labels is None:
        own, told = labelling.labels()
        values, groups = ({}, None) if own is None else (own.values, own.groups)
    else:
        values, groups, told = {}, labelling.groups(), []
    data = divide(
        ImageSet(
            names=names,
            pixels=pixels,
            labels=values,
            train=np.arange(0),
            validation=np.arange(0),
            notes=[*notes, *told],
            config=config,
            key=key,
            known=known,
            meaning=", ".join([meaning, *(f"a channel of {path}" for path in config.also)]),
            mirrored=mirrored,
            groups=None if groups is None else np.array(groups),
        )
    )
    return data if labels is None else _relabelled(data, labels)


def _relabelled(data: ImageSet, table: LabelTable) -> ImageSet:
    """Images that are divided, with the labels of another table; if that has groups, with those too."""
    found = load_labels(table.path, data.names, table.kinds)
    groups = data.groups if found.groups is None else np.array(found.groups)
    config = replace(data.config, labels=str(table.path), labels_kind=table.kinds)
    relabelled = replace(data, labels=found.values, groups=groups, notes=[*data.notes, *found.notes], config=config)
    relabelled.notes.extend(relabelled.torn())
    return relabelled


def source_of(config: DataConfig, *, size: tuple[int, ...], progress: Progress) -> tuple[Path, Source]:
    """The path and the source of a configuration's images. Avatars are drawn, and data sets of the hub fetched, if need be."""
    if config.source in SETS:
        with caching():
            root = avatars_folder(cache_folder(), num=config.avatars, size=max(size), progress=progress, name=config.source)
    else:
        root = from_hub(config.source) if config.source.startswith(HUB) else Path(config.source)
    return root, open_source(root, sides=len(size), tile=config.tile, least_tissue=config.least_tissue)


def decoder_of(config: DataConfig, source: Source, *, size: tuple[int, ...], channels: int, progress: Progress) -> Decoder:
    """What decodes a source's images as a configuration asks; its own configuration has numbers for a range that was measured.

    Raises:
        FileNotFoundError: there is no such folder of masks or further channels.
        ValueError: as many further channels as the images have in all, or a range that cannot be measured.
    """
    masks = None if config.mask in (None, "gaps") else CompanionFiles(Path(config.mask), sides=len(size))
    also = [CompanionFiles(Path(path), sides=len(size)) for path in config.also]
    if len(also) >= channels:
        raise ValueError(
            f"data.also gives {len(also)} channels, and the model's images have {channels}: set model.channels higher."
        )
    config = _with_range(config, source, size=size, channels=channels - len(also), progress=progress)
    return Decoder(source, config, size, channels, masks, also)


class Look(NamedTuple):
    """What a look at the bytes of all images tells.

    Attributes:
        fingerprint: identifies them.
        closed: name -> why it cannot be read.
    """

    fingerprint: str
    closed: dict[str, str]


def look_at(source: Source, progress: Progress = lambda what, done, total: None) -> Look:
    """Identifies images by their names and the bytes of the files that hold them; without such files, by the images' own bytes."""
    contents = digests(source.holders, progress) if source.holders else [_digest(source, name) for name in source.names]
    closed: dict[str, str] = {}
    known = set(source.names)
    places = [holder.as_posix() for holder in source.holders] or source.names
    for place, said in zip(places, contents, strict=True):
        if said.startswith(UNREADABLE):
            # Of files that are images, the name is their path without that of the folder.
            parts = place.split("/")
            name = next((end for i in range(len(parts)) if (end := "/".join(parts[i:])) in known), None)
            closed |= {name: f"cannot be read ({said.removeprefix(UNREADABLE)})"} if name else {}
    return Look(digest_lines([*source.names, *contents]), closed)


def _digest(source: Source, name: str) -> str:
    """A digest of an image's bytes, or the reason why it cannot be read."""
    try:
        return hashlib.blake2b(source.read(name), digest_size=16).hexdigest()
    except OSError as error:
        return f"{UNREADABLE}{error}"


def _with_range(config: DataConfig, source: Source, *, size: tuple[int, ...], channels: int, progress: Progress) -> DataConfig:
    """The configuration with numbers for a range that is to be measured; they are measured once, and kept."""
    if config.range not in MEASURES:
        return config
    look = look_at(source, progress)
    gaps = ("gaps",) if config.mask == "gaps" else ()
    key = seeding.mix("range-2", look.fingerprint, config.range, len(size), channels, *gaps)
    file = cache_folder() / "ranges" / f"{key:016x}.json"
    with caching():
        if not file.is_file():
            names = [name for name in source.names if name not in look.closed]
            found = resolved(config, source, names, size=size, channels=channels, progress=progress)
            write_text(file, json.dumps(found.range))
    return replace(config, range=tuple(json.loads(file.read_text(encoding="utf-8"))))


def _look(decode: Decoder, progress: Progress) -> tuple[int, dict[str, str]]:
    """Identifies the images and how they are prepared; and which of them cannot be read, or what belongs to them, and why."""
    config = decode.config
    limits = config.preparation.range or ()
    folders = [*([] if decode.masks is None else [decode.masks]), *decode.also]
    beside = [look_at(folder.source) for folder in folders]
    more = (*(() if config.mask is None else ("mask" if decode.masks else "gaps-2",)), *(look.fingerprint for look in beside))
    own = look_at(decode.source, progress)
    closed = dict(own.closed)
    for folder, look in zip(folders, beside, strict=True):
        for name in decode.source.names if look.closed else ():
            if (why := look.closed.get(folder.of(name) or "")) and name not in closed:
                closed[name] = f"has {folder.of(name)} in {folder.path}, which {why}"
    named = (limits,) if isinstance(limits, str) else limits
    made = (*decode.size, decode.channels, config.tile, config.crop, *config.background, *map(str, named), *more)
    return seeding.mix("pixels-6", own.fingerprint, *made), closed


def _tables(source: Source, root: Path, table: Path | None) -> int:
    """How many of a folder's other files are the table of labels, which is read."""
    if table is None or not isinstance(source, Folder | Series):
        return 0
    return sum((root / name).resolve() == table.resolve() for name in source.rest)


def _latents(vae: FrozenAutoencoder, images: np.ndarray, *, flip: bool) -> np.ndarray:
    """Latents of images, (n, views, c, *sides), float16. The second view, if `flip`, is that of the flipped images."""
    parts = []
    for start in range(0, len(images), 32):
        x = in_range(images[start : start + 32])
        parts.append(torch.stack([vae.encode(view) for view in ((x, x.flip(3)) if flip else (x,))], dim=1).half())
    return torch.cat(parts).numpy()


def _scale_note(vae: FrozenAutoencoder, latents: np.ndarray) -> list[str]:
    """A note where the latents' scale is far from 1, for which noise schedules are made."""
    std = float(latents[:256].astype(np.float32).std())
    if 0.5 < std < 2:
        return []
    return [
        f"The latents of {vae.name} have a standard deviation of {std:.3g}, where about 1 is best: set scaling_factor in its "
        f"config.json to {vae.scale / max(std, 1e-6):.3g}."
    ]
