"""The site builds without a warning; what its pages name, quote, link to and tell people to type is there."""

import dataclasses
import html.parser
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
import typing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
import tyro
from filelock import FileLock
from ideal import ideal

import diffae
from diffae import cli, config
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli import arguments
from diffae.config.presets import PRESETS, PRIOR_PRESETS
from diffae.interop import official

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*(DOCS / f"{name}.md" for name in ("index", "install", "method", "limits", "promise")), *sorted(DOCS.glob("how-to/*.md"))]
"""Pages whose code is tested here; that of tutorials is in test_tutorials, that of the other pages beside what they describe."""


def tool(name, monkeypatch):
    """A module of docs/site."""
    pytest.importorskip("yaml")
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site, one for all processes that test."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("The documentation is built by zensical: pip install 'diffae[docs]'.")
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    out, log = shared / "documentation", shared / "documentation.log"
    with FileLock(shared / "documentation.lock"):
        if not log.is_file():
            command = [sys.executable, str(DOCS / "site" / "build.py"), "--out", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            log.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}")
    return out / "site"


class Page(html.parser.HTMLParser):
    """What a page has: ids, links, and what a browser fetches by itself."""

    def __init__(self, file):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[key] for key in ("id", "name") if attrs.get(key) and (key == "id" or tag == "a")}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("img", "script", "source", "iframe") and attrs.get("src"):
            self.fetched.append(attrs["src"])
        if tag == "link" and attrs.get("href") and attrs.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(attrs["href"])


@pytest.fixture(scope="module")
def built(site):
    """Of each page of the site its contents."""
    return {file: Page(file) for file in site.rglob("*.html")}


# The site ------------------------------------------------------------------------------------------------------------


def test_the_site_builds_without_a_warning(site):
    log = (site.parents[1] / "documentation.log").read_text()
    assert log.startswith("0\n"), log
    assert "No issues found" in log


def followed(site, built):
    """Links of a site that lead out of it, and those that lead nowhere: (addresses, sentences)."""
    outside, broken = set(), []
    for file, page in built.items():
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                outside.add(link)
            elif parts.scheme not in ("javascript", "data"):
                # That page may be shown at any address, so its links begin at the site's root.
                here = site if file.name == "404.html" else file.parent
                target = (here / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
                target = target / "index.html" if target.is_dir() else target
                if not target.is_file():
                    broken.append(f"{file.relative_to(site)}: {link}")
                elif parts.fragment and target in built and unquote(parts.fragment) not in built[target].ids:
                    broken.append(f"{file.relative_to(site)}: {link} (no such heading)")
    return outside, broken


def test_links_lead_somewhere(site, built):
    """External ones are listed and not followed."""
    outside, broken = followed(site, built)
    print("\n".join(sorted(outside)))
    assert not broken, "\n".join(broken)
    assert len(built) > 60


def test_a_link_that_leads_nowhere_is_seen(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h2 id="x"></h2><a href="b.html#y"></a><a href="#z"></a><img src="no.png"><a href="https://d.org">'
    )
    (tmp_path / "b.html").write_text('<p id="y"></p><a href="a.html#x"></a><a href="c.html"></a>')
    outside, broken = followed(tmp_path, {file: Page(file) for file in sorted(tmp_path.glob("*.html"))})
    assert outside == {"https://d.org"}
    assert broken == ["a.html: #z (no such heading)", "a.html: no.png", "b.html: c.html"]


def test_nothing_is_fetched_from_elsewhere(built):
    assert {link for page in built.values() for link in page.fetched if urlsplit(link).scheme in ("http", "https")} == set()


def test_every_page_can_be_reached_from_the_menu(site, monkeypatch):
    yaml = pytest.importorskip("yaml")

    def leaves(item):
        if isinstance(item, str):
            return {item}
        return set().union(*map(leaves, item.values() if isinstance(item, dict) else item))

    pages = site.parent / "pages"
    there = {p.relative_to(pages).as_posix() for p in pages.rglob("*.md")}
    assert leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]) == {p for p in there if not p.startswith("source/")}


# The reference -------------------------------------------------------------------------------------------------------


def public_members(kind):
    """Names of what a class of ours has for users."""
    own = [base for base in kind.__mro__ if base.__module__.startswith("diffae.")]
    found = {name: value for base in reversed(own) for name, value in vars(base).items() if not name.startswith("_")}
    return [name for name, value in found.items() if inspect.isfunction(value) or isinstance(value, property | classmethod)]


