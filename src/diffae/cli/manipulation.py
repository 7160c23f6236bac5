"""The command that edits attributes of images."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffae.cli import arguments, inputs
from diffae.cli.bars import warn
from diffae.cli.sheets import save_each, save_values, show
from diffae.config import Range

if TYPE_CHECKING:
    from diffae.autoencoder import DiffusionAutoencoder


@dataclass(frozen=True, kw_only=True)
class Manipulate(arguments.Decoding, arguments.Cropping):
    """Move images along attributes, keeping their own x_T.

    Example: diffae manipulate runs/quickstart a.png --attribute Smiling --strengths -0.3 0 0.3
    """

    source: arguments.Source
    files: arguments.Files = ()
    """The images; a row each, the image first."""
    attribute: tuple[str, ...] = ()
    """Fitted attributes, or principal directions (pc1, pc2, ...); several are moved at once."""
    edit: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """In place of images and attributes, an edit that the studio saved (JSON): the picture is the edited image, pixel by pixel."""
    strengths: Annotated[tuple[float, ...], Range(-100, 100)] = (-0.5, -0.25, 0.0, 0.25, 0.5)
    """Lengths of the move, a column each; useful are -0.5..0.5."""
    target_probability: Annotated[float | None, Range(0.001, 0.999)] = None
    """In place of strengths: move as far as this probability needs, and no further."""
    target_value: Annotated[float | None, Range(-1e30, 1e30)] = None
    """Likewise the value that a continuous attribute should have."""
    keep: tuple[str, ...] = ()
    """Attributes that must stay as they are."""
    inversion: arguments.Inversion = "anchored"
    steps: arguments.InversionSteps = None
    out: arguments.MovingOrFolder = Path("manipulate.png")
    """The picture; a .gif, .webp or .mp4 shows the strengths one after another. A name without ending is a folder: there each image
    is written by itself, edited, under its own name, with one strength, or with a target probability."""

    values: arguments.Values = None
    """Of one image, edited by one strength or to a probability: also write it in the values of its file, see `reconstruct`."""

    def run(self) -> None:
        if self.edit is None and not (self.files and self.attribute):
            raise ValueError("Give images and --attribute, or an edit that the studio saved, --from.")
        alone = Manipulate(source=self.source, edit=self.edit, out=self.out, precision=self.precision)
        if self.edit is not None and self != alone:
            raise ValueError(
                "An edit that the studio saved, --from, says which image is edited and how: leave images away, and all options but "
                "--out and --precision."
            )
        if self._aims and self.strengths != Manipulate.strengths:
            raise ValueError("--strengths says how far to move, and so does a target: give one of them.")
        if self.values is not None and (len(self.files) != 1 or not self._once):
            raise ValueError(f"--values writes one image, {self.values}: give one, and one of --strengths, or a target.")
        single = not self.out.suffix and self.edit is None
        if single and not self._once:
            raise ValueError(
                f"In the folder {self.out} each image is written once: give one of --strengths, or --target-probability."
            )
        targets = self._targets() if single else []
        ae = inputs.autoencoder(self.source, precision=self.precision)
        if self.edit is not None:
            _replay(ae, self.edit, self.out)
            return
        x = inputs.pictures(ae, self.files, self.crop)
        code = ae.infer(x, inversion=self.inversion, steps=self.steps)
        if self._aims:
            p, value = self.target_probability, self.target_value
            columns = [ae.manipulate(code, self.attribute, target_probability=p, target_value=value, keep=self.keep)]
        else:
            moved = [ae.edit(code.z_sem, self.attribute, strength=s, keep=self.keep) for s in self.strengths]
            columns = [ae.render(code, z_sem=z) for z in moved]
        seen = [] if ae.attributes is None else [ae.attributes.by_name(ae.encode(ae.clamp(c))) for c in (x, *columns)]
        for name in (name for name in self.attribute if seen and name in seen[0]):
            for i, file in enumerate(self.files):
                before, *after = (column[name][i] for column in seen)
                print(f"{file}: {name} {before:.2f} -> {', '.join(f'{p:.2f}' for p in after)}")
        if self.values is not None:
            save_values(ae, columns[0][0], self.values, like=self.files[0], crop=self.crop)
        if single:
            save_each(ae, columns[0], targets)
            return
        show(ae, list(zip(x, *columns, strict=True)), self.out)

    def _targets(self) -> list[Path]:
        """Where the images are written in the folder.

        Raises:
            ValueError: two would be one file, or something is there.
        """
        from diffae.data.images import stem

        targets = [self.out / f"{stem(file.name)}.png" for file in self.files]
        if twice := [target for target, num in Counter(targets).items() if num > 1]:
            raise ValueError(f"Two of the images would be one file, {twice[0]}: edit them in two calls, to two folders.")
        if own := [file for file, target in zip(self.files, targets, strict=True) if target.resolve() == file.resolve()]:
            raise ValueError(f"{own[0]} would be written over: name another folder than {self.out}.")
        if there := [target for target in targets if target.exists()]:
            raise ValueError(
                f"{there[0]} is there, and may be of another image: name another folder than {self.out}, or delete it."
            )
        return targets

    @property
    def _aims(self) -> bool:
        """Whether images are moved as far as a target needs."""
        return self.target_probability is not None or self.target_value is not None

    @property
    def _once(self) -> bool:
        """Whether each image is edited in one way only."""
        return len(self.strengths) == 1 or self._aims


def _replay(ae: "DiffusionAutoencoder", file: Path, out: Path) -> None:
    """Writes the image of a saved edit."""
    from diffae.edits import Edit
    from diffae.interop.fingerprints import digest_model, fingerprint
    from diffae.pictures import save_png, to_pil

    try:
        edit = Edit.from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:  # Decoding errors too.
        raise ValueError(f"{file}: {error}") from None
    if not out.suffix:
        raise ValueError(f"The image of an edit is one file: give --out an ending, {out}.png.")
    edited = edit.render(ae, model=fingerprint(ae))
    for difference in edit.differences(ae, networks=digest_model(ae)):
        warn(f"{file}: {difference}")
    print(f"Picture: {save_png(to_pil(ae.to_pictures(edited[None])[0]), out)}")
