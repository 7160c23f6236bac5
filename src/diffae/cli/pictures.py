"""Commands that make pictures of given images, or of none."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from diffae.cli import inputs
from diffae.cli.bars import say, work_bar
from diffae.config import Count, Range, Seed
from diffae.runtime import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder


BATCH = 64
"""Images that are sampled at a time."""
Inversion = Literal["anchored", "fast", "refine", "reversible", "bdia", "official"]


@dataclass(frozen=True, kw_only=True)
class Reconstruct(inputs.Decoding, inputs.Cropping):
    """Encode images to their two codes and decode them again: the image, z_sem alone, both codes.

    Example: diffae reconstruct runs/quickstart a.png b.png --out again.png
    """

    source: inputs.Source
    """A run directory, a saved model, or the hub's name of one."""
    files: inputs.Files
    """The images; a column each."""
    inversion: Inversion = "anchored"
    """How x_T is found: `anchored` returns the image exactly and keeps its detail in edits, `fast` needs nothing but x_T,
    `official` is the authors' scheme."""
    steps: inputs.Steps = None
    """Solver steps in either direction; by default 20, or what was calibrated."""
    out: inputs.Moving = Path("reconstruct.png")
    """The picture."""

    def run(self) -> None:
        from diffae.metrics.images import mse

        ae = inputs.autoencoder(self.source, precision=self.precision)
        original = inputs.pixels(ae, self.files, self.crop)
        x = ae.from_pixels(original)
        again = ae.reconstruct(x, inversion=self.inversion, steps=self.steps)
        seen = ae.to_pixels(again)
        _show(ae, [x, ae.decode_mean(ae.encode(x)), again], self.out)
        for i, file in enumerate(self.files):
            print(f"{file}: MSE {mse(seen[i : i + 1], original[i : i + 1]):.2e} on the [0, 1] scale")


@dataclass(frozen=True, kw_only=True)
class Vary(inputs.Decoding, inputs.Cropping):
    """Keep z_sem and draw x_T afresh: what z_sem leaves open.

    Example: diffae vary runs/quickstart a.png --num 8 --out varied.png
    """

    source: inputs.Source
    """A run directory, a saved model, or the hub's name of one."""
    files: inputs.Files
    """The images; a row each, the image first."""
    num: Count = 8
    """Variations of each."""
    steps: inputs.Steps = None
    """Solver steps; by default 10, or what was calibrated."""
    seed: Seed = 0
    """Of the noise."""
    out: inputs.Moving = Path("vary.png")
    """The picture; a .gif, .webp or .mp4 shows the variations one after another."""

    def run(self) -> None:
        import torch

        ae = inputs.autoencoder(self.source, precision=self.precision)
        x = inputs.pictures(ae, self.files, self.crop)
        varied = ae.vary(x, num=self.num, steps=self.steps, seed=self.seed)
        _show(ae, [torch.cat([a[None], b]) for a, b in zip(x, varied, strict=True)], self.out)


@dataclass(frozen=True, kw_only=True)
class Interpolate(inputs.Decoding, inputs.Cropping):
    """Go from image to image, through as many as are given: z_sem on straight lines, x_T on the sphere.

    Example: diffae interpolate runs/quickstart a.png b.png c.png --frames 24 --out morph.gif
    """

    source: inputs.Source
    """A run directory, a saved model, or the hub's name of one."""
    files: inputs.Files
    """The images, two or more."""
    frames: Count = 8
    """Steps from one image to the next."""
    inversion: Inversion = "anchored"
    """How x_T is found: `anchored` returns the image exactly and keeps its detail in edits, `fast` needs nothing but x_T,
    `official` is the authors' scheme."""
    steps: inputs.Steps = None
    """Solver steps in either direction; by default 20, or what was calibrated."""
    out: inputs.Moving = Path("interpolate.png")
    """A .png shows the frames as a strip, a row for each pair; .gif, .webp and .mp4 move."""

    def run(self) -> None:
        ae = inputs.autoencoder(self.source, precision=self.precision)
        path = ae.interpolate_path(
            inputs.pictures(ae, self.files, self.crop), frames=self.frames, inversion=self.inversion, steps=self.steps
        )
        rows = [path[i * self.frames : (i + 1) * self.frames + 1] for i in range(len(self.files) - 1)]
        _show(ae, rows if self.out.suffix.lower() == ".png" else [path], self.out)


