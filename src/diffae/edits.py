"""An edit as a file: what was shown, where z_sem was moved to, and how to make the same pixels of it again."""

import base64
import dataclasses
import io
import json
import math
import tokenize
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.inversion import Inversion

FORMAT = "diffae-edit-1"
MOST_STEPS = 10_000


@dataclass(frozen=True)
class Edit:
    """One edited image.

    Attributes:
        model: fingerprint of the model that it is of (`interop.weights.fingerprint`).
        image: (c, *sides), the image that was edited, as the model takes it.
        z_sem: (d,), where its code was moved to.
        inversion: how x_T was found.
        steps: solver steps in either direction.
        asked: what moved z_sem, for the reader: attribute -> strength, and the like.
        networks: what identifies decoder and encoder (`interop.fingerprints.digest_model`); None in older files.
        levels: the calibration that paths had, see `levels_of`; None in older files.
    """

    model: str
    image: Float[Tensor, "c *sides"]
    z_sem: Float[Tensor, " d"]
    inversion: Inversion
    steps: int
    asked: Mapping[str, Any] = field(default_factory=dict)
    networks: str | None = None
    levels: list[Any] | None = None

    def differences(self, ae: DiffusionAutoencoder, *, networks: str) -> list[str]:
        """What is otherwise than it was when the edit was saved, so that its pixels are others; nothing where it does not say.

        Args:
            ae: the model.
            networks: what identifies its networks.
        """
        found = []
        if self.networks not in (None, networks):
            found.append("it was saved with another decoder (before more training, perhaps), so its pixels will be others.")
        if self.levels not in (None, levels_of(ae)) and self.inversion != "official":
            spacing, t_max = levels_of(ae)
            found.append(
                f"it was saved before the model was calibrated as it is now (levels {spacing} from t = {t_max:g}), so its pixels "
                "will be others."
            )
        return found

    def render(self, ae: DiffusionAutoencoder, *, model: str) -> Float[Tensor, "c *sides"]:
        """The edited image.

        Args:
            ae: the model.
            model: its fingerprint.

        Raises:
            ValueError: it is another model than the edit is of, or an edit that is damaged.
        """
        if model != self.model:
            raise ValueError(
                f"This edit was made with another model (its encoder's fingerprint is {self.model[:12]}, this one's {model[:12]}), "
                "in which its z_sem means something else. Name the model that it was made with."
            )
        if self.image.shape != ae.image_shape or len(self.z_sem) != ae.z_dim:
            raise ValueError(
                f"This is no edit that the studio saved: its image is {tuple(self.image.shape)} and its z_sem {len(self.z_sem)} "
                f"long, where those of its model are {ae.image_shape} and {ae.z_dim}."
            )
        return ae.render(ae.infer(self.image[None], inversion=self.inversion, steps=self.steps), z_sem=self.z_sem[None])[0]

    def to_json(self) -> str:
        """The edit as text, exactly, of image and z_sem in float32 or less; what they have beyond that is left out."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"image": _packed(self.image), "z_sem": self.z_sem.float().tolist(), "asked": dict(self.asked)}
        return json.dumps({"format": FORMAT, **values}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Edit":
        """The edit of `to_json`'s text.

        Raises:
            ValueError: it is something else.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            for name, kind in {"model": str, "image": str, "z_sem": list, "steps": int, "asked": dict}.items():
                if not isinstance(values.get(name), kind) or isinstance(values[name], bool):
                    raise ValueError(f"{name!r} is missing, or of another type")
            for name, kind in {"networks": str, "levels": list}.items():
                if not isinstance(values.get(name), kind | None):
                    raise ValueError(f"{name!r} is of another type")
            if values.get("inversion") not in typing.get_args(Inversion):
                raise ValueError(f"{values.get('inversion')!r:.60} is no inversion")
            if not 0 < values["steps"] <= MOST_STEPS:
                raise ValueError(f"'steps' must be within 1..{MOST_STEPS}")
            values |= {"image": _unpacked(values["image"]), "z_sem": torch.tensor(values["z_sem"], dtype=torch.float32)}
            if values["z_sem"].dim() != 1 or not values["z_sem"].isfinite().all():
                raise ValueError("'z_sem' is no list of finite numbers")
            return cls(**values)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, SyntaxError, tokenize.TokenError) as error:
            raise ValueError(f"This is no edit that the studio saved ({error}).") from None


def levels_of(ae: DiffusionAutoencoder) -> list[Any]:
    """What a model's calibration says of the levels of paths to x_T and back: their spacing, and the first timestep."""
    return [ae.calibration.spacing, ae.calibration.t_max]


def _packed(x: Tensor) -> str:
    buffer = io.BytesIO()
    np.save(buffer, x.detach().cpu().float().numpy(), allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def _unpacked(text: str) -> Tensor:
    content = io.BytesIO(base64.b64decode(text))
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        raise ValueError("'image' is no array")
    shape, _, kind = np.lib.format.read_array_header_1_0(content)
    # Before there is room for it: a header may say anything.
    if (
        kind != np.float32
        or len(shape) not in (3, 4)
        or math.prod(shape) * kind.itemsize != len(content.getvalue()) - content.tell()
    ):
        raise ValueError(f"'image' is no image, but an array of {kind}, {shape}")
    content.seek(0)
    return torch.from_numpy(np.load(content, allow_pickle=False))
