"""Named configurations. Each says what it is expected to reach, and at what cost."""

from dataclasses import replace
from typing import Any

from diffae.config.protocols import named
from diffae.config.runs import ComparatorRunConfig, PriorRunConfig, RunConfig
from diffae.config.schema import AutoencoderConfig, ComparatorConfig, EncoderConfig, PriorConfig, UNetConfig
from diffae.config.training import TrainingConfig


def _paper(size: int, unet: tuple[int, ...], encoder: tuple[int, ...], *, base: int, batch: int, images: int) -> RunConfig:
    """A model of the paper (table 6): eps, uniform t, constant learning rate."""
    return RunConfig(
        model=AutoencoderConfig(
            image_size=(size, size),
            unet=UNetConfig(base_channels=base, channel_mult=unet),
            encoder=EncoderConfig(base_channels=base, channel_mult=encoder),
        ),
        training=TrainingConfig(
            images=images,
            batch_size=batch,
            log_every=20_000,
            validate_every=1_000_000,
            sample_every=1_000_000,
            checkpoint_every=200_000,
        ),
    )


def _small(size: tuple[int, ...], *, unet: tuple[int, ...], encoder: tuple[int, ...]) -> RunConfig:
    """A model for a processor, and aligned images, whose z_sem trains within minutes rather than days.

    By v-prediction, more noise, a z_sem that starts whitened, an encoder that pools over 4 x 4 cells and learns at a tenth
    of the decoder's rate, and Muon. `docs/design/whitened-start.md` and `muon.md` have the measurements.
    """
    return RunConfig(
        model=AutoencoderConfig(
            image_size=size,
            prediction="v",
            unet=UNetConfig(
                base_channels=32, channel_mult=unet, blocks_per_level=1, attention_resolutions=(), embed_channels=128, dropout=0.0
            ),
            encoder=EncoderConfig(
                base_channels=32, channel_mult=encoder, blocks_per_level=1, attention_resolutions=(), pooled_size=4
            ),
        ),
        training=TrainingConfig(
            minutes=8,
            batch_size=16,
            learning_rate=1.5e-3,
            encoder_rate=0.1,
            muon_rate=3.0,
            learning_rate_schedule="cosine",
            warmup_images=1_000,
            adam_betas=(0.9, 0.99),
            ema_decay=0.998,
            timesteps="noisy",
            whitened_start=True,
            validate_every=5_000,
            sample_every=5_000,
            checkpoint_every=5_000,
            log_every=200,
            validation_images=128,
        ),
    )


def _telling(config: RunConfig) -> RunConfig:
    """With a contrastive loss beside that of the decoder, and evened codes: `docs/design/meaning.md` and `evening.md` have the
    measurements."""
    model = replace(config.model, unet=replace(config.model.unet, evened=True))
    return replace(config, model=model, training=replace(config.training, contrast=0.03))


def _few(config: RunConfig) -> RunConfig:
    """With eight numbers."""
    return replace(config, model=replace(config.model, z_dim=8))


def _volume(side: int, *, mult: tuple[int, ...]) -> RunConfig:
    """Volumes on a processor: as `_small`, in blocks of 2 x 2 x 2 voxels, at an eighth of the cost of a voxel's own channels."""
    small = _small((side, side, side), unet=mult, encoder=mult)
    return replace(
        small,
        model=replace(
            small.model, channels=1, unet=replace(small.model.unet, patch=2), encoder=replace(small.model.encoder, patch=2)
        ),
        data=replace(small.data, flip=False),
        training=replace(
            small.training, minutes=15, batch_size=8, validate_every=1_000, sample_every=1_000, checkpoint_every=1_000
        ),
    )


def _ddim(autoencoder: RunConfig) -> RunConfig:
    """The plain DDIM to compare an autoencoder with: the same UNet without z_sem, trained in the same way."""
    return replace(
        autoencoder,
        model=replace(autoencoder.model, z_dim=None, unet=replace(autoencoder.model.unet, evened=False)),
        training=replace(autoencoder.training, whitened_start=False, contrast=0.0),
    )


def _paper_prior(*, layers: int, batch: int, codes: int, weight_decay: float) -> PriorRunConfig:
    """A latent DDIM of the paper (table 7): width 2048, L1, constant beta."""
    return PriorRunConfig(
        model=PriorConfig(layers=layers),
        training=TrainingConfig(
            images=codes,
            batch_size=batch,
            weight_decay=weight_decay,
            log_every=100_000,
            validate_every=1_000_000,
            sample_every=1_000_000,
            checkpoint_every=1_000_000,
        ),
    )


_128: dict[str, Any] = dict(size=128, unet=(1, 1, 2, 3, 4), encoder=(1, 1, 2, 3, 4, 4), base=128, batch=128)

