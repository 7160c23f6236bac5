"""Kernels of ours, without a card: interpreted on a processor beside float64, compiled for cards, and what takes their place.

Triton is 1 GB, so it is no part of what the tests install; it may lie in a folder of its own, where it disturbs nothing:

    pip install --no-deps --target .venv/triton triton
"""

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from diffae.nn.kernels import operators
from diffae.runtime import kernels, philox

HERE = Path(__file__).parent
TRITON = Path(os.environ.get("DIFFAE_TRITON_PATH", HERE.parent / ".venv" / "triton"))
FOUND = importlib.util.find_spec("triton") is not None or (TRITON / "triton").is_dir()
HOW = f"pip install --no-deps --target {TRITON} triton"
interpreted = pytest.mark.skipif(
    not FOUND, reason=f"NO TRITON: its kernels are not tested. Put it where nothing else sees it: {HOW}"
)


def asked(*words):
    """What the script prints, in a process that finds Triton; shapes are not enforced there."""
    paths = [str(HERE.parent / "src"), str(TRITON)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, HERE / "interpreted_kernels.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("shapes", [pytest.param(("all",), marks=pytest.mark.soak), ()])
def test_normalisation_by_kernels_is_that_of_float64(shapes):
    found = asked("normalisation", *shapes)
    assert len(found) == 10
    for case, errors in found.items():
        print(f"{case}: {max(map(max, errors)):.1e}")
    most = {"float32": 1e-6, "bfloat16": 4e-3}
    # "Not all below" rather than "one above": what is NaN is neither.
    small = {case: all(e < most[case.split(", ")[1]] for each in errors for e in each) for case, errors in found.items()}
    assert [case for case in found if not small[case]] == []


@interpreted
def test_the_kernels_random_numbers_are_the_same_integers():
    uniform, normal = asked("philox")
    assert uniform == 0
    assert normal < 1e-6


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.soak), 90])
def test_kernels_compile_for_cards_and_keep_all_in_registers(capability):
    found = asked("compile", str(capability))
    assert len(found) == 8
    # The angle of a random number, reduced by pi in a way that is never gone, has a table.
    assert {name for name, made in found.items() if made["stack"] and "'NORMAL': True" not in name} == set()
    assert max(made["shared"] for made in found.values()) < 48 * 1024


def test_where_kernels_cannot_be_had_one_warning_says_why_and_pytorch_computes(monkeypatch):
    monkeypatch.setattr(kernels, "enabled", True)
    calls = []

    def broken():
        calls.append(1)
        raise ImportError("No module named 'triton'\nand more")

    with pytest.warns(UserWarning, match=r"cannot be had here \(No module named 'triton'\); PyTorch computes"):
        assert kernels.kernel_or_plain(broken, lambda: 3) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.kernel_or_plain(broken, lambda: 4) == 4
    assert len(calls) == 1


def test_memory_that_is_out_is_no_reason_to_give_kernels_up(monkeypatch):
    monkeypatch.setattr(kernels, "enabled", True)

    def large():
        raise torch.OutOfMemoryError("too large")

    with pytest.raises(torch.OutOfMemoryError):
        kernels.kernel_or_plain(large, lambda: 3)
    assert kernels.enabled


def test_a_card_has_a_kernel_of_each_operator():
    for operator in (philox.uniform_operator, philox.normal_operator, operators.normalise, operators.normalise_backward):
        name = operator._qualname
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"), name
