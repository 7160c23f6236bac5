"""Processes that fail or die at a chosen moment, and the work that they do.

Run as a script it is a process that has everything imported and forks others, one for each request that it reads, a line of JSON:
so a death costs no start. An audit hook sees whatever changes the disk; the system's limit on file sizes stops a write within it.
"""

import contextlib
import errno
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")
DIED = 137
IMAGES = 40


class Zygote:
    """The process that forks; `with` ends it."""

    def __enter__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *exception):
        self._process.communicate()

    def __call__(self, work, inputs, folder, **fault):
        """What became of a process: `status` (negative: the signal that ended it), `said`, `seconds`, `operations`.

        Args:
            work: of `WORKS`.
            inputs: what `make_inputs` made.
            folder: where it works.
            fault: `at`, the number of an operation, with `code`, an errno, or None for death; or `room`, the most bytes that a file
                may have, with `dies`; or `kill`, seconds until SIGKILL.
        """
        self._process.stdin.write(json.dumps({"work": work, "inputs": str(inputs), "folder": str(folder), **fault}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def contents(folder):
    """What work has made, to compare: each file's bytes, but for times, its own place, and the order of names in a header."""
    import safetensors

    found = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        if file.name == ".lock" or "tensorboard/" in name:
            continue
        content = file.read_bytes()
        if file.name == "metrics.jsonl":
            content = [{k: v for k, v in json.loads(line).items() if k != "time"} for line in content.splitlines()]
        elif file.suffix == ".safetensors":
            with safetensors.safe_open(file, "pt") as opened:
                tensors = [(k, opened.get_tensor(k)) for k in sorted(opened.keys())]
                content = [
                    sorted(opened.metadata().items()),
                    *((k, str(v.dtype), v.shape, v.numpy().tobytes()) for k, v in tensors),
                ]
                content = repr(content).encode()
        elif file.suffix == ".md":
            content = content.replace(str(folder).encode(), b"")
        if not isinstance(content, bytes):
            content = json.dumps(content, sort_keys=True).encode()
        found[name] = hashlib.blake2b(content, digest_size=8).hexdigest()
    return found


def pairs(folder):
    """Of each saved model what its two files hold."""
    from diffae.runtime.weights import files_of_weights

    found = {}
    for weights in folder.rglob("model.safetensors"):
        if (weights.parent / "config.json").is_file():
            found[weights.parent.relative_to(folder).as_posix()] = [f.read_bytes() for f in files_of_weights(weights.parent)]
    return found


def check_whole(folder):
    """Every file of a final name can be read to its end."""
    import numpy as np
    import pyarrow.parquet
    import safetensors.torch
    from PIL import Image, ImageSequence

    def frames(file):
        with Image.open(file) as image:
            for frame in ImageSequence.Iterator(image):
                frame.load()

    readers = {
        ".safetensors": safetensors.torch.load_file,
        ".json": lambda file: json.loads(file.read_text()),
        ".npy": lambda file: np.load(file).sum(),
        ".parquet": pyarrow.parquet.read_table,
        ".png": lambda file: Image.open(file).load(),
        ".gif": frames,
        ".jsonl": lambda file: [json.loads(line) for line in file.read_text().splitlines()],
    }
    for file in folder.rglob("*"):
        if file.is_file() and not file.name.startswith(".") and file.suffix in readers:
            readers[file.suffix](file)


# What is done -------------------------------------------------------------------------------------------------------------


def _config(inputs, **training):
    from diffae.config import AutoencoderConfig, DataConfig, EncoderConfig, RunConfig, TrainingConfig, UNetConfig

    shape = dict(base_channels=8, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=(4,))
    model = AutoencoderConfig(
        image_size=(8, 8), z_dim=6, unet=UNetConfig(**shape, embed_channels=16, dropout=0.0), encoder=EncoderConfig(**shape)
    )
    settings = dict(
        images=32, batch_size=8, learning_rate=1e-3, log_every=8, validate_every=16, sample_every=16, checkpoint_every=16
    )
    settings |= dict(ema_decay=0.9, precision="float32", average_every=16) | training
    return RunConfig(
        preset="tiny",
        model=model,
        data=DataConfig(source=str(inputs / "images"), validation=0.25),
        training=TrainingConfig(**settings),
    )


def make_inputs(folder, inputs):
    """Images, labels, an autoencoder with its codes, prior and attributes, and what is there before others are saved over it."""
    import numpy as np
    from PIL import Image

    from diffae.cli import main
    from diffae.edits import Edit
    from diffae.interop.fingerprints import fingerprint
    from diffae.interop.weights import load

    images = inputs / "images"
    images.mkdir(parents=True)
    for i in range(IMAGES):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(images / f"{i:03d}.png")
    names = [f"{i:03d}.png" for i in range(IMAGES)]
    (inputs / "one.csv").write_text("file,Round\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(names)))
    (inputs / "two.csv").write_text("file,Old,Red\n" + "".join(f"{n},{i % 3 % 2},{i // 2 % 2}\n" for i, n in enumerate(names)))
    os.environ["DIFFAE_CACHE"] = str(inputs / "cache")
    _train(inputs / "model", inputs)
    for start in ("attributes", "prior"):
        shutil.copytree(inputs / "model" / "model", inputs / start / "model")
    main(["fit-attributes", str(inputs / "attributes" / "model"), "--data", str(images), "--labels", str(inputs / "one.csv")])
    main(["train-prior", str(inputs / "model"), "--data", str(images), "--preset", "gaussian"])
    main(["fit-attributes", str(inputs / "model"), "--data", str(images), "--labels", str(inputs / "two.csv")])
    main(["export", str(inputs / "attributes" / "model"), str(inputs / "export" / "faces"), "--licence", "mit"])
    ae = load(inputs / "model")
    x = ae.clamp(ae.from_pixels(_pixels(ae, images / "000.png")))[0]
    edit = Edit(fingerprint(ae), x, ae.encode(x[None])[0] + 0.1, "anchored", 4)
    (inputs / "edit.json").write_text(edit.to_json())


def _pixels(ae, file):
    from diffae.cli.inputs import pixels

    return pixels(ae, [file], None)


def _train(out, inputs):
    sys.path.insert(0, str(Path(__file__).parent))
    from runs import run

    run(_config(inputs), out)


def train(folder, inputs):
    _train(folder / "run", inputs)


def prepare(folder, inputs):
    from diffae.data import cache
    from diffae.data import prepare as prepared

    os.environ["DIFFAE_CACHE"] = str(folder / "cache")
    cache.PART_BYTES = 1
    prepared(_config(inputs).data, size=(8, 8), channels=3)


def encode(folder, inputs):
    from diffae.cli import main
    from diffae.data import codes

    codes.PART = 7
    main(["encode", str(inputs / "model"), str(inputs / "images"), "--out", str(folder / "codes.parquet"), "--x-T-steps", "2"])


def prior(folder, inputs):
    from diffae.cli import main
    from diffae.data import codes

    codes.PART = 7
    asked = "--images 32 --model.width 16 --model.layers 3 --model.time-channels 8 --training.batch-size 8 --training.log-every 8"
    asked += " --training.validate-every 16 --training.sample-every 16 --training.checkpoint-every 16 --training.precision float32"
    main(["train-prior", str(folder / "model"), "--data", str(inputs / "images"), *asked.split()])


def attributes(folder, inputs):
    from diffae.cli import main

    main(["fit-attributes", str(folder / "model"), "--data", str(inputs / "images"), "--labels", str(inputs / "two.csv")])


def export(folder, inputs):
    from diffae.cli import main

    main(["export", str(inputs / "model"), str(folder / "faces")])


def sample(folder, inputs):
    from diffae.cli import main

    main(["sample", str(inputs / "model"), "--num", "12", "--steps", "2", "--batch-size", "5", "--out", str(folder / "many")])


def pictures(folder, inputs):
    from diffae.cli import main
    from diffae.runtime.files import write_text

    write_text(folder / "edit.json", (inputs / "edit.json").read_text())
    model, image = str(inputs / "model"), str(inputs / "images" / "000.png")
    main(["manipulate", model, "--from", str(folder / "edit.json"), "--out", str(folder / "edited.png")])
    main(["vary", model, image, "--num", "2", "--steps", "2", "--out", str(folder / "varied.gif")])
    main(["neighbours", model, image, "--data", str(inputs / "images"), "--num", "2", "--out", str(folder / "neighbours.png")])


WORKS = {w.__name__: w for w in (train, prepare, encode, prior, attributes, export, sample, pictures)}


def begin(work, inputs, folder):
    """A folder as it is before the work: with what is written over, where there is that."""
    if (inputs / work).is_dir():
        shutil.copytree(inputs / work, folder)
    else:
        folder.mkdir()


# Where it fails -----------------------------------------------------------------------------------------------------------


def _fail(folder, seen, at, code):
    """From here on the `at`-th operation below the folder raises this error, or ends the process where there is none."""

    def operation(what, path):
        path = path if isinstance(path, int) else os.fsdecode(path)
        if not str(path).startswith(str(folder)):
            return
        seen.append(f"{what} {path}")
        if len(seen) - 1 == at:
            if code is None:
                os._exit(DIED)
            # fsync knows no name.
            raise OSError(code, os.strerror(code), *([str(path)] if what != "fsync" else []))

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or (mode and set(mode) & set("wax+")):
                operation("open", path)
        elif event in OPERATIONS:
            path = arguments[0]
            if event in ("os.remove", "os.rmdir") and arguments[-1] != -1:  # `rmtree` goes by handles of folders.
                path = Path(os.readlink(f"/proc/self/fd/{arguments[-1]}")) / path
            operation(event, path)

    sync = os.fsync

    def fsync(handle):
        operation("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    os.fsync = fsync
    sys.addaudithook(hook)


def _child(asked, out):
    """Does the work, and leaves as the command line would."""
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    inputs, folder, seen, status = Path(asked["inputs"]), Path(asked["folder"]), [], 0
    os.environ["DIFFAE_CACHE"] = str(inputs / "cache")
    try:
        _fail(folder, seen, asked.get("at"), asked.get("code"))
        if "room" in asked:
            sys.dont_write_bytecode = True  # Or what Python keeps of a module that is imported now would be cut, for all after.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if asked["dies"] else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["room"], resource.RLIM_INFINITY))
        (make_inputs if asked["work"] == "inputs" else WORKS[asked["work"]])(folder, inputs)
    except SystemExit as error:
        status = error.code
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        print(f"error: {error}")
        status = 1
        if os.environ.get("FAULTS_TRACE"):
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
        status = 3
    sys.stdout.flush()
    sys.stderr.flush()
    print("\0" + json.dumps(seen), flush=True)
    os._exit(status)


def _serve():
    import matplotlib  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.covariance
    import sklearn.linear_model  # noqa: F401
    import torch._dynamo
    import torch.utils.tensorboard

    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401  # Which pyarrow imports where it is.

    import diffae.cli
    import diffae.metrics.images
    import diffae.semantics.fitting
    import diffae.training.run
    import diffae.training.subjects  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        asked, (read, write) = json.loads(line), os.pipe()
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            os.close(read)
            _child(asked, write)
        os.close(write)
        said, end = b"", began + asked.get("kill", float("inf"))
        while True:
            left = end - time.monotonic()
            ready = select.select([read], [], [], None if left == float("inf") else max(left, 0))[0]
            if not ready:
                os.kill(pid, signal.SIGKILL)
                end = float("inf")
            elif piece := os.read(read, 65536):
                said += piece
            else:
                break
        os.close(read)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text, _, seen = said.decode(errors="replace").partition("\0")
        operations = []
        with contextlib.suppress(ValueError):
            operations = json.loads(seen)
        found = {"status": status, "said": text, "seconds": time.monotonic() - began, "operations": operations}
        print(json.dumps(found), flush=True)


def draw_moments(seed):
    """Shares of a work's time, to kill it at; without end."""
    generator = random.Random(seed)
    while True:
        yield generator.random()


CODES = {"ENOSPC": errno.ENOSPC, "EACCES": errno.EACCES, "EIO": errno.EIO, "death": None}

if __name__ == "__main__":
    _serve()
