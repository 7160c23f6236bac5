"""The embedded data set: cartoon faces with every attribute known, drawn from a seed.

Art: *avataaars* by Pablo Stanley, free for personal and commercial use, by way of `python-avatars` (MIT).
"""

import io
import random
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from diffae.data.labels import write_labels
from diffae.runtime.cores import usable_cores

VERSION = 1
"""Changes when the pictures of a seed change."""

ATTRIBUTES = (
    "Smiling", "Eyeglasses", "Sunglasses", "Beard", "Mustache", "Wearing_Hat",
    "Long_Hair", "Bald", "Blond_Hair", "Gray_Hair", "Black_Hair", "Eyes_Closed",
)  # fmt: skip
"""The binary attributes, 0 or 1 in labels.csv. One more column there is `Skin_Tone`, 0 (light) to 6 (dark)."""
SCALES = ("Skin_Tone=continuous",)
"""Columns of `labels.csv` that are numbers, not yes or no."""

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
UNSEEN = {
    "hat": ("HIJAB", "WINTER_HAT_4", "CHEF_CAP", "JEDI", "GLADIATOR_HELMET"),
    "long": ("DREADS", "DREADLOCKS", "SHAVED_SIDES", "BRIDE", "CURLY_2", "LOOSE_HAIR", "TWIST_LONG_HAIR", "FRIDA", "WICK"),
    "short": ("BRAIDS", "ELVIS", "EVIL_SPIKE", "HALF_SHAVED", "MOHAWK", "MOWGLI", "EINSTEIN_HAIR", "SHAGGY_MULLET"),
    "smile": ("TONGUE", "EATING"),
    "frown": ("SCREAM_OPEN", "VOMIT"),
    "eyes": ("CRY", "HEART", "WINK_WACKY"),
    "brows": ("ANGRY", "ANGRY_NATURAL", "FROWN_NATURAL", "RAISED_EXCITED_NATURAL", "UNIBROW_NATURAL", "UP_DOWN_NATURAL"),
    "Mustache": ("EINSTEIN_MOUSTACHE",),
    "clothes": ("GRAPHIC_SHIRT", "ASTRONAUT_SUIT", "BOND_SUIT", "CHEF", "GLADIATOR", "JEDI_ROBE", "SHIRT_WICK"),
}
"""Parts that `avatars` never has and `avatars-unseen` always has: a second set with the same attributes. Of glasses and beards
there are no others."""
PARTS = {
    "hat": HATS, "bald": ("NONE",), "long": LONG, "short": SHORT, "smile": SMILES, "frown": FROWNS, "eyes": EYES, "brows": BROWS,
    "Beard": BEARDS, "Mustache": MUSTACHES, "Eyeglasses": GLASSES, "Sunglasses": SHADES, "": ("NONE",), "clothes": CLOTHES,
}  # fmt: skip
SETS = {"avatars": (0, PARTS), "avatars-unseen": (1, PARTS | UNSEEN)}
"""Name of a set -> its seed and the parts to choose from."""


def draw(seed: int, index: int, choices: dict[str, tuple[str, ...]] = PARTS) -> tuple[dict[str, Any], dict[str, int]]:
    """Draws the parts of avatar number `index` of a seed from those of a set. Returns them and its attributes."""
    rng = random.Random(f"{seed}/{index}")
    labels = dict.fromkeys(ATTRIBUTES, 0)
    top_kind = rng.choices(("hat", "bald", "long", "short"), (0.15, 0.1, 0.35, 0.4))[0]
    color_kind = rng.choices(("Blond_Hair", "Gray_Hair", "Black_Hair", ""), (0.2, 0.15, 0.25, 0.4))[0]
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
        "top": rng.choice(choices[top_kind]),
        "hat_color": f"#{rng.randrange(256):02x}{rng.randrange(256):02x}{rng.randrange(256):02x}",
        "eyebrows": rng.choice(choices["brows"]),
        "eyes": "CLOSED" if closed else rng.choice(choices["eyes"]),
        "mouth": rng.choice(choices["smile" if smiling else "frown"]),
        "facial_hair": rng.choice(choices[facial]),
        "accessory": rng.choice(choices[wear]),
        "skin_color": SKINS[skin],
        "hair_color": hair_color,
        "clothing": rng.choice(choices["clothes"]),
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
        top=pa.HatType[parts["top"]] if parts["top"] in (*HATS, *UNSEEN["hat"]) else pa.HairType[parts["top"]],
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


def avatars_folder(cache: Path, *, num: int, size: int, progress: Callable[[str, int, int], None], name: str = "avatars") -> Path:
    """A folder of `num` avatars and their `labels.csv`, rendered in parallel unless it is there already.

    Args:
        cache: folder that the avatars' folder is made in.
        num: number of avatars.
        size: their side in pixels.
        progress: called with the number drawn so far.
        name: of `SETS`. Avatar number i depends on the set and i alone.
    """
    seed, choices = SETS[name]
    folder = cache / f"{name}-{VERSION}" / f"{size}px-{num}-seed{seed}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Drawn into a folder of another name, which is moved into place when it is whole.
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        jobs = [(name, start, min(start + 50, num), size, part) for start in range(0, num, 50)]
        done = 0
        with ProcessPoolExecutor(len(usable_cores()), mp_context=get_context("spawn")) as pool:
            for count in pool.map(_render_some, jobs):
                done += count
                progress("Drawing avatars", done, num)
        write_labels(part / "labels.csv", ({"file": f"{i:06d}.png", **draw(seed, i, choices)[1]} for i in range(num)))
        part.chmod(0o755)
        part.rename(folder)
    except OSError:
        if not folder.is_dir():  # Else another process was quicker; its folder is the same.
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _render_some(job: tuple[str, int, int, int, Path]) -> int:
    name, start, end, size, folder = job
    for i in range(start, end):
        (folder / f"{i:06d}.png").write_bytes(render(draw(SETS[name][0], i, SETS[name][1])[0], size))
    return end - start
