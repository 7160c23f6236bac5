"""An independent judge of attributes: a small CNN on pixels, which knows nothing of z_sem.

Whether an edit is seen, and what else it changed, must not be asked of the classifiers that the edit was made with.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.metrics.batches import in_batches
from diffae.runtime import seeding

LAYERS: dict[int, tuple[type[nn.Module], ...]] = {
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
    3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d),
}
"""Of images and of volumes."""


LOOKED_AT = 2**16
"""Pixels of an image, or voxels of a volume, above which it is seen at half its sides."""
AT_ONCE = 2**21
"""Pixels or voxels of all that is seen at a time, which bounds the memory: some 2 GiB of activations in training."""


class Judge(nn.Module):
    """A CNN that says which binary attributes an image shows.

    Args:
        names: the attributes.
        channels: of the images, whose sides are at least 16. Large ones are seen at half their sides, or a quarter.
        rank: 2 for images, 3 for volumes.
        width: channels of the first layer.
    """

    def __init__(self, names: list[str], *, channels: int, rank: int = 2, width: int = 32) -> None:
        super().__init__()
        self.names = names
        widths = [width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        conv, norm, pool, cells = LAYERS[rank]
        self.halve = (F.avg_pool2d, F.avg_pool3d)[rank - 2]
        c = channels
        for w in widths:
            layers += [conv(c, w, 3, padding=1, bias=False), norm(w), nn.ReLU()]
            layers += [conv(w, w, 3, padding=1, bias=False), norm(w), nn.ReLU(), pool(2)]
            c = w
        self.features = nn.Sequential(*layers, cells(4), nn.Flatten(), nn.Dropout(0.3))
        self.out = nn.Linear(4**rank * c, len(names))

    def forward(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n k"]:
        """Logits of the attributes."""
        while x[0, 0].numel() > LOOKED_AT:
            x = self.halve(x, 2)
        return self.out(self.features(x))

    @torch.no_grad()
    def decide(self, x: Float[Tensor, "n c *sides"], *, batch_size: int = 256) -> Tensor:
        """Which attributes each image shows, (n, k) of bool."""
        return in_batches(self, x, batch_size=min(batch_size, _at_once(x))) > 0


def _at_once(x: Float[Tensor, "n c *sides"]) -> int:
    """Images like these that are seen at a time."""
    return max(2, AT_ONCE // x[0, 0].numel())


def train_judge(
    names: list[str],
    images: Callable[[Tensor], Float[Tensor, "n c *sides"]],
    labels: Float[Tensor, "n k"],
    *,
    epochs: int = 8,
    batch_size: int = 128,
    seed: int = 0,
    width: int = 32,
    flip: bool = True,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Judge:
    """Trains a judge, with noise and shades of colour added, so that it judges what is drawn and not how cleanly.

    Args:
        names: of the attributes.
        images: indices -> images in [-1, 1].
        labels: 0 or 1; numbers between say how probable 1 is, and nothing is learned of those that are NaN, unknown.
        epochs: passes over the images.
        batch_size: images in a step; fewer where there are not as many, or they are large.
        seed: of weights, order and noise.
        width: channels of the first layer.
        flip: whether half of the images are mirrored: not where left is not like right.
        progress: told how many steps are done.

    Returns:
        The judge, in eval mode.
    """
    torch.manual_seed(seeding.mix(seed, "judge"))
    generator = torch.Generator().manual_seed(seeding.mix(seed, "order"))
    first = images(torch.tensor([0]))
    _, channels, *sides = first.shape
    judge, ones = Judge(names, channels=channels, rank=len(sides), width=width), [1] * len(sides)
    batch_size = min(batch_size, len(labels), _at_once(first))
    steps = epochs * (len(labels) // batch_size)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    judge.train()
    done = 0
    for _ in range(epochs):
        for indices in torch.randperm(len(labels), generator=generator).split(batch_size)[: len(labels) // batch_size]:
            x = images(indices)
            noise = 0.2 * torch.rand(len(x), 1, *ones, generator=generator) * torch.randn(x.shape, generator=generator)
            shade = 0.1 * torch.randn(len(x), channels, *ones, generator=generator)
            if flip:
                x = torch.where(torch.rand(len(x), 1, *ones, generator=generator) < 0.5, x.flip(-1), x)
            known = labels[indices].isfinite()
            losses = F.binary_cross_entropy_with_logits(judge(x + noise + shade)[known], labels[indices][known], reduction="sum")
            loss = losses / known.sum().clamp(min=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            progress("Training the judge", done, steps)
    return judge.eval()
