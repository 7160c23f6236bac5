"""A diffusion autoencoder as a transformer of scikit-learn: images in, z_sem out, and back to the mean image."""

import io
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"DiffAETransformer is one of scikit-learn 1.6 or newer ({error}): pip install 'diffae[eval,train]'."
    ) from None

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import AutoencoderConfig, Preparation, RunConfig, spelled
from diffae.config.presets import preset as named_preset
from diffae.data import ImageSet
from diffae.data.images import UnusableImage, in_range, read_image
from diffae.interop.weights import load
from diffae.runtime.files import digest_arrays


class DiffAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """z_sem of images as features, in a `Pipeline` or a grid search. Labels are not used.

    Images X are (n, h, w) or (n, h, w, c), as matplotlib has them; or (n, h w c), where `image_shape` says h, w and c. Bytes are
    0..255, floats in [0, 1]. They are resized to the sides that the model has, and back by `inverse_transform`.

    Args:
        preset: what is trained, and how: the name of a preset, or a `RunConfig` of your own.
        image_shape: (h, w) or (h, w, c) of images that come as rows.
        z_dim: dimension d of z_sem; by default the preset's.
        images: how many images are seen in training, each as often as it takes.
        model: a trained one in place of training, whatever `diffae.load` reads: `fit` then looks at the shape of the images alone.
        run: folder of the training run, which is kept, and gone on with where it is there; by default a temporary one.
        seed: of training.
        batch_size: images at a time, once trained.
        verbose: whether training prints a line now and then.

    Attributes:
        model_: the `DiffusionAutoencoder`.
        n_features_in_: of images that come as rows, how many numbers each has.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> make_pipeline(DiffAETransformer(), StandardScaler(), LogisticRegression()).fit(images, labels)  # doctest: +SKIP
    """

    def __init__(
        self, preset: str | RunConfig = "pictures32", *, image_shape: Sequence[int] | None = None, z_dim: int | None = None,
        images: int = 16_000, model: str | Path | None = None, run: str | Path | None = None, seed: int = 0, batch_size: int = 64,
        verbose: bool = False,
    ) -> None:  # fmt: skip
        self.preset = preset
        self.image_shape = image_shape
        self.z_dim = z_dim
        self.images = images
        self.model = model
        self.run = run
        self.seed = seed
        self.batch_size = batch_size
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on images; with `model`, takes that.

        Raises:
            ValueError: images of no shape or range as above, of other channels than the model's, or untrainable settings.
        """
        x = self._images(X, reset=True)
        if self.model is None:
            run = self._run(x)
            _check(run.model, run.data.preparation, x.shape[1:])
            model = self._trained(run, x)
        else:
            model = load(self.model)
            _check(model.config, model.preparation, x.shape[1:])
        self.model_, self.image_shape_, self.dtype_, self._n_features_out = model, x.shape[1:], x.dtype, model.z_dim
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_n_features_out")

    def transform(self, X: Any) -> NDArray[np.float32]:
        """z_sem (n, d) of images.

        Raises:
            ValueError: images of another shape than those that it was fitted to.
        """
        check_is_fitted(self)
        x = self._images(X, reset=False)
        if x.shape[1:] != self.image_shape_:
            fitted = spelled(self.image_shape_)
            raise ValueError(f"X has images of {spelled(x.shape[1:])}, but this was fitted to those of {fitted}.")
        parts = [x[i : i + self.batch_size] for i in range(0, len(x), self.batch_size)]
        with torch.no_grad(), warnings.catch_warnings():
            # A batch of bright images alone would be asked whether it is in [0, 1]: its range is known here.
            warnings.filterwarnings("ignore", message="None of these images has a value below 0")
            return torch.cat([self.model_.encode(self._read(part)) for part in parts]).numpy()

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """The mean images of z_sem (n, d), of the shape and type of those that this was fitted to: what x_T adds is not in them.

        Raises:
            ValueError: no (n, d).
        """
        check_is_fitted(self)
        z_sem = torch.from_numpy(np.ascontiguousarray(check_array(X, dtype=np.float32)))
        if z_sem.shape[1] != self._n_features_out:
            raise ValueError(f"X has {z_sem.shape[1]} features, and z_sem has {self._n_features_out}.")
        with torch.no_grad():  # One noise for all rows, whose images then depend on themselves alone.
            parts = z_sem.split(self.batch_size)
            x = torch.cat([self.model_.decode_mean(z, start=torch.zeros(len(z), dtype=torch.long)) for z in parts])
        h, w, _ = self.image_shape_
        x = F.interpolate(x, (h, w), mode="bilinear", antialias=True) if x.shape[2:] != (h, w) else x
        x = (x.clamp(-1, 1) + 1).mul(127.5 if self.dtype_ == np.uint8 else 0.5).permute(0, 2, 3, 1)
        made = (x.round() if self.dtype_ == np.uint8 else x).numpy().astype(self.dtype_)
        return made.reshape(len(made), *self._given_shape)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _images(self, X: Any, *, reset: bool) -> NDArray[Any]:
        """Images (n, h, w, c), of bytes or of float32 in [0, 1]."""
        X = validate_data(
            self, X, reset=reset, allow_nd=True, dtype=None, ensure_min_samples=2 if reset and self.model is None else 1
        )
        X = X if X.dtype == np.uint8 else self._light(check_array(X, allow_nd=True, dtype=np.float32))
        given = X.shape[1:]
        if X.ndim == 2:
            X = X.reshape(len(X), *self._shape_of_rows(X.shape[1]))
        if reset:
            self._given_shape = given
        if X.ndim not in (3, 4):
            raise ValueError(f"Expected images (n, h, w) or (n, h, w, c), got {X.ndim} dimensions: {X.shape}.")
        return X if X.ndim == 4 else X[..., None]

    def _light(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Floats, if they are in [0, 1]."""
        least, most = X.min(), X.max()
        if least < 0 or most > 1:
            given = f"floats {least:.4g}..{most:.4g}"
            raise ValueError(f"Expected images of floats in [0, 1] or of bytes 0..255, got {given}: divide by what white is.")
        return X

    def _shape_of_rows(self, features: int) -> tuple[int, ...]:
        if self.image_shape is None:
            raise ValueError(f"Images came as rows of {features} numbers: image_shape=(h, w) or (h, w, c) says what they are.")
        shape = tuple(self.image_shape)
        if len(shape) not in (2, 3) or np.prod(shape) != features:
            raise ValueError(f"image_shape {shape} is not that of {features} numbers: expected h w or h w c of them.")
        return shape

    def _run(self, x: NDArray[Any]) -> RunConfig:
        """What is trained on these images, of which nothing is cut off."""
        base = self.preset if isinstance(self.preset, RunConfig) else named_preset(self.preset)
        z_dim = base.model.z_dim if self.z_dim is None else self.z_dim
        return replace(
            base,
            model=replace(base.model, channels=x.shape[-1], z_dim=z_dim),
            data=replace(base.data, source="X", validation=0.0, crop="none", range=_range(x)),
            training=replace(base.training, images=self.images, minutes=None, seed=self.seed, sample_every=10**9),
        )

    def _trained(self, run: RunConfig, x: NDArray[Any]) -> DiffusionAutoencoder:
        from diffae.training.events import Finished, Logged
        from diffae.training.run import resolve, train
        from diffae.training.subjects import ImageSubject

        pixels = _pixels(x, run.model, run.data.preparation)
        names, every = [f"{i:08d}" for i in range(len(x))], np.arange(len(x))
        data = ImageSet(names, pixels, {}, every, every[:0], [], run.data, digest_arrays({"pixels": pixels}))
        with nullcontext(str(self.run)) if self.run is not None else tempfile.TemporaryDirectory(prefix="diffae-") as folder:
            for event in train(ImageSubject(resolve(run, Path(folder)), data), Path(folder)):
                if isinstance(event, Logged) and self.verbose:
                    print(f"[DiffAETransformer] {event.images:,} of {self.images:,} images, loss {event.loss:.4f}")
                if isinstance(event, Finished) and event.interrupted:
                    raise KeyboardInterrupt
            return load(folder)

    def _read(self, x: NDArray[Any]) -> Tensor:
        """Images as the model sees them, read as in training."""
        return in_range(_pixels(x, self.model_.config, replace(self.model_.preparation, range=_range(x))))


