"""The command that opens the web page."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffae.cli import inputs
from diffae.cli.bars import say, warn
from diffae.config import Range

FACES, FEW = Path("models/avatars64"), 600
"""The project's own model of drawn faces, and the number of faces that the page shows with it."""


@dataclass(frozen=True, kw_only=True)
class Studio:
    """Open a web page on this machine: edit, morph, vary, sample, explore and label images with sliders and clicks.

    Example: diffae studio runs/quickstart
    """

    source: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="RUN")] = None
    """A run directory, a saved model, or the hub's name of one; by default the newest run under runs/, or else the project's own
    model of drawn faces, where it is there (models/avatars64)."""
    data: str | None = None
    """The images to show; by default those that the run was trained on."""
    labels: Path | None = None
    """Their labels, if they bring none."""
    host: str = "127.0.0.1"
    """Address to listen on. Others than this machine reach the page with 0.0.0.0, which asks for --password."""
    port: Annotated[int, Range(1, 65535)] = 7860
    """Of the page."""
    password: str | None = None
    """Asked for when the page is opened, with the name diffae."""
    prior: str | None = None
    """Which of the priors beside the model; by default the one that `diffae.load` takes."""
    classifier: tuple[str, ...] = ()
    """Classifiers to explain (Why): `module:function`, or files of TorchScript or ONNX. Labels of yes and no are learned there."""
    answers: Literal["probability", "logit"] | None = None
    """What their answers are, where they are no probabilities."""

    def run(self) -> None:
        try:
            from diffae.studio.app import LOCAL, reserve, serve
        except ImportError as error:
            raise ImportError(f"The studio needs gradio ({error}): pip install 'diffae[studio]'.") from None
        from diffae.explanation.opening import open_classifier
        from diffae.interop.weights import is_run
        from diffae.semantics.classifiers import Classifier
        from diffae.studio.workshop import Workshop

        if self.host not in LOCAL and not self.password:
            raise ValueError(
                f"With --host {self.host} others can reach the page: give a --password. The name to log in with is diffae."
            )
        if self.answers is not None and not self.classifier:
            raise ValueError(f"--answers {self.answers} is about what a --classifier says, and none was given: name it.")
        with reserve(self.host, self.port) as reserved:
            source = self.source or _newest() or (str(FACES) if FACES.is_dir() else _trained())
            if self.labels is not None and self.data is None and not is_run(source) and Path(source) != FACES:
                raise ValueError(f"--labels {self.labels} is about images, and {source} brings none: name them with --data.")
            ae = inputs.autoencoder(source, prior=self.prior)
            data = z_sem = None
            if is_run(source) or self.data is not None:
                data = inputs.divided_images(ae, source, self.data, self.labels)
            elif Path(source) == FACES:
                data = inputs.divided_images(ae, source, "avatars", self.labels, avatars=FEW)
            if data is not None:
                z_sem = inputs.codes(ae, source, data)
            else:
                warn("Without images there is nothing to explore or to label: name some with --data.")
            host = f"[{self.host}]" if ":" in self.host else self.host  # IPv6.
            opened = {name: Classifier(open_classifier(name), self.answers) for name in self.classifier}
            serve(
                Workshop(ae, data, z_sem, name=Path(source).name, classifiers=opened),
                reserved,
                host=self.host,
                password=self.password,
                opened=lambda: say(f"Open http://{host}:{self.port} (Ctrl-C ends it)"),
            )


def _newest() -> str | None:
    """The run under runs/ with the newest model, or None."""
    found = sorted(Path("runs").glob("*/model/model.safetensors"), key=lambda file: file.stat().st_mtime)
    if not found:
        return None
    say(f"The newest run: {found[-1].parents[1]}")
    return str(found[-1].parents[1])


def _trained() -> str:
    """Trains the quick start's run, if the person at the terminal agrees, and returns its folder."""
    from diffae.cli.training import Quickstart

    if not sys.stdin.isatty():
        raise ValueError("There is no run under runs/. Name a model, or train one first: `diffae quickstart`.")
    if input("There is no run under runs/. Train the quick start's, about 6 minutes? [y/N] ").strip().lower() != "y":
        raise ValueError("Name a model, or train one: `diffae quickstart`.")
    Quickstart().run()
    return "runs/quickstart"
