"""The paper's orderings: what is compared with what, and when chance is named."""

from diffae.evaluation.claims import claim_less, claims, claims_table
from diffae.evaluation.results import Result


def row(suite, model, metric, value, steps=None, *, each=None, subject=None):
    return Result(suite, model, metric, value, 4, steps, subject=subject, each=each)


def holding(results):
    return {c.text: c.holds for c in claims(results)}


def reconstruction(both, fresh, ddim):
    """MSE and SSIM at T = 10 and 100 of three models."""
    models = {"diffae, inferred x_T": both, "diffae, random x_T": fresh, "ddim": ddim}
    return [
        row("reconstruction", model, metric, values[metric][i], steps)
        for model, values in models.items()
        for metric in ("mse", "ssim")
        for i, steps in enumerate((10, 100))
    ]


# Table 2 of the paper.
PAPER = dict(
    both={"mse": (0.001, 6e-5), "ssim": (0.827, 0.991)},
    fresh={"mse": (0.006, 0.007), "ssim": (0.707, 0.677)},
    ddim={"mse": (0.019, 0.002), "ssim": (0.600, 0.917)},
)


def test_the_papers_own_numbers_hold_but_where_the_ddim_has_too_few_steps():
    found = holding(reconstruction(**PAPER))
    assert len(found) == 8
    failing = {text for text, holds in found.items() if not holds}
    assert failing == {
        "The DDIM reconstructs better than z_sem with random x_T (MSE, T = 10)",
        "The same by SSIM, random x_T's below (T = 10)",
    }, "the paper's DDIM is worse than random x_T at T = 10, too"


def test_an_order_that_is_the_other_way_round_does_not_hold():
    swapped = PAPER | {"both": PAPER["ddim"], "ddim": PAPER["both"]}
    found = holding(reconstruction(**swapped))
    assert not found["Both codes reconstruct better than the DDIM (MSE, T = 100)"]
    assert found["The DDIM reconstructs better than z_sem with random x_T (MSE, T = 100)"]


def test_the_lead_in_fid_is_compared_between_the_fewest_and_the_most_steps():
    def fids(ours, theirs):
        rows = [row("generation", "diffae, prior ddim", "fid", v, T) for v, T in zip(ours, (10, 100), strict=True)]
        return [*rows, *[row("generation", "ddim", "fid", v, T) for v, T in zip(theirs, (10, 100), strict=True)]]

    lead = "That lead is larger at T = 10 than at 100 (FID)"
    assert holding(fids((21.95, 10.55), (31.87, 11.95)))[lead]
    assert not holding(fids((21.95, 10.55), (22.0, 18.0)))[lead]
    assert claims(fids((1.0, 1.0), (2.0, 2.0))[:2]) == [], "nothing is claimed without a DDIM"


def test_chance_is_named_where_images_are_paired():
    base = row("s", "b", "mse", 0.5, each=[0.4, 0.6, 0.5, 0.5] * 2)
    clear = claim_less("", row("s", "a", "mse", 0.1, each=[0.1, 0.1, 0.1, 0.1] * 2), base)
    unclear = claim_less("", row("s", "a", "mse", 0.49, each=[0.6, 0.4, 0.48, 0.48] * 2), base)
    alone = claim_less("", row("s", "a", "mse", 0.1), base)
    assert (clear.holds, clear.sure) == (True, True)
    assert (unclear.holds, unclear.sure) == (True, False)
    assert (alone.holds, alone.sure) == (True, None)
    verdicts = [cells[1] for cells in claims_table([clear, unclear, alone, claim_less("", base, alone_row())]).rows]
    assert verdicts == ["holds", "holds, within chance", "holds", "does not hold"]


def alone_row():
    return row("s", "c", "mse", 0.1)


def test_noise_interpolation_and_classes_are_claimed_too():
    rows = [
        *[row("denoising", f"{m}, t = {t}", "mse", v) for m, v in (("diffae, z_sem", 0.1), ("ddim", 0.2)) for t in (50, 999)],
        row("interpolation", "diffae", "path_length", 614.0, 100),
        row("interpolation", "ddim", "path_length", 2634.0, 100),
        *[row("fewshot", m, "fid", v, subject="Blond") for m, v in (("binary, 50 + 50", 16.1), ("naive: all real images", 24.8))],
        row("fewshot", "binary, 50 + 50", "fid", 8.5, subject="Rare"),
        *[row("attributes", m, "auroc", v, subject="mean") for m, v in (("z_sem", 0.925), ("StyleGAN", 0.891))],
    ]
    found = holding(rows)
    assert len(found) == 5
    assert all(found.values())
    assert "One call with z_sem predicts the image better (t = 999, MSE)" in found


def test_our_own_solver_is_no_part_of_the_papers_claims():
    rows = reconstruction(**PAPER)
    more = [
        row("reconstruction", "diffae, fast inversion, DPM-Solver++", "mse", 1e-7, 5),
        row("reconstruction", "ddim", "mse", 1.0, 50),
    ]
    fids = [
        row("generation", "diffae, prior ddim", "fid", 20.0, 10),
        row("generation", "diffae, prior ddim, DPM-Solver++", "fid", 1.0, 11),
        row("generation", "diffae, prior ddim, jumps", "fid", 1.0, 1),
        row("generation", "ddim", "fid", 30.0, 10),
    ]
    found = holding([*rows, *more, *fids])
    assert not any("T = 11" in text or "T = 1)" in text or "T = 5)" in text for text in found)
    assert found["Samples are nearer to real images than the DDIM's (FID, T = 10)"]


def test_of_a_few_images_nothing_is_said_of_chance():
    """One image would have left no doubt: all its resamples are the same."""
    for n, sure in ((1, None), (7, None), (8, True)):
        a, b = (row("reconstruction", "m", "mse", value, each=[value] * n) for value in (0.1, 0.2))
        assert claim_less("less", a, b).sure is sure
