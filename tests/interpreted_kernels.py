"""Run by test_kernels.py where Triton is: kernels on tensors of the processor, by Triton's interpreter, beside float64.

python interpreted_kernels.py normalisation [all]    a line of JSON: relative errors of results and gradients of each case; with
                                                     `all` of large shapes in every setting
python interpreted_kernels.py philox                 the largest difference of uniform, and of normal, numbers
python interpreted_kernels.py compile CAPABILITY     what each kernel takes of a card of that compute capability
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILING = sys.argv[1] == "compile"
if not COMPILING:
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton
import triton.language as tl

from diffae.nn.kernels import normalisation, triton_kernels, triton_normalisation
from diffae.runtime import philox, triton_philox

SETTINGS = {
    "plain": dict(adaptive=0, silu=True),
    "attention": dict(adaptive=0, silu=False),
    "time": dict(adaptive=1, silu=True),
    "time and semantics": dict(adaptive=2, silu=True),
    "dropout": dict(adaptive=2, silu=True, dropout=0.3),
}
# n, channels, groups, height, width: groups of one channel, of three, of none that a power of two holds, more than a program has,
# images of one program and of many, of pixels that no tile divides.
SMALL = [(2, 32, 32, 8, 8), (1, 96, 32, 5, 7), (1, 384, 32, 6, 5), (1, 640, 32, 3, 3)]
# What depends on many programs does so in the setting that has everything too; the interpreter takes a second for ten of them.
LARGE = [(1, 64, 32, 24, 20), (70, 8, 8, 2, 2)]


def round_to_nearest():
    """The interpreter cuts off what bfloat16 cannot hold; cards round."""
    from triton.runtime import interpreter

    cut = interpreter._convert_float

    def rounded(values, before, after, mode):
        if (before, after) != (tl.float32, tl.bfloat16):
            return cut(values, before, after, mode)
        floats = torch.from_numpy(np.ascontiguousarray(values).view(np.float32).copy())
        return floats.bfloat16().view(torch.uint16).numpy().reshape(values.shape)

    interpreter._convert_float = rounded


def relative(found, expected):
    return float((found.double() - expected.double()).detach().norm() / expected.double().detach().norm())


def normalised(settings, dtype, shapes):
    """Errors of both directions for each shape."""
    dropout, key, errors = settings.get("dropout", 0.0), 123_456_789_123, []
    for n, c, groups, h, w in shapes:
        torch.manual_seed(0)
        x = (torch.randn(n, c, h, w) * 2 + 3).to(dtype, memory_format=torch.channels_last)
        # As the UNet has them: parts of the rows of a larger matrix.
        t = torch.randn(n, 2 * c + 6).to(dtype)[:, 6:] if settings["adaptive"] else None
        z = torch.randn(n, c).to(dtype) if settings["adaptive"] > 1 else None
        operands = [v for v in (x, torch.randn(c), torch.randn(c), t, z) if v is not None]
        numbers, others = torch.arange(n) * 7 + 3, (groups, 1e-5, settings["silu"], dropout, key)
        assert triton_normalisation._is_supported(x, groups, dropout), "PyTorch would be compared with itself"
        y, mean, inverse = triton_normalisation.forward(*operands[:3], t, z, numbers, *others)
        doubles = [v.double().requires_grad_() for v in operands]
        expected = torch.nn.functional.group_norm(doubles[0], groups, doubles[1], doubles[2], eps=1e-5)
        if t is not None:
            t_s, t_b = doubles[3][:, :, None, None].chunk(2, 1)
            expected = expected * (1 + t_s) + t_b
        if z is not None:
            expected = expected * (1 + doubles[4][:, :, None, None])
        expected = torch.nn.functional.silu(expected) if settings["silu"] else expected
        if dropout:
            expected = expected * normalisation.dropout_mask(numbers, key, dropout, x.shape).double()
        dy = torch.randn(n, c, h, w).to(dtype, memory_format=torch.channels_last)
        dx, daffine, dt, dz = triton_normalisation.backward(
            dy, x, mean, inverse, *operands[1:3], t, z, numbers, settings["silu"], dropout, key
        )
        found = [dx, *daffine, dt, dz][: len(operands)]
        gradients = torch.autograd.grad(expected, doubles, dy.double())
        errors.append([relative(y, expected), *(relative(a, b) for a, b in zip(found, gradients, strict=True))])
        assert (dx.dtype, dx.stride(), y.stride()) == (dtype, x.stride(), x.stride())
    return errors


def drawn():
    """Largest differences of the kernel's numbers from the plain ones."""
    numbers, errors = torch.tensor([0, 5, 2**33 + 7, 2**62 + 1]), [0.0, 0.0]
    for key in (0, 12_345, 7 << 50 | 3, 2**63 - 1):
        for count in (1, 7, 1500):
            for i, plain in enumerate((philox.uniform_numbers, philox.normal_numbers)):
                found = philox.draw(numbers, key, count, normal=bool(i))
                assert found.isfinite().all()
                errors[i] = max(errors[i], float((found - plain(numbers, key, count)).abs().max()))
    return errors


