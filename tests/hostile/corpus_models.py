"""Damage to a saved model, its calibration, its parts and its edits, and to a checkpoint of the authors' code."""

import base64
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

DEEP = "[" * 100_000
SAME, REFUSED, EITHER = "same", "refused", "either"
"""What has to come of damage: the result of the undamaged file; one error that names the file; either."""


@dataclass(frozen=True)
class Damage:
    """One thing that is done to a file.

    Attributes:
        name: of the damage.
        file: which it is done to, below the folder.
        do: does it, given the file's path.
        outcome: see above.
    """

    name: str
    file: str
    do: Callable[[Path], Any]
    outcome: str = REFUSED


def _put(content):
    return lambda file: file.write_bytes(content.encode() if isinstance(content, str) else content)


def _cut(share):
    def do(file):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])

    return do


def _changed(*path, value):
    """JSON with the value at a path of keys replaced."""

    def do(file):
        content = json.loads(file.read_text())
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        file.write_text(json.dumps(content))

    return do


def _without(*path):
    def do(file):
        content = json.loads(file.read_text())
        place = content
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        file.write_text(json.dumps(content))

    return do


ANYTHING = {
    "null": None,
    "text": "x",
    "number": 7,
    "list": [],
    "object": {},
    "minus": -1,
    "half": 0.5,
    "huge": 10**400,
    "bool": True,
}
"""Values of every type that JSON has."""
WHOLE_JSON = {
    "empty": "",
    "null": "null",
    "list": "[]",
    "number": "7",
    "text": '"x"',
    "deep": DEEP,
    "digits": "9" * 5000,
    "cut": '{"a": ',
    "noise": bytes(range(256)),
    "bom": b"\xef\xbb\xbf{}",
    "utf-16": "{}".encode("utf-16"),
    "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
}


def configs():
    """Damage to config.json."""
    for name, content in WHOLE_JSON.items():
        yield Damage(f"config-{name}", "config.json", _put(content))
    for key in ("format", "model"):
        for name, value in ANYTHING.items():
            yield Damage(
                f"config-{key}-{name}",
                "config.json",
                _changed(key, value=value),
                EITHER if (key, name) == ("model", "object") else REFUSED,
            )
        yield Damage(f"config-{key}-none", "config.json", _without(key))
    for key in ("preparation", "about", "calibration", "prior", "standardizer", "attributes"):
        for name, value in ANYTHING.items():
            yield Damage(f"config-{key}-{name}", "config.json", _changed(key, value=value), EITHER)
    for path, values in {
        ("model", "image_size"): ([0, 0], [-8, -8], [8], [8, 8, 8], "8", [8.5, 8], [10**9, 10**9], [7, 7], [True, True], None),
        ("model", "z_dim"): (0, -1, "6", 6.5, 10**12, True, None),
        ("model", "channels"): (0, -3, 10**9, "3"),
        ("model", "unet", "channel_mult"): ([], [0], [1, -2], [1] * 60, "12", [10**9]),
        ("model", "unet", "base_channels"): (0, -8, 7, 10**9, None),
        ("model", "unet", "dropout"): (float("nan"), -1.0, 2.0, float("inf"), "0"),
        ("model", "unet", "attention_heads"): (0, -1, 3, 10**9),
        ("model", "unet", "blocks_per_level"): (0, -1, 10**7),
        ("model", "schedule", "T"): (0, -1, 10**12, "1000", float("nan")),
        ("model", "schedule", "beta_start"): (float("nan"), -1.0, 2.0, float("inf")),
        ("preparation", "range"): ([0, 0], [1, 0], [float("nan"), 1.0], [0], [0.0, float("inf")], "x"),
        ("preparation", "background"): ([1, 2], [256, 0, 0], [-1, 0, 0], "white"),
        ("preparation", "crop"): ("nothing", 7, [], {}),
    }.items():
        for i, value in enumerate(values):
            yield Damage(f"config-{path[-1]}-{i}", "config.json", _changed(*path, value=value))
    yield Damage("config-unknown", "config.json", _changed("model", "unheard", value=1))


def _tensors(change):
    def do(file):
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return do


def _header(change):
    """The header of a safetensors file changed, with its length made right."""

    def do(file):
        whole = file.read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        header = change(whole[8 : 8 + length].decode())
        file.write_bytes(struct.pack("<Q", len(header.encode())) + header.encode() + whole[8 + length :])

    return do


def _length(value):
    return lambda file: file.write_bytes(struct.pack("<Q", value) + file.read_bytes()[8:])


