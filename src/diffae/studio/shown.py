"""How images and numbers look on the page."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.pictures import scale_for, to_pil

WIDTH = 320
"""Pixels of a picture, about."""
HIGHEST = 226
"""Pixels that Gradio leaves a picture of Edit in height."""
LONGEST = 8192
"""Pixels of a film of slices at most: browsers shrink what is longer than their graphics memory takes."""


def enlarged(ae: DiffusionAutoencoder, x: Float[Tensor, "c *sides"], width: int = WIDTH) -> Image.Image:
    """An image as the page shows it: every pixel a square, so that nothing is invented. A volume is a film of its slices, one below
    another, of which the page shows one (`scrolling`)."""
    return magnified(ae.to_pictures(x[None])[0], width)


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


def bars(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Probabilities before and after, a row for each attribute: a table for those who do not see bars."""
    if not before:
        return "<p>No attribute is fitted: label some images under Teach, or run <code>diffae fit-attributes</code>.</p>"
    rows = "".join(
        f'<tr><th scope="row">{escape(worded(name))}</th><td>{100 * p:.0f} %</td>'
        f'<td class="bar" aria-hidden="true"><i class="was" style="width:{100 * p:.1f}%"></i>'
        f'<i class="is" style="width:{100 * after[name]:.1f}%"></i></td><td>{100 * after[name]:.0f} %</td></tr>'
        for name, p in before.items()
    )
    head = '<tr><th scope="col">attribute</th><th scope="col">before</th><td></td><th scope="col">after</th></tr>'
    return f'<table class="bars"><caption>What the classifiers say</caption>{head}{rows}</table>'


CSS = """
.gradio-container h1 { font-size: 1.1rem !important; margin: .2rem 0 !important }
.bars { width: 100%; border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
.bars caption { text-align: left; font-weight: 600; padding-bottom: .2rem }
.bars tr, .bars th, .bars td, .bars { border: 0 !important }
.bars th, .bars td { padding: .05rem .4rem .05rem 0 !important; white-space: nowrap }
.bars th { text-align: left; font-weight: 400 }
.bars td { text-align: right }
.bars .bar { width: 60%; min-width: 5rem }
.bars i { display: block; height: 5px; border-radius: 2px; margin: 1px 0 }
.bars .was { background: #8a93a3 } .bars .is { background: #2f6fd0 }
img { image-rendering: pixelated }
#edit-sliders { max-height: 590px; overflow-y: auto; flex-wrap: nowrap; gap: 0 }
.map { position: relative }
.map canvas { width: 100%; border: 1px solid var(--border-color-primary); border-radius: 6px;
              cursor: crosshair; touch-action: none }
.map select { background: var(--input-background-fill); color: inherit; margin: 0 0 .4rem .3rem; padding: .1rem .4rem }
.map canvas.tip { position: absolute; width: 96px; pointer-events: none; border: 2px solid #fff; display: none;
                  box-shadow: 0 2px 10px #0008; image-rendering: pixelated; background: #fff }
footer { display: none !important }
"""
# A slider that was moved by keys is let go when the key is, as one that was dragged.
JS = """() => document.addEventListener('keyup', event => {
    if (event.target.matches('input[type=range]')) event.target.dispatchEvent(new PointerEvent('pointerup', {bubbles: true}));
})"""
