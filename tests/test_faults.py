"""Wherever a write fails or the process dies, nothing is lost: what is there is whole, and the same command again ends the same.

`pytest -m soak -rP tests/test_faults.py` tries every operation, and 50 kills, and says how many; the others take samples of both.
"""

import re
import shutil
import sys

import faults
import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, fork and limits on file sizes")
ROOMS = (0, 1, 100, 1000, 4000, 20_000, 60_000, 150_000, 400_000)
"""Most bytes of a file, for writes that stop in their middle."""
KILLS = 10
"""Within each of five works: fifty."""


class Bench:
    """A process that forks, what works begin with, and what they end with."""

    def __init__(self, zygote, place):
        self.zygote, self.place, self.inputs = zygote, place, place / "inputs"
        made = zygote("inputs", self.inputs, self.inputs)
        assert made["status"] == 0, made["said"]
        self._clean = {}

    def clean(self, work):
        """Of a work that nothing befalls: what it makes, its pairs before and after, its operations and seconds."""
        if work not in self._clean:
            folder = self.place / "clean" / work
            folder.parent.mkdir(exist_ok=True)
            faults.begin(work, self.inputs, folder)
            before = faults.pairs(folder)
            found = self.zygote(work, self.inputs, folder)
            assert found["status"] == 0, found["said"]
            self._clean[work] = (faults.contents(folder), before, faults.pairs(folder), found["operations"], found["seconds"])
        return self._clean[work]

    def check(self, work, **fault):
        """Lets a fault befall a work, and then does it again. Returns whether the fault was reached."""
        expected, before, after, operations, _ = self.clean(work)
        folder = self.place / "tried"
        shutil.rmtree(folder, ignore_errors=True)
        faults.begin(work, self.inputs, folder)
        found = self.zygote(work, self.inputs, folder, **fault)
        what = f"{work}, {fault}, {(found['operations'] or operations)[-1:]}: {found['status']} {found['said']}"
        assert "Traceback" not in found["said"], what
        if found["status"] == 1:
            error = found["said"].partition("error: ")[2]
            assert str(folder) in error.replace("\n", ""), what
        else:
            dies = fault.get("dies") or "kill" in fault or fault.get("code", 0) is None
            assert found["status"] in ((0, 137, -9, -25) if dies else (0,)), what
        faults.check_whole(folder)
        if work in ("export", "attributes"):
            kept = faults.pairs(folder)
            assert kept.keys() >= before.keys(), f"{what}: a model is gone"
            for name, pair in kept.items():
                assert pair in (before.get(name), after[name]), f"{what}: {name} is half of one and half of another"
        if found["status"] != 0:
            again = self.zygote(work, self.inputs, folder)
            assert again["status"] == 0, f"{what}\nthen {again['said']}"
        made = faults.contents(folder)
        assert made == expected, f"{what}: differs in {sorted(made.items() ^ expected.items())}"
        return found["status"] != 0


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with faults.Zygote() as zygote:
        yield Bench(zygote, tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    ("work", "operation", "which", "name"),
    [
        ("train", r"os.rename .*/run/\.config\.json\.part", 0, "death"),
        ("train", r"os.rename .*/checkpoints/", -1, "death"),
        ("train", r"open .*/metrics\.jsonl$", -1, "ENOSPC"),
        ("train", r"open .*/tensorboard/events", 2, "EIO"),
        ("prior", r"os.rename .*/model/\.config\.json-", 0, "death"),
        ("prior", r"os.remove .*\.parquet\.parts/", 1, "death"),
        ("attributes", r"os.rename .*/\.config\.json-", 0, "death"),
        ("export", r"os.rename .*/\.config\.json-", 0, "death"),
        ("prepare", r"os.remove .*/parts/", 0, "death"),
        ("encode", r"os.rename ", -1, "death"),
        ("sample", r"fsync ", 3, "EIO"),
        ("pictures", r"os.rename ", -1, "EACCES"),
    ],
)
def test_a_write_that_fails_or_a_death_at_it_loses_nothing(bench, work, operation, which, name):
    at = [i for i, done in enumerate(bench.clean(work)[3]) if re.match(operation, done)][which]
    assert bench.check(work, at=at, code=faults.CODES[name]), "it must be met"


def test_a_write_that_stops_in_its_middle_loses_nothing(bench):
    for work, room, dies in (("encode", 1000, False), ("export", 20_000, True), ("train", 60_000, True)):
        assert bench.check(work, room=room, dies=dies), "the limit must be met"


def test_a_process_that_is_killed_at_any_moment_loses_nothing(bench):
    for work, moment in zip(("train", "encode", "sample"), faults.draw_moments("short"), strict=False):
        bench.check(work, kill=moment * bench.clean(work)[4])


@pytest.mark.soak
@pytest.mark.parametrize("name", faults.CODES)
@pytest.mark.parametrize("work", faults.WORKS)
def test_every_operation_may_fail_or_be_the_last(bench, work, name):
    num = len(bench.clean(work)[3])
    met = [bench.check(work, at=at, code=faults.CODES[name]) for at in range(num)]
    print(f"{work}, {name}: {len(met)} points tried, {sum(met)} ended it, 0 lost, 0 different")


@pytest.mark.soak
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("work", faults.WORKS)
def test_every_file_may_find_no_room(bench, work, dies):
    met = [bench.check(work, room=room, dies=dies) for room in ROOMS]
    print(f"{work}, {'death' if dies else 'no room'} within a write: {sum(met)} points, 0 lost, 0 different")


@pytest.mark.soak
@pytest.mark.parametrize("work", ["train", "prepare", "encode", "prior", "sample"])
def test_the_same_is_made_whenever_it_is_killed(bench, work):
    seconds = bench.clean(work)[4]
    moments = faults.draw_moments(work)
    tried = []
    while sum(tried) < KILLS:
        tried.append(bench.check(work, kill=next(moments) * seconds))
    print(f"{work}: {sum(tried)} kills within it, of {len(tried)}, 0 lost, 0 different")