def _first(tensors):
    return next(k for k, t in tensors.items() if t.is_floating_point() and t.dim() > 1)


def _set(how):
    return _tensors(lambda tensors: tensors.update({_first(tensors): how(tensors[_first(tensors)])}))


def _doubled(header):
    first = header[1:].split("}", 1)[0] + "}"
    return "{" + first + "," + header[1:]


def _spoiled(what, file, shares, contents):
    """A file cut to these shares of it, and others in its place: these, and such as no reader takes."""
    for share in shares:
        yield Damage(f"{what}-cut-{share:g}", file, _cut(share))
    never = {"pointer": WHOLE_JSON["pointer"], "noise": bytes(range(256)) * 40, "zip": b"PK\x03\x04" + bytes(200)}
    for name, content in (contents | never).items():
        yield Damage(f"{what}-{name}", file, _put(content))


def weights():
    """Damage to model.safetensors."""
    file = "model.safetensors"
    yield from _spoiled("weights", file, (0.0, 0.001, 0.1, 0.5, 0.9, 0.999), {"text": "no weights"})
    for name, value in {"none": 0, "one": 1, "huge": 2**63, "most": 2**64 - 1, "beyond": 10**6, "hundred": 100}.items():
        yield Damage(f"weights-length-{name}", file, _length(value))
    yield Damage(
        "weights-transposed", file, _set(lambda t: t.transpose(0, 1).contiguous() if t.shape[0] != t.shape[1] else t.flatten())
    )
    yield Damage("weights-flat", file, _set(lambda t: t.flatten()))
    yield Damage("weights-empty", file, _set(lambda t: t[:0]))
    yield Damage("weights-nan", file, _set(lambda t: t * float("nan")))
    yield Damage("weights-inf", file, _set(lambda t: t + float("inf")))
    yield Damage("weights-float64", file, _set(lambda t: t.double()), SAME)
    yield Damage("weights-int", file, _set(lambda t: (t * 100).int()))
    yield Damage("weights-bool", file, _set(lambda t: t > 0))
    yield Damage("weights-overflow", file, _set(lambda t: t.double() * 1e300))
    yield Damage("weights-float8", file, _set(lambda t: t.to(torch.float8_e4m3fn)))
    yield Damage("weights-missing", file, _tensors(lambda tensors: tensors.pop(_first(tensors))))
    yield Damage("weights-surplus", file, _tensors(lambda tensors: tensors.update(more=torch.zeros(1))))
    yield Damage("weights-none", file, _tensors(lambda tensors: tensors.clear()))
    yield Damage("weights-doubled", file, _header(_doubled))
    yield Damage("weights-kind", file, _header(lambda h: h.replace("F32", "X99", 1)))
    yield Damage("weights-offsets", file, _header(lambda h: h.replace('"data_offsets":[0,', '"data_offsets":[99999999999,', 1)))
    yield Damage("weights-shape", file, _header(lambda h: h.replace('"shape":[', '"shape":[18446744073709551615,', 1)))
    yield Damage("weights-deep", file, _header(lambda h: DEEP))
    yield Damage("weights-minus", file, _header(lambda h: h.replace('"shape":[', '"shape":[-', 1)))


def calibrations():
    """Damage to calibration.json."""
    for name, content in WHOLE_JSON.items():
        yield Damage(f"calibration-{name}", "calibration.json", _put(content))
    for key, values in {
        "spacing": ("nothing", 7, None),
        "t_max": (float("nan"), float("inf"), -1.0, 10**9, "x", 0.0),
        "mean_t": (-1, 10**9, 0.5, "x", True),
        "steps": (0, -1, 10**12, "x", 0.5),
        "sample_steps": (0, -1, "x"),
        "unheard": (1,),
    }.items():
        for i, value in enumerate(values):
            yield Damage(f"calibration-{key}-{i}", "calibration.json", _changed("calibration", key, value=value))
    for name, value in ANYTHING.items():
        yield Damage(f"calibration-model-{name}", "calibration.json", _changed("model", value=value), EITHER)
        yield Damage(f"calibration-whole-{name}", "calibration.json", _changed("calibration", value=value))
    yield Damage("calibration-no-model", "calibration.json", _without("model"))


