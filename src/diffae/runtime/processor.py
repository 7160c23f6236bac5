"""What libraries make of the processor at hand: which arithmetic is the quick one.

Asked of its name and not of a clock, so that all processes of a run, and a run that goes on, compute alike.
"""

import contextlib

import torch

from diffae.config import Precision


def resolve_precision(asked: Precision, device: torch.device | None = None) -> Precision:
    """In place of `auto`, bfloat16 where it is the quick one: on GPUs since Ampere, and the processors of `quick_bfloat16`.

    Args:
        asked: anything but `auto` is the answer.
        device: where networks compute; by default on a GPU, where there is one.
    """
    if asked != "auto":
        return asked
    if torch.cuda.is_available() if device is None else device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if quick_bfloat16() else "float32"


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager:
    """Within it, convolutions and products on this device are in this precision, all else in float32."""
    low = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext()


def quick_bfloat16() -> bool:
    """Whether convolutions take less time in bfloat16 than in float32.

    They do with matrix units (AMX), and on processors of AMD with AVX512-BF16, where an instruction multiplies twice as many
    numbers as in float32, in the same time: 1,000 against 500 GFLOP/s on two cores of an EPYC of 2024. An Intel Xeon with
    AVX512-BF16 and no AMX trained avatars32 at .75 of float32's rate; others emulate it, and are many times slower.
    """
    can = torch.cpu.get_capabilities()
    return bool(can.get("amx_bf16") or (can.get("avx512_bf16") and _is_amd()))


def quick_products() -> bool:
    """Whether products of float32 matrices are as quick as convolutions: not by MKL, on a processor that Intel did not make.

    There MKL stays with half of the vector's width (180 GFLOP/s where oneDNN's convolutions have 500).
    """
    return not (torch.backends.mkl.is_available() and _is_amd())


def _is_amd() -> bool:
    return str(torch.cpu.get_capabilities().get("cpu_name", "")).startswith("AMD")