def test_every_public_name_is_in_the_reference(site, built):
    ids = built[site / "reference" / "python.html"].ids
    for name in diffae.__all__:
        assert name == "interop" or f"diffae.{name}" in ids, name
    for name in official.__all__:
        assert f"diffae.interop.official.{name}" in ids, name
    for kind in (diffae.DiffusionAutoencoder, diffae.DDIM, diffae.Code):
        for name in public_members(kind):
            assert f"diffae.{kind.__name__}.{name}" in ids, f"{kind.__name__}.{name}"
    assert "encode" in public_members(diffae.DiffusionAutoencoder)
    assert "save_pretrained" in public_members(diffae.DDIM)


def test_every_part_is_in_the_reference(site, built, monkeypatch):
    reference = tool("reference", monkeypatch)
    ids = built[site / "reference" / "parts.html"].ids
    for name in (*reference.OWN_PARTS, *reference.BESIDE, *reference.METHOD):
        assert name in ids, name
        for member in reference.members(reference._named(name)):
            assert f"{name}.{member}" in ids, f"{name}.{member}"
    assert reference.members(reference._named("diffae.diffusion.predictor.NoisePredictor")) == ["__call__", "parameters"]
    assert reference.members(diffae.Code) == ["__getitem__", "device", "to"]


def options(kind, before=""):
    """The options of a command, as its dataclass has them; positional arguments aside."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        told = getattr(hint, "__metadata__", ())
        if "Positional" in map(repr, told):
            continue
        given = next((m.name for m in told if hasattr(m, "metavar") and m.name), name)
        plain = typing.get_args(hint)[0] if told else hint
        if dataclasses.is_dataclass(plain):
            yield from options(plain, f"{before}{given}.")
        else:
            yield f"--{before}{given.replace('_', '-')}"


def test_every_command_and_every_option_is_in_the_reference(site, built):
    file = site / "reference" / "commands.html"
    parts = {part.split('"', 2)[1]: part for part in re.split(r"<h2 (?=id=)", file.read_text())[1:]}
    assert parts.keys() == cli.COMMANDS.keys()
    for name, kind in cli.COMMANDS.items():
        told = re.findall(r"<dt><code>(.*?)</code></dt>", parts[name])
        for option in options(kind):
            assert any(option in re.split(r",? ", entry) for entry in told), f"{name} {option}"
    assert {"bench-network", "bench-data"} <= built[file].ids
    assert "--model.unet.base-channels" in set(options(cli.COMMANDS["train"]))
    assert "--from" in set(options(cli.COMMANDS["train"]))
    assert "--source" not in set(options(cli.COMMANDS["train"]))


def test_every_setting_is_in_the_reference(site, built):
    ids = built[site / "reference" / "configuration.html"].ids
    kinds = [getattr(config, name) for name in config.__all__ if dataclasses.is_dataclass(getattr(config, name))]
    for kind in kinds:
        for base in (kind, *kind.__mro__):
            for name in vars(base).get("__annotations__", {}) if dataclasses.is_dataclass(base) else ():
                assert f"{base.__name__}.{name}" in ids, f"{base.__name__}.{name}"
    text = (site / "reference" / "configuration.html").read_text()
    assert all(f"<code>{name}</code>" in text for name in [*PRESETS, *PRIOR_PRESETS] if not name.endswith("-ddim"))
    assert len(kinds) >= 15


def test_what_settings_are_is_what_the_source_says(monkeypatch):
    reference = tool("reference", monkeypatch)
    for kind in reference.configurations().values():
        assert all(told for _, _, _, told in reference.fields_of(kind)), kind
    (found,) = (row for row in reference.fields_of(config.TrainingConfig) if row[0] == "batch_size")
    assert found == ("batch_size", "Count", "128", "Global batch size: over all processes and accumulation steps.")


# What pages say ------------------------------------------------------------------------------------------------------


def blocks(page):
    """The blocks of code of a page: (language, contents)."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


