"""What the paper reports, to stand beside what was measured.

References:
    Preechakul et al. 2022, tables 1-4; rows marked PDAE are re-measurements of the authors' weights by Zhang et al. 2022.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaperResult:
    """One published number: trained and measured on `where`, with 128 x 128 images unless it says otherwise."""

    suite: str
    model: str
    metric: str
    value: float
    steps: int | None = None
    where: str = "FFHQ to CelebA-HQ"


def _row(model: str, metric: str, values: str) -> list[PaperResult]:
    """A row of table 2, at T = 10, 20, 50, 100."""
    pairs = zip((10, 20, 50, 100), values.split(), strict=True)
    return [PaperResult("reconstruction", model, metric, float(value), steps) for steps, value in pairs]


PUBLISHED: list[PaperResult] = [
    *_row("diffae, inferred x_T", "ssim", ".827 .927 .978 .991"),
    *_row("diffae, inferred x_T", "lpips", ".078 .050 .023 .011"),
    PaperResult("reconstruction", "diffae, inferred x_T", "mse", 6.07e-5, 100),
    *_row("diffae, random x_T", "ssim", ".707 .695 .683 .677"),
    *_row("diffae, random x_T", "lpips", ".085 .078 .074 .073"),
    *_row("diffae, random x_T", "mse", ".006 .007 .007 .007"),
    *_row("ddim", "ssim", ".600 .760 .878 .917"),
    *_row("ddim", "lpips", ".227 .148 .087 .063"),
    *_row("ddim", "mse", ".019 .008 .003 .002"),
    *[
        PaperResult("reconstruction", model, metric, value)
        for model, values in {
            "StyleGAN2 (W)": (0.677, 0.168, 0.016),
            "StyleGAN2 (W+)": (0.827, 0.114, 0.006),
            "VQ-GAN": (0.782, 0.109, 3.61e-3),
            "VQ-VAE2": (0.947, 0.012, 4.87e-4),
            "NVAE": (0.984, 0.001, 4.85e-5),
        }.items()
        for metric, value in zip(("ssim", "lpips", "mse"), values, strict=True)
    ],
    *[
        PaperResult("generation", model, "fid", value, steps, "FFHQ128, 50,000 images, by PDAE")
        for model, values in {
            "ddim": (31.87, 20.53, 15.82, 11.95),
            "diffae, prior ddim": (21.95, 18.10, 13.14, 10.55),
        }.items()
        for steps, value in zip((10, 20, 50, 100), values, strict=True)
    ],
    *[
        PaperResult("fewshot", f"{model} ({name})", "fid", value, None, "CelebA64, 5,000 images a class")
        for model, values in {
            "binary, 50 + 50": (11.52, 7.29, 16.10, 8.48),
            "positive-unlabelled, 100": (9.54, 9.21, 7.01, 7.91),
            "naive: all real images": (25.70, 14.16, 24.78, 1.12),
            "D2C, binary": (13.44, 9.51, 17.61, 8.94),
        }.items()
        for name, value in zip(("Male", "Female", "Blond", "Non-Blond"), values, strict=True)
    ],
    PaperResult("attributes", "z_sem", "auroc", 0.925, None, "CelebA-HQ, 40 attributes, weighted"),
    PaperResult("attributes", "StyleGAN2 (W)", "auroc", 0.891, None, "CelebA-HQ, 40 attributes, weighted"),
]
"""The paper prints the other MSEs of inferred x_T to three digits only: .001, .001, .000."""
