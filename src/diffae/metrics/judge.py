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


class Judge(nn.Module):
    """A CNN that says which binary attributes an image shows.

    Args:
        names: the attributes.
        channels: of the images, whose sides are at least 16.
        width: channels of the first layer.
    """

    def __init__(self, names: list[str], *, channels: int, width: int = 32) -> None:
        super().__init__()
        self.names = names
        widths = [width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        c = channels
        for w in widths:
            layers += [nn.Conv2d(c, w, 3, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU()]
            layers += [nn.Conv2d(w, w, 3, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU(), nn.MaxPool2d(2)]
            c = w
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3))
        self.out = nn.Linear(16 * c, len(names))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of the attributes."""
        return self.out(self.features(x))

    @torch.no_grad()
    def decide(self, x: Float[Tensor, "n c h w"], *, batch_size: int = 256) -> Tensor:
        """Which attributes each image shows, (n, k) of bool."""
        return in_batches(self, x, batch_size=batch_size) > 0


def train_judge(
    names: list[str],
    images: Callable[[Tensor], Float[Tensor, "n c h w"]],
    labels: Float[Tensor, "n k"],
    *,
    epochs: int = 8,
    batch_size: int = 128,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Judge:
    """Trains a judge, with noise and shades of colour added, so that it judges what is drawn and not how cleanly.

    Args:
        names: of the attributes.
        images: indices -> images in [-1, 1].
        labels: 0 or 1.
        epochs: passes over the images.
        batch_size: images in a step; fewer where there are not as many.
        seed: of weights, order and noise.
        progress: told how many steps are done.

    Returns:
        The judge, in eval mode.
    """
    torch.manual_seed(seeding.mix(seed, "judge"))
    generator = torch.Generator().manual_seed(seeding.mix(seed, "order"))
    judge = Judge(names, channels=images(torch.tensor([0])).shape[1])
    batch_size = min(batch_size, len(labels))
    steps = epochs * (len(labels) // batch_size)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    judge.train()
    done = 0
    for _ in range(epochs):
        for indices in torch.randperm(len(labels), generator=generator).split(batch_size)[: len(labels) // batch_size]:
            x = images(indices)
            noise = 0.2 * torch.rand(len(x), 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
            shade = 0.1 * torch.randn(len(x), x.shape[1], 1, 1, generator=generator)
            x = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)
            loss = F.binary_cross_entropy_with_logits(judge(x + noise + shade), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            progress("Training the judge", done, steps)
    return judge.eval()
