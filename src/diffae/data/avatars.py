"""The embedded data set: cartoon faces of which every attribute is known, drawn from a seed.

Art: *avataaars* by Pablo Stanley, free for personal and commercial use, by way of `python-avatars` (MIT).
"""

import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from diffae.data.labels import write_labels

VERSION = 1
"""Changes when the pictures of a seed change."""

ATTRIBUTES = (
    "Smiling", "Eyeglasses", "Sunglasses", "Beard", "Mustache", "Wearing_Hat",
    "Long_Hair", "Bald", "Blond_Hair", "Gray_Hair", "Black_Hair", "Eyes_Closed",
)  # fmt: skip
"""The binary attributes, of which labels.csv says 0 or 1; beside them stands `Skin_Tone`, 0 (light) to 6 (dark)."""

SKINS = ("PALE", "LIGHT", "YELLOW", "TANNED", "BROWN", "DARK_BROWN", "BLACK")
LONG = (
    "BIG_HAIR",
    "BOB",
    "CURLY",
    "CURVY",
    "LONG_NOT_TOO_LONG",
    "STRAIGHT_1",
    "STRAIGHT_2",
    "STRAIGHT_STRAND",
    "MIA_WALLACE",
    "LONG_HAIR_CURLY",
)
SHORT = (
    "CAESAR", "CAESAR_SIDE_PART", "SHORT_CURLY", "SHORT_DREADS_1", "SHORT_DREADS_2", "SHORT_FLAT", "SHORT_ROUND", "SHORT_WAVED",
    "SHAGGY", "BUZZCUT", "POMPADOUR", "QUIFF", "PIXIE", "BUN", "FRO", "FRIZZLE",
)  # fmt: skip
HATS = ("HAT", "TURBAN", "WINTER_HAT_1", "WINTER_HAT_2", "WINTER_HAT_3")
SMILES = ("SMILE", "BIG_SMILE", "TWINKLE", "DEFAULT")
FROWNS = ("SERIOUS", "SAD", "GRIMACE", "CONCERNED", "DISBELIEF")
EYES = ("DEFAULT", "HAPPY", "SIDE", "SQUINT", "SURPRISED", "EYE_ROLL")
BROWS = ("DEFAULT", "DEFAULT_NATURAL", "FLAT_NATURAL", "RAISED_EXCITED", "SAD_CONCERNED", "UP_DOWN")
GLASSES = ("PRESCRIPTION_1", "PRESCRIPTION_2", "ROUND")
SHADES = ("SUNGLASSES", "WAYFARERS", "KURT", "SUNGLASSES_2", "WAYFARERS_2")
BEARDS = ("BEARD_LIGHT", "BEARD_MAGESTIC", "BEARD_MEDIUM", "WICK_BEARD")
MUSTACHES = ("MOUSTACHE_FANCY", "MOUSTACHE_MAGNUM")
HAIR = {
    "Blond_Hair": ("BLONDE", "BLONDE_GOLDEN"),
    "Gray_Hair": ("SILVER_GRAY", "PLATINUM"),
    "Black_Hair": ("BLACK",),
    "": ("AUBURN", "BROWN", "BROWN_DARK", "RED"),
}
CLOTHES = (
    "BLAZER_SHIRT",
    "BLAZER_SWEATER",
    "COLLAR_SWEATER",
    "HOODIE",
    "OVERALL",
    "SHIRT_CREW_NECK",
    "SHIRT_SCOOP_NECK",
    "SHIRT_V_NECK",
)