def compiled(capability):
    """Bytes of each kernel in bfloat16 that did not fit in registers, and of shared memory; no card is needed for that."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    low = "x y dy dx t z dt dz".split()
    full = "out gamma beta mean_out inverse_out means squares mean_in inverse_in dgamma dbeta partial_dh partial_dh_x_hat".split()
    pointers = dict.fromkeys(low, "*bf16") | dict.fromkeys(full, "*fp32") | {"numbers": "*i64"}
    sizes = dict(WIDTH=12, USED=120, BLOCK=128, ROWS=16, SILU=True, ADAPTIVE=True, CONDITIONED=True)
    jobs = [(triton_philox.fill, {"NORMAL": normal, "BLOCK": 256}) for normal in (False, True)]
    jobs += [(triton_kernels.statistics_kernel, {k: sizes[k] for k in ("USED", "BLOCK", "ROWS")})]
    jobs += [(triton_kernels.normalise_kernel, sizes | {"DROPOUT": d, "PARTS": d}) for d in (False, True)]
    jobs += [(triton_kernels.gradient_kernel, sizes | {"DROPOUT": d, "STAGE": s}) for d, s in ((False, 0), (True, 1), (True, 2))]
    found = {}
    for kernel, constants in jobs:
        kinds = {}
        for name in kernel.arg_names:
            plain = "fp32" if name in ("eps", "dropout_scale") else "i64" if name == "key" else "i32"
            kinds[name] = "constexpr" if name in constants else pointers.get(name, plain)
        # Tensors begin at multiples of 16 bytes, and so do pixels.
        aligned = [i for i, name in enumerate(kernel.arg_names) if name in pointers or name == "channels"]
        source = ASTSource(kernel, kinds, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        found[f"{kernel.__name__} {constants}"] = {"stack": stack(made.asm["cubin"]), "shared": made.metadata.shared}
    return found


def stack(cubin):
    """Bytes of local memory a thread. Registers are given out when a program is made for a card, so PTX knows of none."""
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run([program, "-res-usage", file.name], capture_output=True, text=True, check=True)
    (found,) = re.findall(r"STACK:(\d+)", told.stdout + told.stderr)
    return int(found)


if __name__ == "__main__":
    if COMPILING:
        print(json.dumps(compiled(int(sys.argv[2]))))
    elif sys.argv[1] == "philox":
        print(json.dumps(drawn()))
    else:
        round_to_nearest()
        found = {}
        for (name, settings), dtype in itertools.product(SETTINGS.items(), (torch.float32, torch.bfloat16)):
            large = sys.argv[2:] == ["all"] or (name, dtype) == ("dropout", torch.float32)
            kind = str(dtype).removeprefix("torch.")
            found[f"{name}, {kind}"] = normalised(settings, dtype, SMALL + LARGE if large else SMALL)
        print(json.dumps(found))