PRESETS: dict[str, RunConfig] = {
    # FID 5.30 at T=100 (re-measured by PDAE); 90.8 M parameters.
    "celeba64": _paper(64, (1, 2, 4, 8), (1, 2, 4, 8, 8), base=64, batch=128, images=72_000_000),
    # FID 10.55 at T=100 (PDAE); reconstruction MSE 6.07e-5, SSIM .991 on CelebA-HQ (table 1); 128.5 M parameters.
    "ffhq128": _paper(**_128, images=130_000_000),
    # FID 6.71 at T=100.
    "horse128": _paper(**_128, images=130_000_000),
    # FID 5.70 at T=100.
    "bedroom128": _paper(**_128, images=120_000_000),
    # 168.5 M parameters.
    "ffhq256": _paper(256, (1, 1, 2, 2, 4, 4), (1, 1, 2, 2, 4, 4, 4), base=128, batch=64, images=90_000_000),
    # Drawn faces on a processor.
    "avatars32": _small((32, 32), unet=(1, 1, 2, 4), encoder=(1, 1, 2, 4)),
    "avatars64": _small((64, 64), unet=(1, 1, 2, 4, 4), encoder=(1, 1, 2, 4, 4)),
    # Pictures of any field on a processor: what z_sem tells of them counts for more than the detail that it holds.
    "pictures32": _telling(_small((32, 32), unet=(1, 1, 2, 4), encoder=(1, 1, 2, 4))),
    "pictures64": _telling(_small((64, 64), unet=(1, 1, 2, 4, 4), encoder=(1, 1, 2, 4, 4))),
    # Measurements on a processor: few numbers, whose axes can be looked at, and which may depend on scale and light.
    "numbers32": _few(_small((32, 32), unet=(1, 1, 2, 4), encoder=(1, 1, 2, 4))),
    "numbers64": _few(_small((64, 64), unet=(1, 1, 2, 4, 4), encoder=(1, 1, 2, 4, 4))),
    # Volumes on a processor; of one channel, and not mirrored, since in bodies left is not right.
    "volume32": _volume(32, mult=(1, 2, 4)),
    "volume64": _volume(64, mult=(1, 1, 2, 4)),
}
# The baselines of the same names: FID 11.95 (FFHQ128), 5.94 (CelebA64) at T=100.
PRESETS |= {f"{name}-ddim": _ddim(config) for name, config in PRESETS.items()}

PRIOR_PRESETS: dict[str, PriorRunConfig] = {
    # CelebA64, FFHQ128, FFHQ256.
    "latent10": _paper_prior(layers=10, batch=256, codes=101_000_000, weight_decay=0.01),
    # Horse128, Bedroom128.
    "latent20": _paper_prior(layers=20, batch=2048, codes=2_001_000_000, weight_decay=0.0),
    # Some thousand codes, on a processor.
    "latent-small": PriorRunConfig(
        model=PriorConfig(width=512, layers=6, gaussian_start=True),
        training=TrainingConfig(
            images=400_000,
            batch_size=128,
            learning_rate=1e-3,
            learning_rate_schedule="cosine",
            warmup_images=10_000,
            weight_decay=0.01,
            ema_decay=0.999,
            log_every=5_000,
            validate_every=50_000,
            sample_every=100_000,
            checkpoint_every=50_000,
        ),
    ),
}


DISTILLATION = TrainingConfig(
    batch_size=8,
    learning_rate=1e-3,
    muon_rate=3.0,
    learning_rate_schedule="cosine",
    warmup_images=80,
    adam_betas=(0.9, 0.99),
    ema_decay=0.95,
    validate_every=1_000,
    sample_every=1_000,
    checkpoint_every=1_000,
    log_every=100,
    validation_images=128,
)
"""Of `diffae distill`. Each image seen costs about as much as four and a half of the decoder's own training."""
DISTILLED_SHARE = 20
"""One image for so many that the decoder was trained on."""


def comparator(autoencoder: str, **model: Any) -> ComparatorRunConfig:
    """An autoencoder of another family on the images of a preset: its size, its budget, and Adam at a constant 2e-4.

    Args:
        autoencoder: name of the preset to stand beside.
        model: settings of `ComparatorConfig`.
    """
    base = preset(autoencoder)
    training = replace(
        base.training,
        learning_rate=2e-4,
        learning_rate_schedule="constant",
        encoder_rate=1.0,
        muon_rate=None,
        timesteps="uniform",
        whitened_start=False,
        contrast=0.0,
        adam_betas=(0.9, 0.999),
    )
    if len(base.model.image_size) != 2:
        raise ValueError(f"Preset {autoencoder} is of volumes, and the autoencoders to compare with are of flat images.")
    h, w = base.model.image_size
    config = ComparatorConfig(image_size=(h, w), channels=base.model.channels, **model)
    return ComparatorRunConfig(preset=autoencoder, model=config, data=base.data, training=training)


def preset(name: str) -> RunConfig:
    """The named configuration; a ValueError lists those that there are."""
    return replace(named(PRESETS, name, "preset"), preset=name)


def prior_preset(name: str) -> PriorRunConfig:
    """The named configuration of a latent prior; errors likewise."""
    return replace(named(PRIOR_PRESETS, name, "prior preset"), preset=name)
