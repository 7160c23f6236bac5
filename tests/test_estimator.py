"""z_sem as features of scikit-learn: what its own checks ask of a transformer, and images in and out."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import diffae

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from diffae.training.estimator import DiffAETransformer  # noqa: E402


def saved(folder, tiny, channels):
    torch.manual_seed(0)
    ae = diffae.DiffusionAutoencoder(replace(tiny, channels=channels))
    ae.save_pretrained(folder)
    return folder


@pytest.fixture
def model(tiny, tmp_path):
    return saved(tmp_path / "model", tiny, 1)


@pytest.fixture
def digits():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True, n_class=2)
    return X / 16, y


class Rows(DiffAETransformer):
    """Whatever numbers scikit-learn makes up, repeated until they are the pixels of an image."""

    def _shape_of_rows(self, features):
        return (8, 8)

    def _light(self, X):
        return 1 / (1 + np.exp(-X[:, np.arange(64) % X.shape[1]]))


@pytest.fixture(scope="module")
def untrained(tiny, tmp_path_factory):
    """A folder with a model; its name is the same in all processes, since it is a part of the names of the checks."""
    folder = tmp_path_factory.mktemp("estimator")
    saved(folder / "model", tiny, 1)
    return folder


@parametrize_with_checks([Rows(image_shape=(8, 8), model="model")])
def test_the_checks_of_scikit_learn_pass(estimator, check, untrained, monkeypatch):
    monkeypatch.chdir(untrained)
    check(estimator)


def test_images_become_features_and_images_again(model, digits):
    X, _ = digits
    rows = DiffAETransformer(model=model, image_shape=(8, 8)).fit(X)
    z_sem = rows.transform(X[:5])
    ae = diffae.load(model)
    x = torch.from_numpy(X[:5]).float().reshape(5, 1, 8, 8) * 2 - 1
    assert np.abs(z_sem - ae.encode(x).numpy()).max() < 1e-3  # Pixels are kept in 16 bits.
    assert z_sem.shape == (5, 6)
    assert z_sem.dtype == np.float32
    made = rows.inverse_transform(z_sem)
    assert made.shape == (5, 64)
    expected = ae.decode_mean(torch.from_numpy(z_sem), start=torch.zeros(5, dtype=torch.long))
    assert np.allclose(made.reshape(5, 1, 8, 8), expected.numpy() / 2 + 0.5, atol=1e-6)
    assert np.allclose(rows.inverse_transform(z_sem[3:4]), made[3:4], atol=1e-5), "whatever rows it is asked beside"
    assert list(rows.get_feature_names_out()) == [f"diffaetransformer{i}" for i in range(6)]
    squares = DiffAETransformer(model=model).fit(X.reshape(-1, 8, 8))
    assert np.array_equal(squares.transform(X[:5].reshape(5, 8, 8)), z_sem)
    assert squares.inverse_transform(z_sem).shape == (5, 8, 8)
    by_twos = DiffAETransformer(model=model, batch_size=2).fit(X.reshape(-1, 8, 8))
    assert np.allclose(by_twos.transform(X[:5].reshape(5, 8, 8)), z_sem, atol=1e-5)


def test_bytes_and_colours_come_back_as_they_were(tiny, tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), dtype=np.uint8)
    transformer = DiffAETransformer(model=saved(tmp_path / "model", tiny, 3))
    z_sem = transformer.fit_transform(X)
    made = transformer.inverse_transform(z_sem)
    assert made.shape == X.shape
    assert made.dtype == np.uint8
    as_floats = DiffAETransformer(model=transformer.model).fit((X / 255).astype(np.float32))
    assert np.abs(as_floats.transform((X / 255).astype(np.float32)) - z_sem).max() < 1e-3
    assert as_floats.inverse_transform(z_sem).max() <= 1


def test_training_learns_and_is_the_same_again(tiny_run, digits, tmp_path):
    X, y = digits
    config = tiny_run(model={"channels": 1, "prediction": "v"}, source="anything", timesteps="noisy", whitened_start=True)
    one = DiffAETransformer(config, image_shape=(8, 8), images=96, run=tmp_path / "run", z_dim=4).fit(X[:200])
    two = DiffAETransformer(config, image_shape=(8, 8), images=96, z_dim=4).fit(X[:200])
    assert np.array_equal(one.transform(X), two.transform(X))
    assert one.transform(X).shape == (len(X), 4)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    other = DiffAETransformer(config, image_shape=(8, 8), images=96, z_dim=4, seed=1).fit(X[:200])
    assert not np.array_equal(one.transform(X), other.transform(X))
    again = pickle.loads(pickle.dumps(two))
    assert np.array_equal(again.transform(X[:9]), two.transform(X[:9]))
    assert LogisticRegression().fit(one.transform(X[:200]), y[:200]).score(one.transform(X[200:]), y[200:]) > 0.8
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-3:]) < 0.9 * losses[0]


def test_images_that_are_no_squares_are_taken_whole(tiny_run):
    X = np.zeros((24, 12, 24), np.uint8)
    X[::2, :, 20:] = 255  # What a crop of the middle would not see.
    config = tiny_run(model={"channels": 1, "prediction": "v"}, source="anything", whitened_start=True)
    transformer = DiffAETransformer(config, images=16).fit(X)
    z_sem = transformer.transform(X)
    assert np.abs(z_sem[0] - z_sem[1]).max() > 1e-3
    assert transformer.inverse_transform(z_sem).shape == X.shape


def test_training_leaves_nothing_behind(tiny_run, digits, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    config = tiny_run(model={"channels": 1}, source="anything")
    DiffAETransformer(config, images=16).fit(digits[0][:24].reshape(-1, 8, 8))
    assert not list((tmp_path / "temporary").iterdir())
    assert not cache.exists()


def test_what_could_never_be_used_is_refused_before_it_is_trained(tiny_run, model):
    X = np.zeros((24, 8, 8))
    for settings, words in (({"z_dim": None}, "has no z_sem"), ({"image_size": (8, 8, 8), "channels": 1}, "is of volumes")):
        config = tiny_run(model=settings, source="anything")
        transformer = DiffAETransformer(config, images=10**9)
        with pytest.raises(ValueError, match=words):
            transformer.fit(X)
        with pytest.raises(NotFittedError):
            transformer.transform(X)
    with pytest.raises(ValueError, match="would cut off some of 8 x 12"):
        DiffAETransformer(model=model).fit(np.zeros((3, 8, 12)))


def test_it_is_searched_in_a_pipeline(model, digits):
    X, y = digits
    pipeline = make_pipeline(DiffAETransformer(model=model, image_shape=(8, 8)), StandardScaler(), LogisticRegression())
    found = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1], "diffaetransformer__batch_size": [16, 64]}, cv=2).fit(X, y)
    assert found.best_score_ > 0.6


@pytest.mark.parametrize(
    ("X", "settings", "words"),
    [
        (np.zeros((3, 64)), {}, r"image_shape=\(h, w\)"),
        (np.zeros((3, 64)), {"image_shape": (7, 8)}, "not that of 64 numbers"),
        (np.full((3, 8, 8), 255.0), {}, "divide by what white is"),
        (np.full((3, 8, 8), -1.0), {}, "divide by what white is"),
        (np.full((3, 8, 8), np.nan), {}, "NaN"),
        (np.zeros((3, 8, 8, 3)), {}, "images of 1 channels, and these have 3"),
        (np.zeros((3, 2, 8, 8, 1)), {}, "got 5 dimensions"),
        (np.zeros((3, 1, 1)), {}, "is only 1 x 1 pixels"),
    ],
)
def test_what_is_no_image_is_refused(model, X, settings, words):
    with pytest.raises(ValueError, match=words):
        DiffAETransformer(model=model, **settings).fit_transform(X)


def test_other_images_than_it_was_fitted_to_are_refused(model):
    transformer = DiffAETransformer(model=model).fit(np.zeros((3, 8, 8)))
    with pytest.raises(ValueError, match="images of 8 x 9 x 1, but this was fitted to those of 8 x 8 x 1"):
        transformer.transform(np.zeros((3, 8, 9)))
    with pytest.raises(ValueError, match="X has 5 features, and z_sem has 6"):
        transformer.inverse_transform(np.zeros((3, 5)))


def test_images_of_a_shape_that_was_said_come_back_as_they_were_given(model, digits):
    X, _ = digits
    as_images = X[:4].reshape(4, 8, 8) if X.ndim == 2 else X[:4]
    fitted = DiffAETransformer(image_shape=(8, 8), model=model).fit(as_images)
    assert fitted.inverse_transform(fitted.transform(as_images)).shape == as_images.shape
