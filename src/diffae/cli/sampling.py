"""The command that draws new images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, work_bar
from diffae.cli.sheets import show
from diffae.config import Count, Range, Seed
from diffae.runtime import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder


@dataclass(frozen=True, kw_only=True)
class Sample(arguments.Decoding, arguments.Labelling):
    """Draw new images: z_sem from the prior, x_T from noise; of a class, where an attribute is named.

    The attribute is a fitted one, or with --labels one of a table of few labels: 1 for positives, 0 for negatives; where there
    are no negatives, rows that are empty are taken as unlabelled. Under `torchrun` or `accelerate launch` the processes share the
    images of a folder.

    Example: diffae sample runs/quickstart --num 16 --attribute Smiling --labels few.csv
    """

    source: arguments.Source
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
    """Which of the priors beside the model; by default the one that `diffae.load` takes."""
    steps: arguments.Steps = None
    """Solver steps of the decoder; by default 10, of a distilled model 1, or what was calibrated."""
    prior_steps: Annotated[int, Range(1, 1000)] = 20
    """Network calls of the prior."""
    max_proposals: arguments.Number = None
    """Bound on the codes drawn to find those of the class; by default 500 for each image."""
    seed: Seed = 0
    """Image number i depends on the seed and i alone."""
    batch_size: Count = 64
    """Images that are decoded at a time."""
    out: Annotated[Path, arguments.Writes((*arguments.MOVING, ""))] = Path("samples.png")
    """The contact sheet; with a folder's name, every image as a PNG."""

    def run(self) -> None:
        from diffae.interop.parts import available_priors, priors_of_labels

        if self.labels is None and self.labels_kind:
            raise ValueError("--labels-kind is about the table of --labels, and none was given: name it.")
        if self.attribute is None and (self.labels, self.absent, self.data, self.max_proposals) != (None, False, None, None):
            raise ValueError(
                "--labels, --absent, --data and --max-proposals are about what images should show: name an --attribute."
            )
        if self.labels is None and self.data is not None:
            raise ValueError(f"--data {self.data} names the images of the table of --labels: give both, or neither.")
        numbered = [] if self.out.suffix else [file for file in self.out.glob("*.png") if file.stem.isdecimal()]
        if others := [file.name for file in numbered if int(file.stem) >= self.num]:
            raise ValueError(
                f"{self.out} holds {min(others)}, which would lie among the {self.num:,} new images as if it were one of them: "
                "name another folder, or delete that one."
            )
        processes.join()
        ae = inputs.autoencoder(self.source, prior=self.prior, precision=self.precision)
        folder = Path(self.source)
        if ae.prior is None and not available_priors(folder) and (of_labels := priors_of_labels(folder)):
            raise ValueError(
                f"{self.source} has priors of images with one label alone: name one with --prior, {', '.join(of_labels)}."
            )
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
            x = [image for start in starts for image in self._decoded(ae, drawn.z_sem, start)]
            columns = min(8, self.num)
            show(ae, [x[i : i + columns] for i in range(0, len(x), columns)], self.out)

    def _fill(self, ae: "DiffusionAutoencoder", z_sem: "Tensor") -> None:
        """Writes every image to the folder, a batch at a time. With n processes, each writes every n-th batch."""
        from diffae.pictures import save_png, to_pil

        starts = range(0, self.num, self.batch_size)
        with work_bar("Sampling") as update:
            for start in processes.shard(starts):
                update("Sampling", start, self.num)
                for i, image in enumerate(ae.to_pictures(self._decoded(ae, z_sem, start)), start=start):
                    save_png(to_pil(image), self.out / f"{i:05d}.png")
        processes.barrier()
        if processes.is_first():
            print(f"Pictures: {self.out}")

    def _decoded(self, ae: "DiffusionAutoencoder", z_sem: "Tensor", start: int) -> "Tensor":
        """The images of one batch of these codes."""
        return ae.decode(z_sem[start : start + self.batch_size], steps=self.steps, seed=self.seed, start=start)

    def _accept(self, ae: "DiffusionAutoencoder") -> "Callable[[Tensor], Tensor]":
        """A function of codes (n, d): the probability of the class for each."""
        from diffae.data.labels.columns import describe_values, is_binary
        from diffae.semantics.fitting import fit_labelled

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
        say(f"{self.attribute}: {describe_values(y)}")
        if not is_binary(y):
            raise ValueError(f"{self.attribute!r} is continuous and has no probability: give labels of 1, and 0 or nothing.")
        few, found = fit_labelled(self.attribute, inputs.codes(ae, self.source, data), y)
        say(found)
        return few.probability(self.attribute, value=not self.absent)
