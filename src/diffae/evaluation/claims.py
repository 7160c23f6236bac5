"""What the paper claims, and whether it holds here: orderings of measured rows, with nothing assumed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diffae.evaluation.compare import paired
from diffae.evaluation.pages.tables import Table, number
from diffae.evaluation.results import Result
from diffae.evaluation.suites.section import JUMPED, OURS


@dataclass(frozen=True, slots=True)
class Claim:
    """One ordering.

    Attributes:
        text: what is claimed.
        holds: whether the measured rows say so.
        measured: the numbers, for people.
        sure: whether a 95% interval of the paired difference over images leaves no doubt; None where they are few, or not paired.
    """

    text: str
    holds: bool
    measured: str
    sure: bool | None = None


def claims(results: Sequence[Result]) -> list[Claim]:
    """The paper's orderings that these rows can tell of."""
    return [*_reconstruction(results), *_denoising(results), *_generation(results), *_interpolation(results), *_codes(results)]


def claims_table(found: Sequence[Claim]) -> Table:
    """The claims as a table."""
    verdict = {(True, None): "holds", (False, None): "does not hold", (True, True): "holds", (False, True): "does not hold",
               (True, False): "holds, within chance", (False, False): "does not hold, within chance"}  # fmt: skip
    return Table("", ["the paper says", "here", "measured"], [[c.text, verdict[c.holds, c.sure], c.measured] for c in found])


def claim_less(text: str, a: Result, b: Result) -> Claim:
    """The claim that a's number is below b's."""
    measured = f"{number(a.value)} < {number(b.value)}" if a.value < b.value else f"{number(a.value)} > {number(b.value)}"
    between = paired(b, a)
    return Claim(text, a.value < b.value, measured, None if between is None else between[0] > 0 or between[1] < 0)


def _steps(rows: Sequence[Result]) -> list[int]:
    return sorted({r.steps for r in rows if r.steps is not None})


def _reconstruction(results: Sequence[Result]) -> Iterator[Claim]:
    rows = {(r.model, r.metric, r.steps): r for r in results if r.suite == "reconstruction"}
    steps = _steps([r for r in rows.values() if not r.model.endswith(OURS)])
    both, fresh, ddim = "diffae, inferred x_T", "diffae, random x_T", "ddim"
    for T in steps:
        if (both, "mse", T) in rows and (ddim, "mse", T) in rows:
            yield claim_less(
                f"Both codes reconstruct better than the DDIM (MSE, T = {T})", rows[both, "mse", T], rows[ddim, "mse", T]
            )
        if (fresh, "mse", T) in rows and (ddim, "mse", T) in rows:
            claim = f"The DDIM reconstructs better than z_sem with random x_T (MSE, T = {T})"
            yield claim_less(claim, rows[ddim, "mse", T], rows[fresh, "mse", T])
            yield claim_less(f"The same by SSIM, random x_T's below (T = {T})", rows[fresh, "ssim", T], rows[ddim, "ssim", T])
    if len(steps) > 1:
        first, last = steps[0], steps[-1]
        if (both, "mse", first) in rows:
            claim = f"Error with inferred x_T falls with T (MSE, T = {last} below {first})"
            yield claim_less(claim, rows[both, "mse", last], rows[both, "mse", first])
        if (fresh, "ssim", first) in rows:
            claim = f"SSIM with random x_T falls with T (T = {last} below {first})"
            yield claim_less(claim, rows[fresh, "ssim", last], rows[fresh, "ssim", first])


def _denoising(results: Sequence[Result]) -> Iterator[Claim]:
    rows = [r for r in results if r.suite == "denoising" and r.metric == "mse"]
    ours, theirs = ([r for r in rows if r.model.startswith(name)] for name in ("diffae", "ddim"))
    for a, b in zip(ours, theirs, strict=False):
        yield claim_less(f"One call with z_sem predicts the image better ({a.model.split(', ')[-1]}, MSE)", a, b)


def _generation(results: Sequence[Result]) -> Iterator[Claim]:
    rows = {(r.model, r.steps): r for r in results if r.suite == "generation" and r.metric == "fid"}
    steps = _steps([r for (model, _), r in rows.items() if not model.endswith((OURS, JUMPED))])
    ours = next((model for model, _ in rows if model == "diffae, prior ddim"), None) or next(
        (model for model, _ in rows if model.startswith("diffae, prior")), None
    )
    if ours is None or not any(model == "ddim" for model, _ in rows):
        return
    for T in steps:
        yield claim_less(f"Samples are nearer to real images than the DDIM's (FID, T = {T})", rows[ours, T], rows["ddim", T])
    if len(steps) > 1:
        lead = [rows["ddim", T].value - rows[ours, T].value for T in (steps[0], steps[-1])]
        numbers = f"{number(lead[0])} and {number(lead[1])}"
        yield Claim(f"That lead is larger at T = {steps[0]} than at {steps[-1]} (FID)", lead[0] > lead[1], numbers)


def _interpolation(results: Sequence[Result]) -> Iterator[Claim]:
    rows = {r.model: r for r in results if r.suite == "interpolation"}
    if {"diffae", "ddim"} <= rows.keys():
        yield claim_less("Interpolations are smoother than the DDIM's (path length)", rows["diffae"], rows["ddim"])


def _codes(results: Sequence[Result]) -> Iterator[Claim]:
    few = [r for r in results if r.suite == "fewshot" and r.metric == "fid"]
    naive = {r.subject: r for r in few if r.model.startswith("naive")}
    for r in few:
        if r.model.startswith(("binary", "positive-unlabelled")) and r.subject in naive:
            kind = r.model.split(",")[0]
            yield claim_less(f"Few-shot samples of {r.subject} ({kind}) are nearer than all real images (FID)", r, naive[r.subject])
    known = {r.model: r for r in results if r.suite == "attributes" and r.metric == "auroc" and r.subject == "mean"}
    for model, r in known.items():
        if model != "z_sem" and "z_sem" in known:
            a, b = known["z_sem"].value, r.value
            yield Claim(f"z_sem tells attributes better than {model} (mean AUROC)", a > b, f"{number(a)} and {number(b)}")