def _check(config: AutoencoderConfig, preparation: Preparation, shape: Sequence[int]) -> None:
    """Refuses models that do not take such images (h, w, c) whole.

    Raises:
        ValueError: the message says which, and what to do.
    """
    h, w, c = shape
    if config.z_dim is None:
        raise ValueError("A plain DDIM has no z_sem, which are the features: take a preset without -ddim.")
    if config.latents is not None or len(config.image_size) != 2:
        raise ValueError(
            f"This is for models of pixels, and that one is of {config.latents or 'volumes'}: use it by `diffae.load`."
        )
    if config.channels != c:
        raise ValueError(f"The model has images of {config.channels} channels, and these have {c}.")
    side = config.image_size
    if preparation.crop != "none" and h * side[1] != w * side[0]:
        raise ValueError(
            f"The model crops images to {spelled(side)}, which would cut off some of {spelled((h, w))}: crop them before, or "
            "train with crop 'none'."
        )


def _pixels(x: NDArray[Any], config: AutoencoderConfig, preparation: Preparation) -> NDArray[Any]:
    """Images (n, h, w, c) decoded as files of NumPy's are: (n, c, *sides) of 8 or 16 bits.

    Raises:
        ValueError: images that are too small.
    """
    found = []
    size, channels = config.image_size, config.channels
    for image in x:
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(image.transpose(2, 0, 1)))
        try:
            found.append(read_image(file.getvalue(), "X.npy", size=size, channels=channels, preparation=preparation))
        except UnusableImage as error:
            raise ValueError(f"An image of X {error}.") from None
    return np.stack(found)


def _range(x: NDArray[Any]) -> tuple[float, ...] | None:
    """The values that become -1 and 1: of bytes, what their type says."""
    return None if x.dtype == np.uint8 else (0.0, 1.0)