def attributes():
    """Damage to attributes that were fitted beside the model."""
    for name, content in WHOLE_JSON.items():
        yield Damage(f"attributes-{name}", "attributes/config.json", _put(content))
    for key in ("encoder", "attributes"):
        for name, value in ANYTHING.items():
            yield Damage(f"attributes-{key}-{name}", "attributes/config.json", _changed(key, value=value), EITHER)
        yield Damage(f"attributes-no-{key}", "attributes/config.json", _without(key), EITHER)
    for key in ("scores", "components"):
        for name, value in ANYTHING.items():
            yield Damage(f"attributes-{key}-{name}", "attributes/config.json", _changed("attributes", key, value=value), EITHER)
        yield Damage(f"attributes-no-{key}", "attributes/config.json", _without("attributes", key))
    for share in (0.0, 0.5, 0.99):
        yield Damage(f"attributes-cut-{share:g}", "attributes/model.safetensors", _cut(share))
    yield Damage("attributes-flat", "attributes/model.safetensors", _set(lambda t: t.flatten()))
    yield Damage("attributes-nan", "attributes/model.safetensors", _set(lambda t: t * float("nan")))
    yield Damage("attributes-none", "attributes/model.safetensors", _tensors(lambda tensors: tensors.clear()))


def edits():
    """Damage to an edit that the studio saved."""
    for name, content in WHOLE_JSON.items():
        yield Damage(f"edit-{name}", "edit.json", _put(content))
    for key in ("format", "model", "image", "z_sem", "inversion", "steps", "asked"):
        for name, value in ANYTHING.items():
            outcome = EITHER if key == "asked" else REFUSED
            yield Damage(
                f"edit-{key}-{name}",
                "edit.json",
                _changed(key, value=value),
                EITHER if (key, name) == ("steps", "number") else outcome,
            )
        yield Damage(f"edit-no-{key}", "edit.json", _without(key), EITHER if key == "asked" else REFUSED)
    for name, value in {
        "nan": [float("nan")] * 6,
        "inf": [float("inf")] * 6,
        "huge": [1e300] * 6,
        "short": [0.0] * 5,
        "long": [0.0] * 7,
        "nested": [[0.0] * 6],
        "texts": ["x"] * 6,
        "none": [],
        "ragged": [[1.0], [1.0, 2.0]],
    }.items():
        yield Damage(f"edit-z-{name}", "edit.json", _changed("z_sem", value=value))
    for name, array in {
        "flat": torch.zeros(192),
        "other": torch.zeros(3, 16, 16),
        "one": torch.zeros(1, 8, 8),
        "bytes": torch.zeros(3, 8, 8, dtype=torch.uint8),
        "nan": torch.full((3, 8, 8), float("nan")),
        "beyond": torch.full((3, 8, 8), 255.0),
        "none": torch.zeros(0, 8, 8),
        "double": torch.zeros(3, 8, 8, dtype=torch.float64),
    }.items():
        buffer = io.BytesIO()
        np.save(buffer, array.numpy())
        packed = base64.b64encode(buffer.getvalue()).decode()
        yield Damage(
            f"edit-image-{name}-array", "edit.json", _changed("image", value=packed), EITHER if name == "double" else REFUSED
        )
    yield Damage("edit-image-cut", "edit.json", _changed("image", value="k05VTVBZAQB2AHsn"))
    from corpus import header

    huge = base64.b64encode(
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1000000, 1000000), }") + bytes(9)
    ).decode()
    yield Damage("edit-image-huge-array", "edit.json", _changed("image", value=huge))
    objects = base64.b64encode(
        header("{'descr': '|O', 'fortran_order': False, 'shape': (3, 8, 8), }") + pickle.dumps(Attack())
    ).decode()
    yield Damage("edit-image-pickle", "edit.json", _changed("image", value=objects))
    for value in (0, -5, 10**12, 1.5, 1):
        yield Damage(f"edit-steps-{value}", "edit.json", _changed("steps", value=value), EITHER if value == 1 else REFUSED)
    yield Damage("edit-unheard", "edit.json", _changed("unheard", value=1))


class Attack:
    """What would run code in an ordinary unpickler."""

    def __reduce__(self):
        return os.system, ("touch was_run",)


def _torch(change):
    def do(file):
        content = torch.load(file, weights_only=True)
        content = change(content) or content
        torch.save(content, file)

    return do


def _pickled(program):
    def do(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", program)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")

    return do


def _conf(key, value, *below):
    def change(content):
        place = content["hyper_parameters"]
        for name in below:
            place = place[name]
        if value is MISSING:
            place.pop(key)
        else:
            place[key] = value

    return _torch(change)


MISSING = object()


