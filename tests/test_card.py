"""The page of a published model: what the hub reads on top of it, and what people read below."""

import json

import pytest
import yaml

from diffae.config import PriorConfig, to_dict
from diffae.diffusion.card import model_card
from diffae.semantics.attributes import Attributes, Score

PARTS = {"prior": None, "standardizer": False, "attributes": None}


def read(card):
    """The metadata and the text of a card."""
    start, head, text = card.split("---\n", 2)
    assert start == "", "the metadata must come first, or the hub does not see them"
    return yaml.safe_load(head), text


def section(text, title):
    """The lines under a heading, without empty ones."""
    return [line for line in text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines() if line]


@pytest.mark.parametrize(
    "about", [{}, {"licence": "mit"}, {"licence": "mit", "data": "faces: 1,000 of them", "metrics": {"FID": 3}}]
)
def test_the_metadata_are_yaml_that_names_library_and_tags(about):
    head, _ = read(model_card("user/faces", about, PARTS))
    assert head["library_name"] == "diffae"
    assert head["tags"] == ["diffae", "diffusion-autoencoder"]
    assert head.get("license") == about.get("licence")


@pytest.mark.parametrize(
    ("licence", "metadata"),
    [
        ("mit", {"license": "mit"}),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("no", {"license": "no"}),
        ("CelebA: non-commercial research", {"license": "other", "license_name": "celeba-non-commercial-research"}),
        ('ours"\nlibrary_name: theirs', {"license": "other", "license_name": "ours-library-name-theirs"}),
        ("私用", {"license": "other"}),
        ("", {}),
        (None, {}),
    ],
)
def test_a_licence_is_in_the_hubs_terms_above_and_in_its_own_words_below(licence, metadata):
    head, text = read(model_card("user/faces", {"licence": licence}, PARTS))
    assert head == {"library_name": "diffae", "tags": head["tags"], **metadata}
    assert f"- Licence: {licence or 'not stated'}" in text


def test_what_is_not_stated_is_said_to_be():
    _, text = read(model_card("user/faces", {}, PARTS))
    assert section(text, "Data and licence") == ["- Data: not stated", "- Licence: not stated"]
    assert section(text, "Measured") == ["Nothing yet."]
    assert section(read(model_card("user/faces", {"metrics": None}, PARTS))[1], "Measured") == ["Nothing yet."]


def test_what_was_measured_is_listed_as_the_hub_lists_results():
    from huggingface_hub.repocard_data import model_index_to_eval_results

    about = {"data": 'faces: "drawn"', "metrics": {"FID (T = 100)": 3.25, "MSE": 1e-7}}
    scores = {"Long_Hair": Score("binary", 10, 0.5, 5, auroc=0.75), "Size": Score("continuous", 9, 4.0, r2=0.5)}
    parts = PARTS | {"attributes": {"scores": {name: to_dict(score) for name, score in scores.items()}}}
    head, _ = read(model_card("user/faces", about, parts))
    name, results = model_index_to_eval_results(head["model-index"])
    assert name == "user/faces"
    assert [(r.metric_type, r.metric_name, r.metric_value) for r in results] == [
        ("fid-t-100", "FID (T = 100)", 3.25),
        ("mse", "MSE", 1e-7),
        ("roc_auc", "AUROC of Long_Hair", 0.75),
    ]
    assert {(r.dataset_type, r.dataset_name) for r in results} == {("faces-drawn", 'faces: "drawn"')}
    assert "model-index" not in read(model_card("user/faces", {}, PARTS))[0]


def test_all_that_is_known_is_told_once():
    about = {
        "data": "faces, 70,000 images",
        "licence": "mit",
        "images_seen": 48_000_000,
        "preset": "ffhq128",
        "metrics": {"FID": 3.14159},
    }
    _, text = read(model_card("user/faces", about, PARTS))
    assert section(text, "Data and licence") == [
        "- Data: faces, 70,000 images",
        "- Licence: mit",
        "- Images seen: 48000000",
        "- Preset: ffhq128",
    ]
    assert section(text, "Measured") == ["- FID: 3.142"]


def test_the_code_on_the_page_is_python_that_loads_this_very_model():
    for parts, load in ((PARTS, 'diffae.load("user/faces")'), ({}, 'diffae.load_diffusion("user/faces")')):
        _, text = read(model_card("user/faces", {}, parts))
        code = text.split("```python\n")[1].split("```")[0]
        compile(code, "card", "exec")
        assert load in code


@pytest.mark.parametrize(
    ("prior", "attributes", "can"),
    [
        (None, False, "Reconstruct, vary and interpolate."),
        ("gaussian", False, "Reconstruct, vary and interpolate; sample, by a Gaussian prior."),
        (
            {"codes": 5000},
            False,
            "Reconstruct, vary and interpolate; sample, by a smoothed bootstrap, which holds codes of 5,000 training images.",
        ),
        (to_dict(PriorConfig(z_dim=6)), True, "Reconstruct, vary, interpolate and edit; sample, by a latent DDIM prior."),
        (None, True, "Reconstruct, vary, interpolate and edit."),
    ],
)
def test_it_promises_what_the_parts_that_travel_along_can_do(prior, attributes, can):
    known = Attributes({"Smiling": Score("binary", 10, 0.5, 5, auroc=0.75)}, 6).to_config() if attributes else None
    _, text = read(model_card("user/faces", {}, PARTS | {"prior": prior, "attributes": known}))
    assert section(text, "What it can do")[0] == can


def test_a_plain_ddim_is_not_called_an_autoencoder():
    head, text = read(model_card("user/plain", {}, {}))
    assert head["tags"] == ["diffae", "ddim"]
    assert "autoencoder" not in text
    assert "z_sem" not in text
    assert section(text, "What it can do") == ["Reconstruct, interpolate and sample."]


def test_attributes_are_a_table_with_a_cell_for_each_column_and_none_for_what_was_not_measured():
    scores = {
        "Smiling": Score("binary", 100, 0.5, 40, auroc=0.98765, average_precision=0.5),
        "Age": Score("continuous", 90, 33.0, 30, r2=0.25),
        "A|B": Score("binary", 80, 0.5),
    }
    attributes = json.loads(json.dumps(Attributes(scores, 6).to_config()))
    _, text = read(model_card("user/faces", {}, PARTS | {"attributes": attributes}))
    header, line, *rows = [row for row in section(text, "What it can do") if row.startswith("|")]
    columns = header.count("|")
    assert line.count("|") == columns
    assert rows == ["| Smiling | 40 | 0.988 | 0.500 |  |", "| Age | 30 |  |  | 0.250 |", "| A\\|B | 0 |  |  |  |"]
    assert all(row.replace("\\|", "").count("|") == columns for row in rows)