def draw(seed: int, index: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The parts of avatar `index` of a seed, and its attributes."""
    rng = random.Random(f"{seed}/{index}")
    labels = dict.fromkeys(ATTRIBUTES, 0)
    top_kind = rng.choices(("hat", "bald", "long", "short"), (0.15, 0.1, 0.35, 0.4))[0]
    color_kind = rng.choices(("Blond_Hair", "Gray_Hair", "Black_Hair", ""), (0.2, 0.15, 0.25, 0.4))[0]
    top = {"hat": HATS, "bald": ("NONE",), "long": LONG, "short": SHORT}[top_kind]
    labels |= {"Wearing_Hat": int(top_kind == "hat"), "Bald": int(top_kind == "bald"), "Long_Hair": int(top_kind == "long")}
    if color_kind and top_kind in ("long", "short"):
        labels[color_kind] = 1
    facial = rng.choices(("Beard", "Mustache", ""), (0.22, 0.15, 0.63))[0]
    wear = rng.choices(("Eyeglasses", "Sunglasses", ""), (0.22, 0.15, 0.63))[0]
    smiling, closed = rng.random() < 0.5, rng.random() < 0.15
    labels |= {"Smiling": int(smiling), "Eyes_Closed": int(closed)}
    for kind in (facial, wear):
        if kind:
            labels[kind] = 1
    skin = rng.randrange(len(SKINS))
    hair_color = rng.choice(HAIR[color_kind])
    parts = {
        "top": rng.choice(top),
        "hat_color": f"#{rng.randrange(256):02x}{rng.randrange(256):02x}{rng.randrange(256):02x}",
        "eyebrows": rng.choice(BROWS),
        "eyes": "CLOSED" if closed else rng.choice(EYES),
        "mouth": rng.choice(SMILES if smiling else FROWNS),
        "facial_hair": rng.choice({"Beard": BEARDS, "Mustache": MUSTACHES, "": ("NONE",)}[facial]),
        "accessory": rng.choice({"Eyeglasses": GLASSES, "Sunglasses": SHADES, "": ("NONE",)}[wear]),
        "skin_color": SKINS[skin],
        "hair_color": hair_color,
        "clothing": rng.choice(CLOTHES),
        "clothing_color": rng.randrange(12),
        "background": "#" + "".join(f"{rng.randrange(90, 256):02x}" for _ in range(3)),
        # A crop like that of an aligned face set: a little nearer or further, a little off the centre.
        "zoom": rng.uniform(1.18, 1.42),
        "shift": (rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
    }
    return parts, labels | {"Skin_Tone": skin}


def render(parts: dict[str, Any], size: int) -> bytes:
    """The avatar as a PNG of size x size pixels."""
    try:
        import python_avatars as pa
        import resvg_py
    except ImportError:
        raise ImportError("The avatars need python-avatars and resvg-py: pip install 'diffae[demo]'.") from None
    from PIL import Image

    svg = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT,
        top=pa.HatType[parts["top"]] if parts["top"] in HATS else pa.HairType[parts["top"]],
        hat_color=parts["hat_color"],
        eyebrows=pa.EyebrowType[parts["eyebrows"]],
        eyes=pa.EyeType[parts["eyes"]],
        mouth=pa.MouthType[parts["mouth"]],
        facial_hair=pa.FacialHairType[parts["facial_hair"]],
        accessory=pa.AccessoryType[parts["accessory"]],
        skin_color=pa.SkinColor[parts["skin_color"]],
        hair_color=pa.HairColor[parts["hair_color"]],
        facial_hair_color=pa.HairColor[parts["hair_color"]],
        clothing=pa.ClothingType[parts["clothing"]],
        clothing_color=list(pa.ClothingColor)[parts["clothing_color"]],
    ).render()
    width = round(2 * size * parts["zoom"])
    png = resvg_py.svg_to_bytes(svg_string=svg, background=parts["background"], width=width, skip_system_fonts=True)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    side = image.width / parts["zoom"]
    x = (image.width - side) / 2 + parts["shift"][0] * side
    # The face is a little above the middle of the drawing.
    y = min(max((image.height - side) * 0.42 + parts["shift"][1] * side, 0), image.height - side)
    out = io.BytesIO()
    image.resize((size, size), Image.Resampling.LANCZOS, box=(x, y, x + side, y + side)).save(out, "PNG")
    return out.getvalue()


def avatars_folder(cache: Path, *, num: int, size: int, progress: Callable[[str, int, int], None], seed: int = 0) -> Path:
    """A folder of `num` avatars and their `labels.csv`, rendered in parallel unless it is there already.

    Args:
        cache: folder that the avatars' folder is made in.
        num: number of avatars.
        size: their side in pixels.
        progress: told how many are drawn.
        seed: avatar number i depends on the seed and i alone.
    """
    folder = cache / f"avatars-{VERSION}" / f"{size}px-{num}-seed{seed}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Drawn into a folder of another name, which is moved into place when it is whole.
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        jobs = [(seed, start, min(start + 50, num), size, part) for start in range(0, num, 50)]
        done = 0
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            for count in pool.map(_render_some, jobs):
                done += count
                progress("Drawing avatars", done, num)
        write_labels(part / "labels.csv", ({"file": f"{i:06d}.png", **draw(seed, i)[1]} for i in range(num)))
        part.chmod(0o755)
        part.rename(folder)
    except FileExistsError:
        pass  # Another process was quicker; its folder is the same.
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _render_some(job: tuple[int, int, int, int, Path]) -> int:
    seed, start, end, size, folder = job
    for i in range(start, end):
        (folder / f"{i:06d}.png").write_bytes(render(draw(seed, i)[0], size))
    return end - start