def checkpoints():
    """Damage to the authors' `last.ckpt`."""
    file = "last.ckpt"
    contents = {
        "text": "no checkpoint",
        "pickle": pickle.dumps({"state_dict": {}, "hyper_parameters": {}}),
        "attack": pickle.dumps(Attack()),
        "number": pickle.dumps(7),
        "stop": b".",
        "memo": b"\x80\x02h\xff.",
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "frames": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "text-long": b"\x80\x02X\xff\xff\xff\x7f.",
    }
    yield from _spoiled("checkpoint", file, (0.0, 0.001, 0.1, 0.5, 0.9, 0.9999), contents)
    for name, program in {
        "attack": pickle.dumps(Attack()),
        "deep": b"(" * 200_000 + b"l" * 200_000 + b".",
        "lists": b"]" * 2 + b"a.",
        "nothing": b"",
        "persistent": b"Pabc\n.",
        "persistent-2": b"(X\x07\0\0\0storageQ.",
        "eval": b"cbuiltins\neval\n(V1\ntR.",
        "getattr": b"cbuiltins\ngetattr\n.",
        "build": b"ctorch\nSize\n)R}b.",
        "size": b"ctorch\nSize\n(I-1\ntR.",
        "ordered": b"ccollections\nOrderedDict\n(I1\ntR.",
        "rebuild": b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        "unicode": b"cos.\xff\xfe\nsystem\n.",
        "placeholder": b"cnumpy\narray\n(tR.",
        "placeholder-call": b"cnumpy\narray\n(tR(tR.",
        "extension": b"\x82\x01.",
        "attribute": b"cpathlib\nPath\n(Va\ntR.",
        "memory": b"cnumpy\nzeros\n(I999999999999\ntR.",
    }.items():
        yield Damage(f"checkpoint-program-{name}", file, _pickled(program))
    for key in ("state_dict", "hyper_parameters"):
        for name, value in ANYTHING.items():
            yield Damage(f"checkpoint-{key}-{name}", file, _torch(lambda content, k=key, v=value: content.update({k: v})))
    for below, keys in {
        (): ("model_conf", "T", "beta_scheduler", "latent_beta_scheduler", "data_name"),
        ("model_conf",): (
            "image_size",
            "in_channels",
            "model_channels",
            "channel_mult",
            "num_res_blocks",
            "attention_resolutions",
            "num_heads",
            "embed_channels",
            "dropout",
            "enc_out_channels",
            "enc_channel_mult",
            "enc_num_res_block",
            "enc_attn_resolutions",
            "latent_net_conf",
        ),
        ("model_conf", "latent_net_conf"): (
            "num_layers",
            "num_channels",
            "num_hid_channels",
            "num_time_emb_channels",
            "skip_layers",
            "use_norm",
        ),
    }.items():
        for key in keys:
            for name, value in ANYTHING.items():
                yield Damage(f"checkpoint-{key}-{name}", file, _conf(key, value, *below), EITHER)
            yield Damage(f"checkpoint-no-{key}", file, _conf(key, MISSING, *below), EITHER)

    def weight(how):
        return _torch(
            lambda c: c["state_dict"].update(
                {k: how(t) for k, t in list(c["state_dict"].items())[:1] if isinstance(t, torch.Tensor)}
                | {"ema_model.out.2.bias": how(c["state_dict"]["ema_model.out.2.bias"])}
            )
        )

    yield Damage("checkpoint-weight-nan", file, weight(lambda t: t * float("nan")))
    yield Damage("checkpoint-weight-shape", file, weight(lambda t: torch.zeros(7)))
    yield Damage("checkpoint-weight-int", file, weight(lambda t: (t * 100).int()))
    yield Damage("checkpoint-weight-bool", file, weight(lambda t: t > 0))
    yield Damage("checkpoint-weight-complex", file, weight(lambda t: t.to(torch.complex64)))
    yield Damage("checkpoint-weight-sparse", file, weight(lambda t: t.to_sparse()), EITHER)
    yield Damage("checkpoint-weight-overflow", file, weight(lambda t: t.double() * 1e300 + 1e300))
    yield Damage("checkpoint-weight-list", file, weight(lambda t: t.tolist()))
    yield Damage("checkpoint-weight-none", file, weight(lambda t: None))
    yield Damage("checkpoint-weight-text", file, weight(lambda t: "x"))
    yield Damage("checkpoint-keys", file, _torch(lambda c: c["state_dict"].update({7: torch.zeros(1)})), EITHER)


def models():
    """All damage to a saved model and what stands beside it."""
    return [*configs(), *weights(), *calibrations(), *attributes()]
