"""An edit as a file: what was shown, where z_sem was moved to, and how to make the same pixels of it again."""

import base64
import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.inversion import Inversion

FORMAT = "diffae-edit-1"


@dataclass(frozen=True)
class Edit:
    """One edited image.

    Attributes:
        model: fingerprint of the model that it is of (`interop.weights.fingerprint`).
        image: (c, h, w), the image that was edited, as the model takes it.
        z_sem: (d,), where its code was moved to.
        inversion: how x_T was found.
        steps: solver steps in either direction.
        asked: what moved z_sem, for the reader: attribute -> strength, and the like.
    """

    model: str
    image: Float[Tensor, "c h w"]
    z_sem: Float[Tensor, " d"]
    inversion: Inversion
    steps: int
    asked: Mapping[str, Any] = field(default_factory=dict)

    def render(self, ae: DiffusionAutoencoder, *, model: str) -> Float[Tensor, "c h w"]:
        """The edited image.

        Args:
            ae: the model.
            model: its fingerprint.

        Raises:
            ValueError: it is another model than the edit is of.
        """
        if model != self.model:
            raise ValueError(
                f"This edit was made with another model (its encoder's fingerprint is {self.model[:12]}, this one's {model[:12]}), "
                "in which its z_sem means something else. Name the model that it was made with."
            )
        return ae.render(ae.infer(self.image[None], inversion=self.inversion, steps=self.steps), z_sem=self.z_sem[None])[0]

    def to_json(self) -> str:
        """The edit as text, exactly."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"image": _packed(self.image), "z_sem": self.z_sem.tolist(), "asked": dict(self.asked)}
        return json.dumps({"format": FORMAT, **values}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Edit":
        """The edit of `to_json`'s text.

        Raises:
            ValueError: it is something else.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise KeyError("format")
            values |= {"image": _unpacked(values["image"]), "z_sem": torch.tensor(values["z_sem"], dtype=torch.float32)}
            return cls(**values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"This is no edit that the studio saved ({type(error).__name__}: {error}).") from None


def _packed(x: Tensor) -> str:
    buffer = io.BytesIO()
    np.save(buffer, x.detach().cpu().numpy(), allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def _unpacked(text: str) -> Tensor:
    return torch.from_numpy(np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False))
