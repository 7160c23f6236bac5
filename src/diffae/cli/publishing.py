"""Commands that hand a model on: to the hub, to a folder, to other programs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from diffae.cli import arguments, inputs
from diffae.cli.bars import warn, work_bar

if TYPE_CHECKING:
    import torch

    from diffae.autoencoder import DiffusionAutoencoder


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """What commands have in common that hand a model on."""

    source: arguments.Source
    licence: str | None = None
    """Licence of the weights, such as `mit` or `cc-by-4.0`; the data may decide it."""
    data: str | None = None
    """What the model was trained on, in words, in place of the name of the run's data."""
    prior: str | None = None
    """Which of the priors travels along; by default the one that `diffae.load` takes."""

    def model(self) -> "DiffusionAutoencoder":
        """Loads the model, with what its card says about it."""
        ae = inputs.autoencoder(self.source, prior=self.prior)
        ae.about |= {k: v for k, v in {"licence": self.licence, "data": self.data}.items() if v is not None}
        if not ae.about.get("licence"):
            warn("No licence is stated (--licence): by default nobody may use the model.")
        return ae


@dataclass(frozen=True, kw_only=True)
class Push(PublishOptions):
    """Publish a model on the Hugging Face hub, its prior and attributes with it, with a model card.

    Log in first with `hf auth login`.

    Example: diffae push runs/quickstart user/faces --licence mit
    """

    repo_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="USER/MODEL")]
    """Where to."""
    private: bool = False
    """Make a new repository private."""

    def run(self) -> None:
        print(self.model().push_to_hub(self.repo_id, private=self.private))


@dataclass(frozen=True, kw_only=True)
class Export(PublishOptions):
    """Save a model to a folder that can be handed on: weights, prior and attributes in one file, and a model card.

    Or write it for other programs: --format onnx, encoder, network, and the loops that invert, decode and sample, as ONNX files;
    --format diffusers, a pipeline for the library diffusers. Neither takes prior and attributes along.

    Example: diffae export runs/quickstart models/faces --licence mit --dtype bfloat16
    """

    out: Annotated[tyro.conf.Positional[arguments.ModelFolder], tyro.conf.arg(metavar="FOLDER")]
    """Where to."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the networks' weights in the file; `bfloat16` halves it, and rounds them to three digits. ONNX files are of float32."""
    format: Literal["diffae", "onnx", "diffusers"] = "diffae"
    """For whom: `diffae.load`, onnxruntime and others (`onnx`), or `DiffusionPipeline.from_pretrained`."""

    def run(self) -> None:
        from diffae.diffusion.card import CARD

        if (card := self.out / "README.md").is_file() and CARD not in card.read_text(encoding="utf-8", errors="replace"):
            raise ValueError(f"{card} is no model card, and one would take its place. Name another folder.")
        if self.format == "onnx" and self.dtype != "float32":
            raise ValueError("ONNX files are of float32: leave --dtype away.")
        if self.format != "diffae" and self.prior is not None:
            raise ValueError(f"With --format {self.format} no prior travels along: leave --prior away.")
        {"diffae": self._save, "onnx": self._write_onnx, "diffusers": self._write_pipeline}[self.format](self.model())

    def _save(self, ae: "DiffusionAutoencoder") -> None:
        from diffae.runtime.files import write_text

        ae.save_pretrained(self.out, dtype=self._weights())
        write_text(self.out / "README.md", ae.model_card(self.out.as_posix()))
        size = (self.out / "model.safetensors").stat().st_size / 2**20
        print(f"{self.out}: {size:.1f} MiB. Load it with diffae.load({self.out.as_posix()!r}).")

    def _write_onnx(self, ae: "DiffusionAutoencoder") -> None:
        from diffae.interop import onnx

        with work_bar("ONNX") as update:
            difference = onnx.export(ae, self.out, progress=update)
        print(f"{self.out}: {', '.join(sorted(f.name for f in self.out.glob('*.onnx')))}; within {difference:.1g} of torch.")

    def _write_pipeline(self, ae: "DiffusionAutoencoder") -> None:
        from diffae.interop.diffusers import write_folder

        write_folder(ae, self.out, dtype=self._weights())
        print(f"{self.out}: DiffusionPipeline.from_pretrained({self.out.as_posix()!r}, trust_remote_code=True) loads it.")

    def _weights(self) -> "torch.dtype | None":
        import torch

        return torch.bfloat16 if self.dtype == "bfloat16" else None
