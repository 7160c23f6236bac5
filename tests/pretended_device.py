"""A second device that is not there: tensors that say they are on it, and are computed on the CPU.

It finds what a GPU would: arithmetic between tensors of two devices, and NumPy arrays of tensors that are not the CPU's.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyPrivateUse1Hook, _setup_privateuseone_for_python_backend

ACROSS = {"aten.copy_.default", "aten.index.Tensor", "aten.index_put_.default", "aten._index_put_impl_.default"}
"""What CUDA lets tensors of two devices do: copy, and indices from the CPU."""


class Unavailable(_DummyPrivateUse1Hook):
    def is_available(self):
        return False  # So that nothing chooses it unasked.


class Backend:
    @staticmethod
    def is_available():
        return False

    @staticmethod
    def get_amp_supported_dtype():
        return [torch.bfloat16]

    @staticmethod
    def _is_in_bad_fork():
        return False

    @staticmethod
    def manual_seed_all(seed):
        pass


_setup_privateuseone_for_python_backend("pretended", backend_module=Backend, hook=Unavailable())
DEVICE = torch.device("pretended", 0)


class Pretended(torch.Tensor):
    """A tensor of the device, which holds one of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        layout = dict(strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, layout=held.layout)
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, device=DEVICE)

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"Pretended({self.held})"

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _Intercepted(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


# `torch.tensor` and lists as indices make tensors where no mode is asked.
_library = torch.library.Library("aten", "IMPL")


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return Pretended(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source, target, non_blocking=False):
    target.held.copy_(source.held if isinstance(source, Pretended) else source)
    return target


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    """As on CUDA, with the channels brought to the front."""
    n, c = x.shape[:2]
    return torch.native_group_norm(x.contiguous(), weight, bias, n, c, x.shape[2:].numel(), num_groups, eps)[0]


_library.impl("group_norm", _group_norm, "AutogradPrivateUse1")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")
_library.impl("_copy_from", _copy_from, "PrivateUse1")


def _refuse_as_cuda(func, args):
    """What CUDA's kernels do not take, though the CPU's do."""
    if func is torch.ops.aten.native_group_norm.default and not args[0].is_contiguous():
        raise RuntimeError("Expected X.is_contiguous(memory_format) to be true, but got false.")


def _computed(func, args, kwargs):
    tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
    ours = [t for t in tensors if isinstance(t, Pretended)]
    across = str(func) in ACROSS
    if ours and not across and any(not isinstance(t, Pretended) and t.dim() for t in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got some of {DEVICE} and some of the CPU.")
    if ours:
        _refuse_as_cuda(func, args)
    if kwargs.get("device") is not None:
        here = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = kwargs | {"device": "cpu"}
    else:
        here = isinstance(tensors[0], Pretended) if across else bool(ours)
    held_args, held_kwargs = tree_map(lambda t: t.held if isinstance(t, Pretended) else t, (args, kwargs))
    out = func(*held_args, **held_kwargs)
    known = {id(t.held): t for t in ours}  # What is changed in place is still the same tensor.

    def placed(o):
        if id(o) in known or not isinstance(o, torch.Tensor):
            return known.get(id(o), o)
        return Pretended(o) if here else o

    return tree_map(placed, out)


@contextlib.contextmanager
def pretended():
    """Within it, tensors and modules can be moved to `DEVICE`."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Intercepted():
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
