"""How images and numbers look on the page."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.pictures import scale_for, to_pil

WIDTH = 320
"""Pixels of a picture, about."""
HIGHEST = 226
"""Pixels that Gradio leaves a picture of Edit in height."""
MOST_BARS = 14
"""Attributes whose probabilities are shown."""
LONGEST = 8192
"""Pixels of a film of slices at most: browsers shrink what is longer than their graphics memory takes."""


def enlarged(ae: DiffusionAutoencoder, x: Float[Tensor, "c *sides"], width: int = WIDTH) -> Image.Image:
    """An image as the page shows it: every pixel a square, so that nothing is invented. A volume is a film of its slices, one below
    another, of which the page shows one (`scrolling`)."""
    return magnified(ae.to_pictures(x[None])[0], width)


def listed(title: str, sentences: Sequence[str]) -> str:
    """Sentences below a title, in Markdown, as a part of a text; nothing where there are none."""
    return "".join((f"\n\n{title}\n", *(f"\n- {sentence}" for sentence in sentences))) if sentences else ""


def magnified(seen: Float[Tensor, "c *sides"], width: int = WIDTH) -> Image.Image:
    """Likewise what is drawn already."""
    scale = scale_for(seen, width)
    if seen.dim() == 4:
        seen = seen.flatten(1, 2)
        scale = max(1, min(scale, LONGEST // seen.shape[1]))
    picture = to_pil(seen)
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    # Gradio names a picture by its bytes and writes it where it lies, also while another visitor is sent the same one.
    picture.info["shown"] = uuid.uuid4().hex
    return picture


def scrolling(shape: Sequence[int]) -> tuple[str, str]:
    """For volumes of this shape, the control by which all pictures of the page go through their slices, and the style that has
    them show one; both empty for images.

    It is done by the page alone: the films are there, and a slice is a place in them.
    """
    if len(shape) < 4:
        return "", ""
    depth, h, w = shape[1:]
    move = f"document.documentElement.style.setProperty('--slice', 100 * this.value / {max(1, depth - 1)} + '%');"
    said = f"this.nextElementSibling.value = (+this.value + 1) + ' of {depth}'"
    control = (
        f'<label class="slice">Slice <input type="range" min="0" max="{depth - 1}" value="{depth // 2}" id="slice" '
        f'oninput="{move} {said}"> <output>{depth // 2 + 1} of {depth}</output></label>'
    )
    style = (
        f":root {{ --slice: {100 * (depth // 2) / max(1, depth - 1)}% }}\n"
        f".gradio-container img {{ object-fit: cover !important; object-position: 0 var(--slice) !important; "
        f"aspect-ratio: {w} / {h} !important; width: min(100%, {HIGHEST * w // h}px) !important; height: auto !important; "
        "margin: 0 auto }\n"
        ".slice { display: flex; gap: .6rem; align-items: center } .slice input { flex: 1 }"
    )
    return control, style


def difference(a: Float[Tensor, "c *sides"], b: Float[Tensor, "c *sides"]) -> Float[Tensor, "c *sides"]:
    """Where two images differ, bright on black; four times as strong, so that it can be seen."""
    return ((b.clamp(-1, 1) - a.clamp(-1, 1)).abs() * 4 - 1).clamp(-1, 1)


def worded(name: str | None) -> str:
    """An attribute's name, for people."""
    return (name or "").replace("_", " ")


def choices(names: Iterable[str]) -> list[tuple[str, str]]:
    """Attributes to choose from: each as people read it, and its name."""
    return [(worded(name), name) for name in names]


def bars(before: Mapping[str, float], after: Mapping[str, float], moved: Sequence[str] = ()) -> str:
    """Probabilities before and after, a row for each attribute: a table for those who do not see bars.

    Args:
        before: attribute -> probability.
        after: likewise.
        moved: attributes to show in any case, where there are more than `MOST_BARS`: the others are those that changed most.
    """
    if not before:
        return "<p>No attribute is fitted: label some images under Teach, or run <code>diffae fit-attributes</code>.</p>"
    said, names = "What the classifiers say", list(before)
    if len(names) > MOST_BARS:
        # Of equal changes the best known come first.
        most = sorted(names, key=lambda name: (name not in moved, -round(abs(after[name] - before[name]), 3)))[:MOST_BARS]
        names = [name for name in names if name in most]
        said += f" of {len(names)} attributes of {len(before)}: the moved, and those that change most"
    rows = "".join(
        f'<tr><th scope="row">{escape(worded(name))}</th><td>{100 * before[name]:.0f} %</td>'
        f'<td class="bar" aria-hidden="true"><i class="was" style="width:{100 * before[name]:.1f}%"></i>'
        f'<i class="is" style="width:{100 * after[name]:.1f}%"></i></td><td>{100 * after[name]:.0f} %</td></tr>'
        for name in names
    )
    head = '<tr><th scope="col">attribute</th><th scope="col">before</th><td></td><th scope="col">after</th></tr>'
    return f'<table class="bars"><caption>{said}</caption>{head}{rows}</table>'


CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
