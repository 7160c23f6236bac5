"""Every tutorial does what it says: its commands and its code run as they stand, in their order."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from diffae import cli
from diffae.frozen import programs

QUICKER = ("manipulate", "interpolate", "vary", "sample", "explain", "audit")
PAGES = dict.fromkeys(("evaluate", "explain", "audit", "anomaly", "posterior"), "report.html") | {"compare": "compare.html"}
"""What commands that end in a page write."""
TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
SMALL = """
--model.image-size 16 16 --model.z-dim 4 --model.unet.base-channels 8 --model.unet.channel-mult 1 2 --model.encoder.pooled-size 1
--model.unet.embed-channels 8 --model.encoder.base-channels 8 --model.encoder.channel-mult 1 2 --training.batch-size 8
--training.precision float32 --data.validation 0.3
""".split()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with `photos` and their labels, `few.csv`, and a small model of them in `runs/quickstart`."""
    place = tmp_path_factory.mktemp("tutorials")
    (place / "photos").mkdir()
    generator = torch.Generator().manual_seed(0)
    colors = torch.randint(0, 256, (60, 3), generator=generator).tolist()
    rows = ["file,Smiling,Bald,Skin_Tone"]
    for i, color in enumerate(colors):
        Image.new("RGB", (16, 16), tuple(color)).save(place / "photos" / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{int(color[0] > 127)},{int(color[1] > 127)},{color[2]}")
    (place / "photos" / "labels.csv").write_text("\n".join(rows) + "\n")
    few = [f"{i:03d}.png,{int(c[0] > 127)}" for i, c in enumerate(colors[:40])]
    (place / "few.csv").write_text("\n".join(["file,Smiling", *few]) + "\n")
    AcceleratorState._reset_state(reset_partial_state=True)
    out = place / "runs" / "quickstart"
    cli.main(["train", str(place / "photos"), "--preset", "avatars32", "--out", str(out), "--images", "400", *SMALL])
    return place


@pytest.fixture
def here(workplace, tmp_path, monkeypatch):
    """A fresh copy of the workplace, as the current folder."""
    place = tmp_path / "here"
    shutil.copytree(workplace, place)
    config = place / "runs" / "quickstart" / "config.json"
    config.write_text(config.read_text().replace(str(workplace), str(place)))
    monkeypatch.chdir(place)
    AcceleratorState._reset_state(reset_partial_state=True)
    return place


# The studio's page is tested in a browser, and its example against it (test_studio_page); that of faces, which needs photographs,
# in test_faces.
@pytest.mark.parametrize(
    "tutorial", sorted(p for p in TUTORIALS.glob("*.md") if p.stem not in ("studio", "faces")), ids=lambda p: p.stem
)
@pytest.mark.filterwarnings("ignore:x_T has a standard deviation")  # The model has learned almost nothing.
@pytest.mark.filterwarnings("ignore:__array")  # NumPy's, of tensors that diffusers turns into arrays.
def test_a_tutorial_runs_as_it_stands(tutorial, here, capsys, monkeypatch):
    text = tutorial.read_text()
    made = []
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL):
        if kind == "python":
            exec(block, {})
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            if program == "export":
                monkeypatch.setenv(*arguments[0].split("=", 1))
                continue
            assert program == "diffae"
            programs.PERMITTED.clear()  # Each command is a process of its own.
            # The commands are the tutorial's; only the number of network calls is a test's.
            quick = ["--steps", "4"] if arguments[0] in QUICKER else []
            cli.main([*arguments, *quick])
            made += [a for a in arguments if a.endswith((".png", ".gif", ".parquet")) and "photos" not in a]
            if arguments[0] in PAGES:
                made.append(f"{arguments[arguments.index('--out') + 1]}/{PAGES[arguments[0]]}")
    assert made
    for name in made:
        assert (here / name).stat().st_size > 50, name


def test_there_is_a_tutorial_for_each_of_the_things_one_does():
    assert {p.stem for p in TUTORIALS.glob("*.md")} == {
        "pictures",
        "start",
        "diffusers",
        "encoders",
        "faces",
        "encode",
        "manipulate",
        "interpolate",
        "sample",
        "evaluate",
        "explain",
        "studio",
    }
    assert all(len(p.read_text().splitlines()) < 70 for p in TUTORIALS.glob("*.md"))


def test_every_command_that_a_page_names_exists():
    pages = [*TUTORIALS.glob("*.md"), TUTORIALS.parents[1] / "README.md"]
    for page in pages:
        for command in re.findall(r"`?diffae ([a-z-]+)[ `]", page.read_text()):
            assert command in cli.COMMANDS, f"{page.name}: diffae {command}"
