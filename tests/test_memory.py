"""What the process holds, and that what it freed stays with it."""

import platform
import subprocess
import sys

import pytest

from diffae.runtime import memory

FAULTS = """
import resource, sys
import torch
from diffae.runtime import memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert memory.keep_freed()
def fill():
    return torch.zeros(40 * 2**18)  # 40 MiB
for _ in range(20):
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system has no glibc to tell")
def test_what_was_freed_is_used_again_without_asking_the_kernel():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    }
    # Ten times 40 MiB in pages of 4 KiB, or of up to 2 MiB where the kernel gives larger ones.
    assert faults["given back"] >= 10 * 20
    assert faults["kept"] < faults["given back"] / 10


@pytest.mark.skipif(sys.platform != "linux", reason="this system does not tell what a process has held")
def test_the_peak_is_of_this_process_alone():
    code = "from diffae.runtime import memory; a = memory.peak(); held = b'1' * 2**29; print(a, memory.peak())"
    before, after = map(float, subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert before < 0.3
    assert 0.5 < after < before + 0.6


def test_elsewhere_than_on_linux_nothing_is_told(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.keep_freed()