@dataclass(frozen=True, kw_only=True)
class Manipulate(inputs.Decoding, inputs.Cropping):
    """Move images along attributes, keeping their own x_T.

    Example: diffae manipulate runs/quickstart a.png --attribute Smiling --strengths -0.3 0 0.3
    """

    source: inputs.Source
    """A run directory, a saved model, or the hub's name of one."""
    files: inputs.Files = ()
    """The images; a row each, the image first."""
    attribute: tuple[str, ...] = ()
    """Fitted attributes, or principal directions (pc1, pc2, ...); several are moved at once."""
    edit: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """In place of images and attributes, an edit that the studio saved (JSON): the picture is the edited image, pixel by pixel."""
    strengths: Annotated[tuple[float, ...], Range(-100, 100)] = (-0.5, -0.25, 0.0, 0.25, 0.5)
    """Lengths of the move, a column each; useful are -0.5..0.5."""
    target_probability: Annotated[float | None, Range(0.001, 0.999)] = None
    """In place of strengths: move as far as this probability needs, and no further."""
    keep: tuple[str, ...] = ()
    """Attributes that must stay as they are."""
    inversion: Inversion = "anchored"
    """How x_T is found: `anchored` returns the image exactly and keeps its detail in edits, `fast` needs nothing but x_T,
    `official` is the authors' scheme."""
    steps: inputs.Steps = None
    """Solver steps in either direction; by default 20, or what was calibrated."""
    out: inputs.Moving = Path("manipulate.png")
    """The picture; a .gif, .webp or .mp4 shows the strengths one after another."""

    def run(self) -> None:
        import torch

        if (self.edit is None) == (not self.files or not self.attribute):
            raise ValueError("Give images and --attribute, or an edit that the studio saved, --from.")
        ae = inputs.autoencoder(self.source, precision=self.precision)
        if self.edit is not None:
            _replay(ae, self.edit, self.out)
            return
        x = inputs.pictures(ae, self.files, self.crop)
        code = ae.infer(x, inversion=self.inversion, steps=self.steps)
        if self.target_probability is not None:
            columns = [ae.manipulate(code, self.attribute, target_probability=self.target_probability, keep=self.keep)]
        else:
            moved = [ae.edit(code.z_sem, self.attribute, strength=s, keep=self.keep) for s in self.strengths]
            columns = [ae.render(code, z_sem=z) for z in moved]
        attributes = ae.attributes
        for name in (n for n in self.attribute if attributes is not None and n in attributes.scores):
            assert attributes is not None
            row = attributes.names.index(name)
            p = torch.stack([attributes.probabilities(ae.encode(ae.in_range(c)))[:, row] for c in (x, *columns)], dim=1)
            for file, values in zip(self.files, p.tolist(), strict=True):
                print(f"{file}: {name} {values[0]:.2f} -> {', '.join(f'{v:.2f}' for v in values[1:])}")
        edited = torch.stack(columns, dim=1)
        _show(ae, [torch.cat([a[None], b]) for a, b in zip(x, edited, strict=True)], self.out)


def _replay(ae: "DiffusionAutoencoder", file: Path, out: Path) -> None:
    """Writes the image of a saved edit."""
    from diffae.edits import Edit
    from diffae.interop.fingerprints import fingerprint
    from diffae.pictures import save_png, to_pil

    try:
        edit = Edit.from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:  # Text in another encoding, or none, among them.
        raise ValueError(f"{file}: {error}") from None
    edited = edit.render(ae, model=fingerprint(ae))
    print(f"Picture: {save_png(to_pil(ae.to_pixels(edited[None])[0]), out)}")


