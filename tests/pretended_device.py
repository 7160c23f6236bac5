"""A second device that is not there: tensors that say they are on it, and are computed on the CPU.

It finds what a GPU would: arithmetic between tensors of two devices, NumPy arrays of tensors that are not the CPU's, and what
CUDA's kernels refuse though the CPU's take it. It counts what costs on a GPU: operations, what they move, waits for the device, and
copies to it.
"""

import contextlib
from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyPrivateUse1Hook, _setup_privateuseone_for_python_backend

aten = torch.ops.aten

ACROSS = {aten.copy_.default, aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}
"""What CUDA lets tensors of two devices do: copy, and indices from the CPU."""
SCALARS = set("add sub rsub mul div pow remainder maximum minimum eq ne lt le gt ge bitwise_and bitwise_or fill where".split())
"""Operations for which CUDA takes a number that is a tensor of the CPU, and reads it there; in place too."""
WAITS = set(
    "_local_scalar_dense nonzero masked_select _unique2 unique_dim equal is_nonzero repeat_interleave _linalg_svd _linalg_eigh "
    "linalg_qr linalg_lstsq _linalg_solve_ex linalg_inv_ex linalg_cholesky_ex".split()
)
"""Operations whose result the host has to wait for."""
PRODUCTS = set(
    "convolution convolution_backward mm addmm bmm baddbmm dot mv _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention".split()
)
"""What a GPU does at the rate of its arithmetic; all else it does at that of its memory."""


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
        for counts in _open:
            counts.waits += 1
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


# Lists of tensors are worked on at once, as on CUDA.
_foreach_utils._foreach_supported_types.append(Pretended)


class _Intercepted(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


@dataclass
class Counts:
    """What happened on the device.

    Attributes:
        dispatched: operations, views too.
        operations: those that compute or move something.
        moved: bytes of operands and results, by operation.
        of: number of operations, by operation.
        waits: how often the host waited for the device.
        copies: how often something was copied to the device.
    """

    dispatched: int = 0
    waits: int = 0
    copies: int = 0
    moved: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    of: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def operations(self):
        return sum(self.of.values())

    def traffic(self):
        """Bytes moved by all that is neither a convolution nor a product."""
        return sum(n for name, n in self.moved.items() if name.split(".")[0] not in PRODUCTS)

    def add(self, func, tensors, out):
        name = func._overloadpacket.__name__
        results = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.dispatched += 1
        self.waits += name in WAITS or (any(isinstance(t, Pretended) for t in tensors) and _arrives(out))
        departs = any(isinstance(t, Pretended) for t in results) and any(not isinstance(t, Pretended) and t.dim() for t in tensors)
        self.copies += departs
        if not any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns):
            self.of[name] += 1
            # A result in the place of an operand is counted as both read and written.
            self.moved[name] += sum(t.numel() * t.element_size() for t in [*tensors, *results])


def _arrives(out):
    """Whether a result came to the CPU from the device."""
    return any(isinstance(t, torch.Tensor) and not isinstance(t, Pretended) for t in tree_leaves(out))


_open: list[Counts] = []
_holding = ["cpu"]


@contextlib.contextmanager
def counting():
    """What happens on the device within it."""
    counts = Counts()
    _open.append(counts)
    try:
        yield counts
    finally:
        _open.remove(counts)


# `torch.tensor` and lists as indices make tensors where no mode is asked.
_library = torch.library.Library("aten", "IMPL")


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return Pretended(torch.empty_strided(size, stride, dtype=dtype, device=_holding[0]))


def _copy_from(source, target, non_blocking=False):
    target.held.copy_(source.held if isinstance(source, Pretended) else source)
    for counts in _open:
        counts.copies += not isinstance(source, Pretended)
    return target


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    """As on CUDA, with the channels brought to the front."""
    n, c = x.shape[:2]
    return torch.native_group_norm(x.contiguous(), weight, bias, n, c, x.shape[2:].numel(), num_groups, eps)[0]


_library.impl("group_norm", _group_norm, "AutogradPrivateUse1")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")
_library.impl("_copy_from", _copy_from, "PrivateUse1")

