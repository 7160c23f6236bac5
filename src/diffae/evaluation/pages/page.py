"""Pages that need nothing but a browser: pictures inside, light and dark, no script."""

import base64
import io
from collections.abc import Sequence
from html import escape

from diffae.evaluation.pages.figures import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fcfcfa; --line: #dcdcd6; --soft: #5d6470; --mark: #1f5fbf }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e3; --paper: #16181b; --line: #34383e; --soft: #9aa2ad; --mark: #7fb0ff }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 1060px; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2.4rem 0 .3rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem }
p { max-width: 46rem; margin: .3rem 0 .8rem } .soft { color: var(--soft) }
img { max-width: 100%; background: #fff; padding: 6px; border: 1px solid var(--line); border-radius: 4px; box-sizing: border-box }
div.wide { overflow-x: auto }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .3rem .9rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th { white-space: normal; vertical-align: bottom }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 11rem }
th { font-weight: 600; color: var(--soft) } td.best { color: var(--mark); font-weight: 600 }
code, pre { font: .9em ui-monospace, monospace }
pre { border: 1px solid var(--line); border-radius: 4px; padding: .8rem 1rem; overflow-x: auto }
"""


def html(title: str, sections: Sequence[str]) -> str:
    """The whole page of these sections, which are HTML already."""
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def figure_html(figure: Figure, *, level: int = 2) -> str:
    """A picture with its heading, of this level, and words; the image inside."""
    buffer = io.BytesIO()
    figure.picture.save(buffer, "PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    alt = escape(f"{figure.title}. {figure.text}", quote=True)
    heading = f"<h{level}>{escape(figure.title)}</h{level}>"
    return f'{heading}<p>{escape(figure.text)}</p><img alt="{alt}" src="data:image/png;base64,{source}">'


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is words, the others numbers."""
    # A header of nothing is none, for those who have pages read to them.
    head = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def table_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