@dataclass(frozen=True, kw_only=True)
class Sample(inputs.Decoding, inputs.Labelling):
    """Draw new images: z_sem from the prior, x_T from noise; of a class, where an attribute is named.

    The attribute is a fitted one, or with --labels one of a table of few labels: 1 for positives, 0 for negatives; where there
    are no negatives, rows that are empty are taken as unlabelled. Under `torchrun` or `accelerate launch` the processes share the
    images of a folder.

    Example: diffae sample runs/quickstart --num 16 --attribute Smiling --labels few.csv
    """

    source: inputs.Source
    """A run directory, a saved model, or the hub's name of one."""
    num: Count = 16
    """Number of images."""
    attribute: str | None = None
    """What the images should show."""
    absent: bool = False
    """What they should not show, rather."""
    labels: Path | None = None
    """A table of few labels, with a `file` column and one named as the attribute."""
    data: str | None = None
    """The images of that table; by default those that the run was trained on."""
    prior: str | None = None
    """Which of the priors beside the model."""
    steps: inputs.Steps = None
    """Solver steps of the decoder; by default 10, or what was calibrated."""
    prior_steps: Annotated[int, Range(1, 1000)] = 20
    """Network calls of the prior."""
    max_proposals: Annotated[int | None, Range(1)] = None
    """Bound on the codes drawn to find those of the class; by default 500 for each image."""
    seed: Seed = 0
    """Image number i depends on the seed and i alone."""
    batch_size: Count = BATCH
    """Images that are decoded at a time."""
    out: Annotated[Path, inputs.Writes((*inputs.MOVING, ""))] = Path("samples.png")
    """The contact sheet; with a folder's name, every image as a PNG."""

    def run(self) -> None:
        import torch

        if self.labels is None and self.labels_kind:
            raise ValueError("--labels-kind is about the table of --labels, and none was given: name it.")
        processes.join()
        ae = inputs.autoencoder(self.source, prior=self.prior, precision=self.precision)
        accept = self._accept(ae) if self.attribute else None
        drawn = ae.sample_z_sem(
            self.num, prior_steps=self.prior_steps, seed=self.seed, accept=accept, max_proposals=self.max_proposals
        )
        if accept and processes.is_first():
            say(f"{self.num} of {drawn.proposals} proposals were accepted ({self.num / drawn.proposals:.1%})")
        if not self.out.suffix:
            self._fill(ae, drawn.z_sem)
        elif processes.is_first():
            starts = range(0, self.num, self.batch_size)
            x = torch.cat([self._decoded(ae, drawn.z_sem, start) for start in starts])
            columns = min(8, self.num)
            _show(ae, [x[i : i + columns] for i in range(0, len(x), columns)], self.out)

    def _fill(self, ae: "DiffusionAutoencoder", z_sem: "Tensor") -> None:
        """Writes every image to the folder, a batch at a time; of n processes each every n-th batch."""
        from diffae.pictures import save_png, to_pil

        starts = range(0, self.num, self.batch_size)
        with work_bar("Sampling") as update:
            for start in processes.own(starts):
                update("Sampling", start, self.num)
                for i, image in enumerate(ae.to_pixels(self._decoded(ae, z_sem, start)), start=start):
                    save_png(to_pil(image), self.out / f"{i:05d}.png")
        processes.wait()
        if processes.is_first():
            print(f"Pictures: {self.out}")

    def _decoded(self, ae: "DiffusionAutoencoder", z_sem: "Tensor", start: int) -> "Tensor":
        """The images of one batch of these codes."""
        return ae.decode(z_sem[start : start + self.batch_size], steps=self.steps, seed=self.seed, start=start)

    def _accept(self, ae: "DiffusionAutoencoder") -> "Callable[[Tensor], Tensor]":
        """The probability with which a code is of the class."""
        import numpy as np

        from diffae.data.labels.columns import described, is_binary
        from diffae.semantics.fitting import fit_few
        from diffae.semantics.standardizer import Standardizer

        assert self.attribute is not None
        if self.labels is None:
            if ae.attributes is None:
                raise ValueError(
                    f"No attributes are fitted to {self.source}: fit them with `diffae fit-attributes`, or give a few --labels."
                )
            return ae.attributes.probability(self.attribute, value=not self.absent)
        data = inputs.images(ae, self.source, self.data, self.labels, labels_kind=self.labels_kind)
        if self.attribute not in data.labels:
            raise ValueError(
                f"{self.labels} has no column {self.attribute!r}. It has: {', '.join(data.labels) or 'none'}; what was left out is "
                "named above."
            )
        y = data.labels[self.attribute]
        say(f"{self.attribute}: {described(y)}")
        if not is_binary(y):
            raise ValueError(f"{self.attribute!r} is continuous and has no probability: give labels of 1, and 0 or nothing.")
        z = inputs.codes(ae, self.source, data)
        negatives, unlabelled = np.flatnonzero(y == 0), np.flatnonzero(np.isnan(y))
        others = negatives if len(negatives) else unlabelled
        positives = np.flatnonzero(y == 1)
        kind = "negative" if len(negatives) else "unlabelled"
        say(f"{len(positives)} positive and {len(others)} {kind} images")
        few = fit_few(self.attribute, z[positives], z[others], Standardizer.fit(z), unlabelled=not len(negatives))
        return few.probability(self.attribute, value=not self.absent)


def _show(ae: "DiffusionAutoencoder", rows: "list[Tensor]", out: Path) -> None:
    """Writes rows of images as a contact sheet, or as frames that move, as the name of the file says."""
    from diffae.pictures import save_animation, save_png, scale_for, sheet

    rows = [ae.to_pixels(row) for row in rows]
    scale = scale_for(rows[0])
    if out.suffix.lower() == ".png":
        save_png(sheet(rows, scale=scale), out)
    else:
        frames = [sheet([[row[i]] for row in rows], scale=2 * scale) for i in range(len(rows[0]))]
        save_animation(frames, out)
    print(f"Picture: {out}")
