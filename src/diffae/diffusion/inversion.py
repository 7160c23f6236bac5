"""The ways from an image to its x_T and back: what each keeps, and what each costs.

| inversion | calls to x_T + back | x_T | reconstructs |
|---|---|---|---|
| `fast` | N + N | one noise map | as well as the solver |
| `anchored` | N + 1 + N | and each step's defect | to the bit; an edit keeps the source's detail |
| `refine` | N (2K + 1) + N | one noise map | nearer, where the ODE is tame |
| `reversible` | N + N - 1 | two states | exactly, by algebra (O-BELM) |
| `bdia` | N + N - 1 | two states, near the ODE's x_T | likewise, but round-off grows; its edits are far worse |
| `official` | N + N | one noise map | as the authors' code does |

All but the last go over `schedule.spaced_path`, the same levels in both directions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.diffusion.interpolation import Weight, geodesic, lerp, slerp
from diffae.diffusion.schedule import NoisePath, kind_of_t
from diffae.diffusion.solvers import EpsModel, ask, ddim_step, dpmpp2m_step, predict, solve, trajectory

Inversion = Literal["fast", "anchored", "refine", "reversible", "bdia", "official"]
ROUNDS = 2
"""Of defect correction in `refine`, at most."""


@dataclass(frozen=True, slots=True)
class Code:
    """What `DiffusionAutoencoder.infer` found of images, and how: all that `render` needs.

    Attributes:
        z_sem: (n, d), the semantic codes.
        x_T: (n, c, h, w), the stochastic codes.
        inversion: how x_T was found.
        steps: number of solver steps, the same in both directions.
        states: what the inversion keeps beside x_T: each state and what a step would make of the one before (n, steps, 2, c, h, w)
            of `anchored`, the state before the last (n, 1, c, h, w) of `reversible` and `bdia`; else None.
    """

    z_sem: Tensor
    x_T: Tensor
    inversion: Inversion
    steps: int
    states: Tensor | None = None

    def __getitem__(self, index: int | slice | Tensor) -> "Code":
        """The codes of some of the images; of one, still as a batch."""
        if isinstance(index, Tensor) and index.dim() == 0:
            index = int(index)
        if not isinstance(index, slice | Tensor):
            first = range(len(self.z_sem))[index]
            index = slice(first, first + 1)
        states = None if self.states is None else self.states[index]
        return Code(self.z_sem[index], self.x_T[index], self.inversion, self.steps, states)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.z_sem.device

    def to(self, device: torch.device) -> "Code":
        """The same on a device."""
        states = None if self.states is None else self.states.to(device)
        return Code(self.z_sem.to(device), self.x_T.to(device), self.inversion, self.steps, states)


def check_inversion(inversion: str, network: nn.Module) -> None:
    """Refuses unknown inversions, and exact ones where the network may not give the same output twice."""
    if inversion not in get_args(Inversion):
        raise ValueError(f"Unknown inversion {inversion!r}; there are {', '.join(map(repr, get_args(Inversion)))}.")
    on_gpu = any(p.is_cuda for p in network.parameters())
    if inversion in RECURSIONS and (network.training or (on_gpu and torch.backends.cudnn.benchmark)):
        raise ValueError(
            f"The inversion {inversion!r} needs a network that gives the same twice: call eval(), and set "
            "torch.backends.cudnn.benchmark to False."
        )


def encode_along_path(
    inversion: Inversion, eps_model: EpsModel, x: Float[Tensor, "n *s"], path: NoisePath
) -> tuple[Tensor, Tensor | None]:
    """x_T of images, and what the inversion keeps beside it, of at least float32; of any but `official`."""
    x = x.to(kind_of_t(x))  # What two-step recursions and differences of states round away comes back enlarged.
    match inversion:
        case "anchored":
            return anchored_encode(eps_model, x, path)
        case "refine":
            return refine(eps_model, x, path), None
        case "reversible" | "bdia":
            x_T, before = reversible_encode(eps_model, x, path, RECURSIONS[inversion])
            return x_T, before[:, None]
        case _:
            return solve(eps_model, x, path.backwards(), solver="dpmpp2m"), None


def decode_along_path(
    eps_model: EpsModel, code: Code, path: NoisePath, *, detail: float = 1.0, hold: Tensor | None = None
) -> Tensor:
    """The images of a code that `encode_along_path` found, of the type of its z_sem. Of an anchored code, `detail` is the share of
    the defects that it adds, and `hold` is 1 where the image stays what it was."""
    if hold is not None and code.inversion != "anchored":
        raise ValueError(f"Only an `anchored` code knows what is to stay on the way, and this one is `{code.inversion}`.")
    if code.states is None:
        x = solve(eps_model, code.x_T, path, solver="dpmpp2m")
    elif code.inversion == "anchored":
        x = anchored_decode(eps_model, code.x_T, path, code.states, detail=detail, hold=hold)
    else:
        x = reversible_decode(eps_model, code.x_T, code.states[:, 0], path, RECURSIONS[code.inversion])
    return x.to(code.z_sem)


def interpolate_codes(a: Code, b: Code, weight: Weight) -> Code:
    """The code part of the way from one to another: lerp of z_sem, slerp of x_T (Preechakul et al. 2022, section 5.2), lerp of what
    an inversion keeps, so that both ends are what they were."""
    if a.inversion in RECURSIONS:
        raise ValueError(
            f"Between two codes of `{a.inversion}` there is nothing: its two states belong to one image. Use `anchored`."
        )
    states = None if a.states is None or b.states is None else lerp(a.states, b.states, weight)
    return Code(lerp(a.z_sem, b.z_sem, weight), slerp(a.x_T, b.x_T, weight), a.inversion, a.steps, states)


def way_between(a: Code, b: Code, weights: Sequence[float], codes: Float[Tensor, "m d"] | None = None) -> list[Code]:
    """`interpolate_codes` at several weights; where codes are given, with z_sem on the `geodesic` past them."""
    way = [interpolate_codes(a, b, w) for w in weights]
    if codes is None:
        return way
    return [replace(code, z_sem=z) for code, z in zip(way, geodesic(a.z_sem, b.z_sem, codes, weights).unbind(1), strict=True)]


def concatenate(codes: Sequence[Code]) -> Code:
    """Codes of one kind, one after the other."""
    states = [code.states for code in codes if code.states is not None]
    z_sem, x_T = torch.cat([code.z_sem for code in codes]), torch.cat([code.x_T for code in codes])
    return Code(z_sem, x_T, codes[0].inversion, codes[0].steps, torch.cat(states) if states else None)


def anchored_encode(eps_model: EpsModel, x: Float[Tensor, "n *s"], path: NoisePath) -> tuple[Tensor, Tensor]:
    """x_T, and beside each state that encoding has seen where a decoding step from the state before it leads: the step's defect.

    One network call more than the steps there; the defects themselves need none. Of a path that jumps, twice the steps.

    Args:
        eps_model: conditioned on the image's own z_sem.
        x: images.
        path: from noise to image.

    Returns:
        x_T (n, ...), and of each step, in the order of decoding, the state that encoding has seen and the one that a decoding step
        with the image's own z_sem leads to (n, steps, 2, ...).
    """
    to_noise, n = path.backwards(), len(path)
    states, x_0s = [x], []
    for state, x_0 in trajectory(eps_model, x, to_noise, solver="dpmpp2m"):
        states.append(state)
        x_0s.append(x_0)
    states.reverse()
    if path.jumps:
        # What is said of a level depends on where it leads, and so is of no use on the way back.
        x_0s = [predict(eps_model, states[i], path, i) for i in range(n)]
    else:
        x_0s = [predict(eps_model, states[0], path, 0), *reversed(x_0s)]
    steps = [dpmpp2m_step(states[i], path, i, x_0s[max(i - 1, 0) : i + 1]) for i in range(n)]
    return states[0], torch.stack([torch.stack(pair, dim=1) for pair in zip(states[1:], steps, strict=True)], dim=1)


def anchored_decode(
    eps_model: EpsModel, x_T: Float[Tensor, "n *s"], path: NoisePath, anchors: Float[Tensor, "n steps 2 *s"], *,
    detail: float = 1.0, hold: Tensor | None = None,
) -> Float[Tensor, "n *s"]:  # fmt: skip
    """Decodes x_T, adding a share of each step's defect; with the image's own z_sem and all of them, the image itself.

    Where `hold` is 1, each state is the one that encoding has seen, so that the rest is drawn to go with it.

    To the bit, whatever the network, if it gives the same bits for the same input. Its steps are then those that
    `anchored_encode` kept, their difference is zero, and each state is the one that encoding has seen. A sum of step and defect
    would lose its last bits, which a network that is not calm enlarges.
    """
    x = x_T
    x_0s: list[Tensor] = []
    for i in range(len(path)):
        x_0s = [*x_0s[-1:], predict(eps_model, x, path, i)]
        seen, own = anchors[:, i].unbind(1)
        x = torch.lerp(own, seen, detail) + (dpmpp2m_step(x, path, i, x_0s) - own)
        if hold is not None:
            x = torch.where(hold.to(x) > 0, seen, x)
    return x


def refine(eps_model: EpsModel, x: Float[Tensor, "n *s"], path: NoisePath, *, rounds: int = ROUNDS) -> Float[Tensor, "n *s"]:
    """One x_T that decodes nearer to the image: encode, decode, add what is missing to what is encoded, and again.

    `u <- u + (x_0 - decode(encode(u)))`, defect correction (Stetter 1978). It stops for each image where a round does not halve the
    error, as where the ODE is chaotic, and keeps the best x_T seen; NaN where none decodes to anything finite. The x_T after the
    last round is not decoded once more: where the rounds before it halved the error, it is trusted.

    Args:
        eps_model: conditioned on the images' z_sem.
        x: images.
        path: from noise to image.
        rounds: K, at least 1; N (2K + 1) network calls.
    """
    to_noise, u = path.backwards(), x
    best_x_T, best = torch.full_like(x, torch.nan), torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    halved = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(rounds):
        x_T = solve(eps_model, u, to_noise, solver="dpmpp2m")
        missing = x - solve(eps_model, x_T, path, solver="dpmpp2m")
        error = missing.double().square().flatten(1).mean(1)
        better = halved & (error < best)
        halved &= error < best / 2
        best, best_x_T = torch.where(better, error, best), _where(better, x_T, best_x_T)
        if not halved.any():
            return best_x_T
        u = _where(halved, u + missing, u)
    return _where(halved, solve(eps_model, u, to_noise, solver="dpmpp2m"), best_x_T)


def o_belm(to_noise: NoisePath, i: int) -> tuple[float, float, float]:
    """a, b, c of `x_{i-1} = a x_{i+1} + b x_i + c eps(x_i)`, levels counted from the image: the recursion of that form whose local
    error is least, of second order. Errors shrink on the way back and so grow on the way there: its x_T is no normal noise.

    References: Wang et al. 2024, *Belm: Bidirectional explicit linear multi-step sampler for exact inversion in diffusion models*,
    eq. 18.
    """
    alpha = to_noise.alpha_bar[i - 1 : i + 2].sqrt()
    tau = (1 - to_noise.alpha_bar[i - 1 : i + 2]).sqrt() / alpha
    h, h_next = tau[1] - tau[0], tau[2] - tau[1]
    a = h**2 / h_next**2 * alpha[0] / alpha[2]
    b = (h_next**2 - h**2) / h_next**2 * alpha[0] / alpha[1]
    c = -h * (h + h_next) / h_next * alpha[0]
    return float(a), float(b), float(c)


def bdia(to_noise: NoisePath, i: int) -> tuple[float, float, float]:
    """The same of BDIA with gamma = 1: what two DDIM steps from x_i, one to either side, say of x_{i-1} - x_{i+1}. Of first order;
    its x_T is near the ODE's own.

    References: Zhang et al. 2023, *Exact diffusion inversion via bi-directional integration approximation*, eq. 18.
    """
    alpha, sigma = to_noise.alpha_bar[i - 1 : i + 2].sqrt(), (1 - to_noise.alpha_bar[i - 1 : i + 2]).sqrt()
    near, far = alpha[0] / alpha[1], alpha[2] / alpha[1]
    return 1.0, float(near - far), float(sigma[0] - sigma[1] * near - (sigma[2] - sigma[1] * far))


Recursion = Callable[[NoisePath, int], tuple[float, float, float]]
RECURSIONS: dict[str, Recursion] = {"reversible": o_belm, "bdia": bdia}


def reversible_encode(
    eps_model: EpsModel, x: Float[Tensor, "n *s"], path: NoisePath, recursion: Recursion = o_belm
) -> tuple[Tensor, Tensor]:
    """The last two states of a two-step recursion, which `reversible_decode` takes back step by step, exactly.

    Exactly, if the network gives the same bits for the same input: the same batch, the same kernels.

    Args:
        eps_model: conditioned on the images' z_sem.
        x: images.
        path: from noise to image.
        recursion: its coefficients.

    Raises:
        ValueError: fewer than two steps.
    """
    if len(path) < 2:
        raise ValueError("The reversible inversion needs at least two steps.")
    to_noise = path.backwards()
    before, state = x, ddim_step(x, to_noise, 0, [predict(eps_model, x, to_noise, 0)])
    for i in range(1, len(to_noise)):
        a, b, c = recursion(to_noise, i)
        before, state = state, (before - b * state - c * ask(eps_model, state, to_noise, i)) / a
    return state, before


def reversible_decode(
    eps_model: EpsModel, state: Float[Tensor, "n *s"], before: Float[Tensor, "n *s"], path: NoisePath, recursion: Recursion = o_belm
) -> Float[Tensor, "n *s"]:
    """The images of the two states that `reversible_encode` ends in."""
    to_noise = path.backwards()
    for i in range(len(to_noise) - 1, 0, -1):
        a, b, c = recursion(to_noise, i)
        state, before = before, a * state + b * before + c * ask(eps_model, before, to_noise, i)
    return before


def _where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(chosen.reshape(-1, *[1] * (a.dim() - 1)), a, b)