COMMANDS = [
    (page, line)
    for page in PAGES
    for kind, block in blocks(page)
    if kind == "sh"
    for line in block.splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{p.stem}-{line}" for p, line in COMMANDS])
def test_a_command_is_one_that_is_taken(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # models/avatars64 is there.
    program, *argv = shlex.split(line)
    if program == "source":
        assert argv == [".venv/bin/activate"]
    elif program == "make":
        assert f"\n{argv[0]}:" in (ROOT / "Makefile").read_text()
    elif program == "pip":
        assert argv[:2] == ["install", "-e"]
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", argv[2])) <= set(extras)
    else:
        assert program == "diffae"
        command = tyro.cli(cli._command(argv), prog="diffae", args=argv)
        monkeypatch.chdir(tmp_path)
        arguments.check(command)


def test_a_command_with_a_wrong_option_is_not_taken(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(cli._command(["encode"]), prog="diffae", args=["encode", "runs/mine", "photos", "--outt", "codes.parquet"])


def test_options_commands_and_presets_that_sentences_name_exist():
    known = {option for kind in cli.COMMANDS.values() for option in options(kind)} | {cli.TRACEBACK, "--data.no-flip"}
    presets = {*PRESETS, *PRIOR_PRESETS, *official.PUBLISHED}
    for page in PAGES:
        for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text()):
            for option in re.findall(r"(?<!\S)--[a-z][\w.-]*", code):
                assert option in known, f"{page.name}: {option}"
            if command := re.match(r"diffae ([a-z-]+)", code):
                assert command[1] in cli.COMMANDS, f"{page.name}: {code}"
            if re.fullmatch(r"(avatars|pictures|numbers|volume|latent|ffhq|celeba|horse|bedroom)\d+(-ddim)?", code):
                assert code in presets, f"{page.name}: {code}"


def test_extras_that_pages_name_exist():
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for page in PAGES:
        assert set(re.findall(r"diffae\[(\w+)\]", page.read_text())) <= extras
    table = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "install.md").read_text(), flags=re.MULTILINE))
    assert table == extras - {"dev"}


def python(page):
    """The Python of a page, but for what is filled in from the source."""
    found = [block for kind, block in blocks(page) if kind == "python" and not re.fullmatch(r"# src/\S+: \S+\n", block)]
    return [block for block in found if "onnxruntime" not in block]  # test_onnx, which has the files, runs that one.


@pytest.mark.filterwarnings("ignore:x_T has a standard deviation")  # Of a network that was never trained.
def test_the_python_of_pages_runs(tiny, tmp_path, monkeypatch, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    ae = DiffusionAutoencoder(tiny)
    for p in ae.parameters():
        torch.nn.init.normal_(p, std=0.1)
    ae.save_pretrained("runs/quickstart/model")
    names = ["a/x00000_y00000.png", "a/x00256_y00512.png"]
    pq.write_table(pa.table({"file": names, "z_sem": [[1.0, 2.0], [3.0, 4.0]]}), "codes.parquet")
    two, pattern = ideal(channels=2)
    cells = (torch.randn(24, two.z_dim, generator=torch.Generator().manual_seed(0)) * 0.5 @ pattern).view(-1, *two.image_shape)
    given = {
        "index": {"images": torch.rand(2, 3, 8, 8) * 2 - 1},
        "microscopy": {"ae": two, "cells": cells.clamp(-1, 1)},
        "programs": {"images": np.random.default_rng(0).random((20, 8, 8, 3)), "labels": [0, 1] * 10},
    }
    found = {}
    for page in PAGES:
        for block in python(page):
            found[page.stem] = dict(given.get(page.stem, {}))
            exec(block, found[page.stem])
    assert set(found) == {"index", "method", "pathology", "microscopy", "programs"}
    assert found["programs"]["means"].shape == (4, 8, 8, 3)
    assert found["index"]["again"].shape == found["index"]["images"].shape
    assert np.isnan(found["pathology"]["first"]).sum() == 4
    moved = found["microscopy"]["moved"]
    assert torch.equal(moved.images[:, 0, 1], found["microscopy"]["cells"][:, 1])
    errors = [float(line.split()[2]) for line in re.findall(r"^\d+ \S+ \S+$", capsys.readouterr().out, flags=re.MULTILINE)]
    assert errors[0] > errors[1] > errors[2] > 0
    assert abs(float(found["method"]["x_T"].std()) - 1) < 0.05


FIGURE = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d*\.\d+|\d+)(?:e-?\d+)?(?!\w)")
"""A number that is no part of a name."""


def figures(text):
    """The numbers of a text, as often as they stand there or not; .5 and 0.5 are one."""
    return {re.sub(r"^\.", "0.", found.replace(",", "")) for found in FIGURE.findall(text)}


