"""What makes training need fewer images: variants of a preset, each with several seeds, at equal images and with their seconds.

    python benchmarks/ablation.py --out runs/ablation
    python benchmarks/ablation.py --out runs/ablation --variants authors --images 20000

What counts is what z_sem holds: the error of images made of z_sem alone, and how well a linear classifier tells their attributes.
`authors` is the paper's recipe on the same network: eps-prediction, t uniform, Adam with a constant 1e-4, nothing whitened, its
z_sem pooled over the whole image. A run that is finished is not repeated, so the table can be made in parts; it lists every run
that lies in the folder.
"""

import dataclasses
import json
from pathlib import Path

import tyro
from beside import is_measured, measure_z_sem, measured_on, publish, seconds_of, spread, to_the_end

from diffae.cli.bars import say
from diffae.config import RunConfig
from diffae.config.presets import preset
from diffae.data import prepare
from diffae.evaluation.pages.page import table_markdown
from diffae.runtime.files import write_text
from diffae.training.run import Validated, resolve, train
from diffae.training.subjects import ImageSubject

VARIANTS = ("preset", "float32", "Adam alone", "min-SNR 5", "zero terminal SNR", "z_sem dropout .1", "shifted view .06", "authors")
AUTHORS = (
    "learning_rate", "learning_rate_schedule", "encoder_rate", "warmup_images",
    "muon_rate", "weight_decay", "adam_betas", "timesteps", "whitened_start",
)  # fmt: skip
"""Settings of training that `authors` takes from the paper's preset."""
MEASURES = {"mean": "z_sem alone, mean decode, MSE", "random": "z_sem and random x_T, T = 10, MSE", "auroc": "mean AUROC"}


def main(
    out: Path,
    variants: tuple[str, ...] = VARIANTS[:-1],
    seeds: tuple[int, ...] = (0, 1, 2),
    images: int = 20_000,
    name: str = "avatars32",
    num: int = 300,
) -> None:
    """Train, measure, and print the table.

    Args:
        out: folder of the runs.
        variants: which of them.
        seeds: of each.
        images: budget of a run.
        name: preset.
        num: held-out images that are measured.
    """
    for seed in seeds:
        for variant in variants:
            _train_and_measure(out, variant, seed, images, name, num)
    publish(_table(out), out / "ablation.md")


def variant_of(config: RunConfig, variant: str) -> RunConfig:
    """The preset, changed in one thing; or the paper's recipe."""
    model, training = config.model, config.training
    match variant:
        case "preset":
            pass
        case "float32":
            training = dataclasses.replace(training, precision="float32")
        case "Adam alone":
            training = dataclasses.replace(training, muon_rate=None)
        case "min-SNR 5":
            training = dataclasses.replace(training, min_snr=5.0)
        case "zero terminal SNR":
            model = dataclasses.replace(model, schedule=dataclasses.replace(model.schedule, zero_terminal_snr=True))
        case "z_sem dropout .1":
            training = dataclasses.replace(training, z_sem_dropout=0.1)
        case "shifted view .06":
            training = dataclasses.replace(training, encoder_shift=0.0625)
        case "authors":
            theirs = preset("ffhq128").training
            model = dataclasses.replace(model, prediction="eps", encoder=dataclasses.replace(model.encoder, pooled_size=1))
            training = dataclasses.replace(training, **{key: getattr(theirs, key) for key in AUTHORS})
        case _:
            raise ValueError(f"There is no variant {variant!r}. There are: {', '.join(VARIANTS)}.")
    return dataclasses.replace(config, model=model, training=training)


def _train_and_measure(out: Path, variant: str, seed: int, images: int, name: str, num: int) -> None:
    """Trains one run and writes what it reached, unless it is there."""
    folder = out / f"{variant}, {images} images, seed {seed}"
    if is_measured(folder / "measured.json", num=num, preset=name):
        return
    config = variant_of(preset(name), variant)
    training = dataclasses.replace(
        config.training, images=images, minutes=None, seed=seed,
        validate_every=max(images // 10, 1), checkpoint_every=max(images // 2, 1), sample_every=images,
    )  # fmt: skip
    config = resolve(
        dataclasses.replace(config, training=training, data=dataclasses.replace(config.data, source="avatars")), folder
    )
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    say(folder.name)
    with seconds_of(folder) as seconds:
        for event in to_the_end(train(ImageSubject(config, data), folder)):
            if isinstance(event, Validated):
                say(f"  {event.images:,} images: {event.health.summary()}")
    asked = {"variant": variant, "images": images, "seed": seed, "num": num, "preset": name}
    measured = measure_z_sem(folder, data, num) | {"seconds": seconds()} | asked
    write_text(folder / "measured.json", json.dumps(measured) + "\n")


def _table(out: Path) -> str:
    """The page: all runs that lie in the folder, a row for each variant and budget."""
    runs = [json.loads(file.read_text()) for file in sorted(out.glob("*/measured.json"))]
    groups: dict[tuple[str, int], list[dict]] = {}
    for run in sorted(runs, key=lambda r: (VARIANTS.index(r["variant"]), r["images"])):
        groups.setdefault((run["variant"], run["images"]), []).append(run)

    rows = [
        [variant, f"{images:,}", str(len(same)), *(spread([r[key] for r in same]) for key in [*MEASURES, "seconds"])]
        for (variant, images), same in groups.items()
    ]
    header = ["", "images", "seeds", *MEASURES.values(), "seconds"]
    n = runs[0]["n"] if runs else 0
    return f"# Ablation\n\n{n} held-out avatars; {measured_on()}. ± over seeds.\n\n{table_markdown(header, rows)}"


if __name__ == "__main__":
    tyro.cli(main)
