"""Commands that make pictures from given images: reconstructed, varied, interpolated."""

from dataclasses import dataclass
from pathlib import Path

from diffae.cli import arguments, inputs
from diffae.cli.bars import say
from diffae.cli.sheets import save_values, show
from diffae.config import Count, Seed

MOST_PAST = 5000
"""Codes that a way goes past: it takes seconds to find among them."""


@dataclass(frozen=True, kw_only=True)
class Reconstruct(arguments.Decoding, arguments.Cropping):
    """Encode images to their two codes and decode them again: the image, z_sem alone, both codes.

    Example: diffae reconstruct runs/quickstart a.png b.png --out again.png
    """

    source: arguments.Source
    files: arguments.Files
    """The images; a column each."""
    inversion: arguments.Inversion = "anchored"
    steps: arguments.InversionSteps = None
    out: arguments.Moving = Path("reconstruct.png")
    """The picture; of volumes a .gif goes through the slices."""
    values: arguments.Values = None
    """Of one image: also write it in the values of its file, as .npy, .tif, or of a volume with an affine as .nii.gz."""

    def run(self) -> None:
        from diffae.metrics.images import mse

        if self.values is not None and len(self.files) != 1:
            raise ValueError(f"--values writes one image, {self.values}, and {len(self.files)} are given: give one at a time.")
        ae = inputs.autoencoder(self.source, precision=self.precision)
        original = inputs.pixels(ae, self.files, self.crop)
        x = ae.from_pixels(original)
        again = ae.reconstruct(x, inversion=self.inversion, steps=self.steps)
        seen = ae.to_pixels(again)
        show(ae, [x, ae.decode_mean(ae.encode(x)), again], self.out)
        if self.values is not None:
            save_values(ae, again[0], self.values, like=self.files[0], crop=self.crop)
        for i, file in enumerate(self.files):
            print(f"{file}: MSE {mse(seen[i : i + 1], original[i : i + 1]):.2e} on the [0, 1] scale")


@dataclass(frozen=True, kw_only=True)
class Vary(arguments.Decoding, arguments.Cropping):
    """Keep z_sem and draw x_T afresh: what z_sem leaves open.

    Example: diffae vary runs/quickstart a.png --num 8 --out varied.png
    """

    source: arguments.Source
    files: arguments.Files
    """The images; a row each, the image first."""
    num: Count = 8
    """Variations of each."""
    steps: arguments.Steps = None
    """Solver steps; by default 10, of a distilled model 1, or what was calibrated."""
    seed: Seed = 0
    """Of the noise."""
    out: arguments.Moving = Path("vary.png")
    """The picture; a .gif, .webp or .mp4 shows the variations one after another."""

    def run(self) -> None:
        ae = inputs.autoencoder(self.source, precision=self.precision)
        x = inputs.pictures(ae, self.files, self.crop)
        varied = ae.vary(x, num=self.num, steps=self.steps, seed=self.seed)
        show(ae, [[image, *fresh] for image, fresh in zip(x, varied, strict=True)], self.out)


@dataclass(frozen=True, kw_only=True)
class Interpolate(arguments.Decoding, arguments.Cropping):
    """Go from image to image, through as many as are given: z_sem straight, or past codes of other images; x_T on the sphere.

    Example: diffae interpolate runs/quickstart a.png b.png c.png --frames 24 --out morph.gif
    """

    source: arguments.Source
    files: arguments.Files
    """The images, two or more."""
    frames: Count = 8
    """Steps from one image to the next."""
    geodesic: bool = False
    """z_sem passes by codes of other images, on the shortest way between them, rather than on a straight line."""
    data: str | None = None
    """Those images, 5,000 at random of more; by default those that the run was trained on."""
    inversion: arguments.Inversion = "anchored"
    steps: arguments.InversionSteps = None
    out: arguments.Moving = Path("interpolate.png")
    """A .png shows the frames as a strip, a row for each pair; .gif, .webp and .mp4 move."""

    def run(self) -> None:
        from diffae.runtime.seeding import Draws

        if self.data is not None and not self.geodesic:
            raise ValueError(f"--data {self.data} names the images that --geodesic passes by: give both, or neither.")
        ae = inputs.autoencoder(self.source, precision=self.precision)
        x, past = inputs.pictures(ae, self.files, self.crop), None
        if self.geodesic and len(x) > 1:
            data = inputs.images(ae, self.source, self.data)
            past = inputs.codes(ae, self.source, data)[data.train if self.data is None else slice(None)]
            if len(past) > MOST_PAST:
                say(f"z_sem goes past {MOST_PAST:,} of {len(past):,} codes, at random")
                past = past[Draws.of(len(past), 0).uniform("past", ()).argsort()[:MOST_PAST]]
        path = ae.interpolate_path(x, frames=self.frames, past=past, inversion=self.inversion, steps=self.steps)
        rows = [path[i * self.frames : (i + 1) * self.frames + 1] for i in range(len(self.files) - 1)]
        show(ae, rows if self.out.suffix.lower() == ".png" else [path], self.out)