# CUDA's autocast: what is done in the lower precision, and what in float32.
LOW = "conv1d conv2d conv3d linear addmm mm bmm matmul baddbmm scaled_dot_product_attention"
FULL = "exp log pow softmax layer_norm group_norm mse_loss l1_loss norm sum prod cumsum rsqrt"
_others = torch.library.Library("_", "IMPL")
_others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
_without_autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _cast(operator, dtype):
    def cast(*args, **kwargs):
        to = torch.get_autocast_dtype("pretended") if dtype is None else dtype

        def lowered(t):
            ours = isinstance(t, torch.Tensor) and t.device == DEVICE and t.is_floating_point() and t.dtype != torch.float64
            return t.to(to) if ours else t

        with torch._C._ExcludeDispatchKeyGuard(_without_autocast):
            args, kwargs = tree_map(lowered, (args, kwargs))
            return operator(*args, **kwargs)

    return cast


for _names, _dtype in ((LOW, None), (FULL, torch.float32)):
    for _name in _names.split():
        _packet = getattr(aten, _name)
        for _overload in (o for o in _packet.overloads() if not o.endswith("out")):
            _full_name = _name if _overload == "default" else f"{_name}.{_overload}"
            _library.impl(_full_name, _cast(getattr(_packet, _overload), _dtype), "AutocastPrivateUse1")


def _refuse_as_cuda(func, args, kwargs, tensors):
    """What CUDA's kernels do not take, though the CPU's do."""
    name = func._overloadpacket.__name__
    strange = [t for t in tensors if not isinstance(t, Pretended)]
    if func not in ACROSS and any(t.dim() or name.rstrip("_") not in SCALARS for t in strange):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got some of {DEVICE} and some of the CPU.")
    if func is aten.native_group_norm.default and not args[0].is_contiguous():
        raise RuntimeError("Expected X.is_contiguous(memory_format) to be true, but got false.")
    if isinstance(kwargs.get("generator"), torch.Generator) and kwargs["generator"].device.type == "cpu":
        raise RuntimeError(f"Expected a {DEVICE.type!r} device type for generator but found 'cpu'")
    unsigned = any(t.dtype in (torch.uint16, torch.uint32, torch.uint64) for t in tensors)
    if unsigned and name not in ("_to_copy", "copy_", "view", "detach"):
        raise NotImplementedError(f'"{name}" not implemented for {[t.dtype for t in tensors]}')
    if name == "linalg_lstsq" and int(torch.linalg.matrix_rank(args[0].held)) < min(args[0].shape[-2:]):
        raise RuntimeError("CUDA's only driver of lstsq, gels, takes the matrix for one of full rank, and it is not.")


def _computed(func, args, kwargs):
    tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
    ours = [t for t in tensors if isinstance(t, Pretended)]
    across = func in ACROSS
    if ours:
        _refuse_as_cuda(func, args, kwargs, tensors)
    asked = kwargs.get("device")
    if asked is not None:
        here = torch.device(asked).type == DEVICE.type
        kwargs = kwargs | {"device": _holding[0] if here else "cpu"}
    else:
        here = isinstance(tensors[0], Pretended) if across else bool(ours)
    held_args, held_kwargs = tree_map(lambda t: t.held if isinstance(t, Pretended) else t, (args, kwargs))
    # Of optimizers torch does not know the shapes that they have: none.
    without = func._overloadpacket.__name__.startswith("_fused") and _holding[0] == "meta"
    out = None if without else func(*held_args, **held_kwargs)
    known = {id(t.held): t for t in ours}  # What is changed in place is still the same tensor.

    def placed(o):
        if id(o) in known or not isinstance(o, torch.Tensor):
            return known.get(id(o), o)
        return Pretended(o) if here else o

    out = tree_map(placed, out)
    if ours or here:
        for counts in _open:
            counts.add(func, tensors, out)
    return out


@contextlib.contextmanager
def pretended(*, without_values=False):
    """Within it, tensors and modules can be moved to `DEVICE`.

    Args:
        without_values: tensors have shapes alone, so that what large networks do can be counted in no time.
    """
    before = torch.__future__.get_overwrite_module_params_on_conversion(), _holding[0]
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _holding[0] = "meta" if without_values else "cpu"
    try:
        with _Intercepted():
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before[0])
        _holding[0] = before[1]
