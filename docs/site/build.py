"""Builds the documentation: the Markdown of this repository and pages made from its source become a site.

    python docs/site/build.py [--out build]

OUT/pages holds what zensical reads, OUT/site the HTML: open OUT/site/index.html. Nothing but the search wants a server. A warning
is an error.
"""

import argparse
import ast
import functools
import os
import posixpath
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import reference
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("docs/**/*.md", "benchmarks/*.md", "recipes/*.md", "models/*/*.md", "CHANGELOG.md", "CONTRIBUTING.md")
BESIDE = ("docs/**/*.png", "benchmarks/*.png", "docs/site/*.css")
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?(?P<after>\))")
FENCE = re.compile(r"^ *```")
QUOTE = re.compile(r"^# (?P<file>src/\S+\.py): (?P<name>[\w.]+)$")
"""A code block of this one line is filled with the source of that function, method or class, without its docstring."""
BLOCK = re.compile(r"^(?:[-*] |\d+\. |\|)")
"""Begins a list or a table, before which Markdown wants an empty line and GitHub does not."""


def place(path: str) -> str:
    """Where a file of the repository is in the site: docs/ is its root, and the README's place is taken by docs/index.md."""
    path = path.removeprefix("docs/").removeprefix("site/")
    if path == "README.md":
        return "index.md"
    return posixpath.join(posixpath.dirname(path), "index.md") if posixpath.basename(path) == "README.md" else path


def quoted(file: str, name: str, *, root: Path = ROOT) -> str:
    """The source of a function, method or class, without its docstring.

    Args:
        file: path in the repository.
        name: such as `solve` or `Path.backwards`.
        root: of the repository.

    Raises:
        ValueError: the file has no such name.
    """
    text = (root / file).read_text()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        below = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part]
        if not below:
            raise ValueError(f"{file} has no {name}, which a page quotes. Correct the page.")
        node = below[-1]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    assert node.end_lineno is not None
    lines = text.splitlines()
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    kept = range(first, node.end_lineno + 1)
    if ast.get_docstring(node) is not None:
        told = node.body[0]
        assert told.end_lineno is not None
        kept = [i for i in kept if not told.lineno <= i <= told.end_lineno]  # type: ignore[assignment]
    return textwrap.dedent("\n".join(lines[i - 1] for i in kept)).strip()


def pieces(text: str) -> Iterator[tuple[bool, list[str]]]:
    """A page in pieces: (whether it is a block of code, fences and all; its lines)."""
    piece: list[str] = []
    code = False
    for line in text.splitlines():
        fence = FENCE.match(line) is not None
        if fence and not code:
            yield False, piece
            piece = []
        piece.append(line)
        if fence:
            if code:
                yield True, piece
                piece = []
            code = not code
    yield code, piece


def staged(text: str, link: Callable[[str], str]) -> str:
    """A page as zensical reads it.

    Args:
        text: what it says.
        link: target of a link, relative to the page -> the same in the site.
    """
    done: list[str] = []
    for code, lines in pieces(text):
        if code:
            found = QUOTE.match(lines[1]) if len(lines) == 3 else None
            if found:
                lines = [f'{lines[0]} title="{found["file"]}"', quoted(found["file"], found["name"]), lines[2]]
            done += lines
            continue
        for i, line in enumerate(lines):
            before = lines[i - 1] if i else ""
            if BLOCK.match(line) and before.strip() and not BLOCK.match(before) and before[0] not in "# ":
                done.append("")
            done.append(LINK.sub(lambda m: f"{m['before']}{link(m['target'])}{m['anchor'] or ''}{m['after']}", line))
    return "\n".join(done) + "\n"


class Site:
    """The pages, as they are gathered in a folder.

    Attributes:
        root: the repository.
        pages: the folder.
        sources: files of the repository that are no pages, and that pages link to: they become pages of code.
    """

    def __init__(self, root: Path, pages: Path) -> None:
        self.root, self.pages, self.sources = root, pages, set[str]()

    def gather(self) -> None:
        """Writes all pages."""
        for pattern in BESIDE:
            for file in sorted(self.root.glob(pattern)):
                target = self.pages / place(file.relative_to(self.root).as_posix())
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        for file in sorted({p for pattern in TEXTS for p in self.root.glob(pattern)}):
            page = file.relative_to(self.root).as_posix()
            self.write(place(page), staged(file.read_text(), functools.partial(self.link, page)))
        for name, text in reference.pages().items():
            self.write(name, text)
        for source in sorted(self.sources):
            self.write(f"source/{source}.md", self.source_page(source))

    def write(self, name: str, text: str) -> None:
        """Writes one page."""
        file = self.pages / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def link(self, page: str, target: str) -> str:
        """A link of a page, as it is in the site.

        Raises:
            ValueError: there is nothing where it points to.
        """
        if not target or re.match(r"[a-z]+:", target):
            return target
        here = posixpath.dirname(place(page)) or "."
        if target.startswith("reference/") or "/reference/" in target:
            return target  # Pages that are made from the source. Zensical looks whether they are there.
        there = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if (self.root / there / "README.md").is_file():
            there = f"{there}/README.md"
        if not (self.root / there).exists():
            raise ValueError(f"{page} links to {target}, and there is no {there}.")
        if there.endswith((".md", ".png")):
            return posixpath.relpath(place(there), here)
        self.sources.add(there)
        return posixpath.relpath(f"source/{there}.md", here)

    def source_page(self, source: str) -> str:
        """The page of a file that is no page itself, or of a folder: its files, each with its first sentence."""
        head = f"---\nsearch:\n  exclude: true\n---\n\n# {source}\n\n"
        path = self.root / source
        if path.is_dir():
            told = ((p, ast.get_docstring(ast.parse(p.read_text())) or "") for p in sorted(path.rglob("*.py")))
            rows = [f"| `{p.relative_to(path).as_posix()}` | {text.splitlines()[0] if text else ''} |" for p, text in told]
            return head + "| file | |\n|---|---|\n" + "\n".join(rows) + "\n"
        kind = "python" if path.suffix == ".py" else "text"
        return f"{head}````{kind}\n{path.read_text()}````\n"


def build(out: Path) -> Path:
    """Builds the site below a folder, and returns the HTML's.

    Raises:
        ValueError: a page links or quotes what is not there.
        subprocess.CalledProcessError: zensical found something to warn of, and has said what.
    """
    pages, site = out / "pages", out / "site"
    for folder in (pages, site):
        shutil.rmtree(folder, ignore_errors=True)
    Site(ROOT, pages).gather()
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text()) | {"docs_dir": pages.name, "site_dir": site.name}
    (handlers,) = (plugin["mkdocstrings"]["handlers"] for plugin in settings["plugins"] if "mkdocstrings" in plugin)
    handlers["python"]["paths"] = [str(ROOT / "src")]
    config_file = out / "mkdocs.yml"
    config_file.write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config_file)]
    subprocess.run(command, check=True, cwd=out, env=os.environ | {"NO_COLOR": "1"})
    return site


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder of both")
    site = build(parser.parse_args().out.resolve())
    print(f"Open {site / 'index.html'}. Its search wants a server: python -m http.server --bind 127.0.0.1 --directory {site}")


if __name__ == "__main__":
    main()
