"""What the networks see while training: images mirrored or shifted, codes dropped; drawn by the image's seed, like noise."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffae.config.training import Views
from diffae.data.images import scaled
from diffae.runtime.seeding import Draws

TEMPERATURE = 0.2
"""Of cosines in the contrastive loss: the smaller, the more the nearest others count."""


def training_view(rows: Tensor, draws: Draws, *, flip: bool, mirrored: Tensor | None = None) -> Float[Tensor, "n c *sides"]:
    """Images as training sees them: in [-1, 1], and mirrored left to right with probability one half if `flip`.

    Args:
        rows: stored pixels or latents (n, c, *sides).
        draws: one for each image; decides which are mirrored.
        flip: whether any is mirrored.
        mirrored: like `rows`, for the mirrored images. Only for latents, which cannot be flipped themselves.
    """
    if not flip:
        return scaled(rows)
    chosen = _mirrored(draws).view(-1, *[1] * (rows.dim() - 1))
    if mirrored is not None:
        return scaled(torch.where(chosen, mirrored, rows))
    x = scaled(rows)
    return torch.where(chosen, x.flip(-1), x)


def of_view(features: Sequence[Float[Tensor, "n f"]], draws: Draws) -> Float[Tensor, "n f"]:
    """Of features of images, and of the same images mirrored if training mirrors any, those of the images that it sees."""
    return features[0] if len(features) == 1 else torch.where(_mirrored(draws)[:, None], features[1], features[0])


def _mirrored(draws: Draws) -> Tensor:
    return draws.uniform("flip") < 0.5


def shifted(x: Float[Tensor, "n c *sides"], draws: Draws, fraction: float) -> Float[Tensor, "n c *sides"]:
    """Each image moved by whole pixels, up to a fraction of its sides in either direction; edges are repeated.

    For the encoder alone: z_sem then holds less of where things are, and what stays the same under small moves counts more, as in
    contrastive learning (Chen et al. 2020); the decoder still denoises the image itself.

    Args:
        x: images.
        draws: of the images.
        fraction: of the sides, 0..1.
    """
    sides, rank = x.shape[2:], x.dim() - 2
    most = [int(fraction * side) for side in sides]
    padded = F.pad(x, [far for far in reversed(most) for _ in range(2)], mode="replicate")
    image, channel = (torch.arange(k, device=x.device) for k in x.shape[:2])
    places = [image.view(-1, *[1] * (rank + 1)), channel.view(1, -1, *[1] * rank)]
    for i, (axis, side, far) in enumerate(zip("zyx"[-rank:], sides, most, strict=True)):
        first = (draws.uniform(f"shift {axis}") * (2 * far + 1)).long().to(x.device)
        along = first[:, None] + torch.arange(side, device=x.device)
        places.append(along.view(len(x), 1, *[side if axis == i else 1 for axis in range(rank)]))
    return padded[tuple(places)]


def augmented(x: Float[Tensor, "n c *sides"], draws: Draws, probability: float) -> Float[Tensor, "n c *sides"]:
    """Images rotated by any angle, scaled, stretched along any axis and shifted, each with this probability; what comes in from
    beyond the edges is mirrored there. Images of which nothing was asked stay as they are, bit for bit. Volumes turn and stretch
    in the plane of their slices.

    Scales and stretches are 2 ** (0.2 N(0, 1)), shifts 0.125 N(0, 1) of the sides (Karras et al. 2022, appendix F.2).
    """
    changes = ("scale", "stretch", "angle", "shift")
    asked = {what: (draws.uniform(f"augment {what}?") < probability).to(x) for what in changes}
    scale = 2 ** (0.2 * draws.normal("augment scale", ()).to(x) * asked["scale"])
    stretch = 2 ** (0.2 * draws.normal("augment stretch", ()).to(x) * asked["stretch"])
    axis = 2 * torch.pi * draws.uniform("augment axis").to(x)
    angle = torch.pi * (2 * draws.uniform("augment angle").to(x) - 1) * asked["angle"]
    rank = x.dim() - 2
    shift = 0.125 * draws.normal("augment shift", (rank,)).to(x) * asked["shift"][:, None]
    with torch.autocast(x.device.type, enabled=False):
        stretched = _rotation(-axis) @ torch.diag_embed(torch.stack([stretch, 1 / stretch], 1)) @ _rotation(axis)
    moved = _moved(x, _rotation(angle) @ stretched, scale, shift)
    return torch.where(torch.stack([*asked.values()]).any(0).view(-1, *[1] * (rank + 1)), moved, x)


def another_view(x: Float[Tensor, "n c *sides"], draws: Draws) -> Float[Tensor, "n c *sides"]:
    """Each image as it might have been taken a moment later: turned by up to 20 degrees, scaled by 2 ** (0.15 N(0, 1)), moved by
    0.08 N(0, 1) of its sides, with contrast and light a little otherwise, each channel's own and all together. What comes in from
    beyond the edges is mirrored there. For the encoder alone: what z_sem should not depend on."""
    n, channels = x.shape[:2]
    angle = torch.pi / 9 * (2 * draws.uniform("view angle").to(x) - 1)
    scale = 2 ** (0.15 * draws.normal("view scale", ()).to(x))
    moved = _moved(x, _rotation(angle), scale, 0.08 * draws.normal("view shift", (x.dim() - 2,)).to(x))
    gain = 0.2 * draws.normal("view contrast", ()).to(x)[:, None] + 0.1 * draws.normal("view contrasts", (channels,)).to(x)
    light = 0.1 * draws.normal("view light", ()).to(x)
    ones = [1] * (x.dim() - 2)
    return moved * gain.exp().view(n, channels, *ones) + light.view(n, 1, *ones)


def another_direction(x: Float[Tensor, "n c *sides"], draws: Draws) -> Float[Tensor, "n c *sides"]:
    """Each image as it might lie otherwise: turned by any angle (volumes in the plane of their slices), half of them mirrored, and
    moved by 0.02 N(0, 1) of its sides. What comes in from beyond the edges is mirrored there. For the encoder alone too."""
    angle = torch.pi * (2 * draws.uniform("view angle").to(x) - 1)
    mirrored = (draws.uniform("view mirror") < 0.5).to(x.device).view(-1, *[1] * (x.dim() - 1))
    x = torch.where(mirrored, x.flip(-1), x)
    return _moved(x, _rotation(angle), torch.ones_like(angle), 0.02 * draws.normal("view shift", (x.dim() - 2,)).to(x))


VIEWS: dict[Views, Callable[[Tensor, Draws], Tensor]] = {"moment": another_view, "direction": another_direction}
"""What makes another view of images, by its name in `training.views`."""


def view_contrast(
    views: Views, z_sem: Float[Tensor, "n d"], encoder: Callable[[Tensor], Tensor], x: Float[Tensor, "n c *sides"],
    known: Float[Tensor, "n 1 *sides"] | None, draws: Draws,
) -> Float[Tensor, ""]:  # fmt: skip
    """The contrastive loss of codes of images, and of those that an encoder gives other views of them, grey where `known` is 0:
    what does not count tells images apart too, and is not to be in z_sem for that."""
    return contrastive_loss(z_sem, encoder(VIEWS[views](x if known is None else x * known, draws)))


def _moved(
    x: Float[Tensor, "n c *sides"], turn: Float[Tensor, "n 2 2"], scale: Float[Tensor, " n"], shift: Float[Tensor, "n rank"]
) -> Float[Tensor, "n c *sides"]:
    """Images sampled where a matrix in the plane (of volumes that of their slices), a scale and a shift in shares of sides say."""
    rank = x.dim() - 2
    with torch.autocast(x.device.type, enabled=False):
        matrix = turn * scale[:, None, None]
    # Where each pixel comes from, on the scale of grid_sample: sides of 2, whatever the image's are.
    h, w = x.shape[-2:]
    a, b, c, d = matrix.flatten(1).unbind(1)
    zero = torch.zeros_like(a)
    across = [] if rank == 2 else [zero]
    rows = [[a, b * (h / w), *across, 2 * shift[:, 0]], [c * (w / h), d, *across, 2 * shift[:, 1]]]
    if rank == 3:
        rows.append([zero, zero, scale, 2 * shift[:, 2]])
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    with torch.autocast(x.device.type, enabled=False):
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _rotation(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2 2"]:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def contrastive_loss(z_a: Float[Tensor, "n d"], z_b: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """InfoNCE: how badly each code of one view finds that of the other view of its image among the batch's, by the cosine of codes
    less their mean, divided by TEMPERATURE (van den Oord et al. 2018; Chen et al. 2020). log n where all codes are alike."""
    a, b = (_directions(z.float()) for z in (z_a, z_b))
    alike = a @ b.T / TEMPERATURE
    own = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(alike, own) + F.cross_entropy(alike.T, own)) / 2


def _directions(z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Codes less their mean, of length 1; shorter where they hardly differ, since the directions of rounding mean nothing."""
    apart = z - z.mean(0)
    least = 1e-3 * z.detach().norm(dim=1, keepdim=True).mean()
    return apart / (apart.norm(dim=1, keepdim=True) + least + 1e-12)


def dropped(z_sem: Float[Tensor, "n d"], draws: Draws, probability: float) -> Float[Tensor, "n d"]:
    """z_sem with each row zero at this probability, as where conditions are left out for guidance (Ho & Salimans 2022)."""
    mask = draws.uniform("z_sem dropout") >= probability
    return z_sem * mask.to(z_sem)[:, None]