def test_each_figure_of_what_does_not_work_is_on_a_page_that_stands_beside_it():
    text = (DOCS / "limits.md").read_text()
    # A table belongs to the paragraph before it.
    parts = re.split(r"\n(?=- |#)|\n\n(?!\|)", text)
    checked = 0
    for part in parts:
        # Names, and whole numbers below a hundred, are none: those are counts and sizes.
        plain = re.sub(r"\*\*[^*]*\*\*|`[^`]*`|\]\([^)]*\)|^#.*", " ", part, flags=re.MULTILINE)
        measured = {found for found in figures(plain) if "." in found or "e" in found or len(found) > 2}
        beside = [(DOCS / link.split("#")[0]).resolve().read_text() for link in re.findall(r"\]\(([^)]+\.md)[^)]*\)", part)]
        known = set().union(*map(figures, beside))
        assert measured <= known, f"{sorted(measured - known)} of what is said here are on no page that it links to: {part}"
        checked += len(measured)
    assert checked > 70
    assert figures("128 px, .42 or 0.42, 1,500 of `x`, 1e-5, ffhq128, 3.11.4") >= {"128", "0.42", "1500", "1e-5"}


# How pages are gathered ----------------------------------------------------------------------------------------------


def test_what_a_page_quotes_is_the_source(monkeypatch):
    build = tool("build", monkeypatch)
    page = "```python\n# src/diffae/diffusion/interpolation.py: lerp\n```\n"
    text = build.staged(page, str)
    assert text.startswith('```python title="src/diffae/diffusion/interpolation.py"\ndef lerp(a: Float[Tensor')
    assert text.endswith("    return torch.lerp(a, b, _aligned(weight, a))\n```\n")
    assert '"""' not in text
    with pytest.raises(ValueError, match=r"solvers\.py has no nothing, which a page quotes"):
        build.staged("```python\n# src/diffae/diffusion/solvers.py: nothing\n```", str)
    quotes = [build.QUOTE.match(line) for line in (DOCS / "method.md").read_text().splitlines()]
    assert len([q for q in quotes if q]) >= 12


def test_links_are_those_of_the_site_and_a_missing_target_is_an_error(monkeypatch, tmp_path):
    build = tool("build", monkeypatch)
    pages = build.Site(ROOT, tmp_path)
    assert pages.link("docs/how-to/art.md", "../../benchmarks/encoders.md") == "../benchmarks/encoders.md"
    assert pages.link("docs/design/house.md", "../../CONTRIBUTING.md") == "../CONTRIBUTING.md"
    assert pages.link("benchmarks/audit.md", "../docs/log.md") == "../log.md"
    assert pages.link("docs/limits.md", "../recipes/README.md") == "recipes/index.md"
    assert pages.link("docs/reading.md", "../src/diffae/nn") == "source/src/diffae/nn.md"
    assert pages.sources == {"src/diffae/nn"}
    assert "| `unet.py` | The UNet that predicts" in pages.source_page("src/diffae/nn")
    with pytest.raises(ValueError, match=r"docs/data\.md links to gone\.md, and there is no docs/gone\.md"):
        pages.link("docs/data.md", "gone.md")


def test_lists_that_follow_a_sentence_stay_lists(monkeypatch):
    build = tool("build", monkeypatch)
    assert build.staged("Either:\n- a\n  more\n- b\n", str) == "Either:\n\n- a\n  more\n- b\n"
    assert build.staged("```\nEither:\n- a\n```\n", str) == "```\nEither:\n- a\n```\n"
    assert build.staged("# Title\n- a\n", str) == "# Title\n- a\n"


def test_help_texts_are_read_argument_by_argument(monkeypatch):
    reference = tool("reference", monkeypatch)
    before, groups = reference.parsed(reference.help_text("encode"))
    assert before.startswith("Write z_sem of every image")
    assert [group.title for group in groups] == ["positional arguments", "options"]
    assert dict(groups[1].entries)["--batch-size INT"] == "Images at a time. (default: 64)"
    _, groups = reference.parsed(reference.help_text("train"))
    assert {"model.unet options", "data options", "training options"} <= {group.title for group in groups}
    (unet,) = (group for group in groups if group.title == "model.unet options")
    assert unet.about == "The decoder's network."
    assert reference._plain_text("a_b and `c_d` <e>") == r"a\_b and `c_d` \<e>"
