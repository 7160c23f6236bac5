"""A second device that is not there: tensors that say they are on it, and are computed on the CPU.

It finds what a GPU would: arithmetic between tensors of two devices, NumPy arrays of tensors that are not the CPU's, and what
CUDA's kernels refuse though the CPU's take it. It counts what costs on a GPU: operations, what they move, waits for the device, and
copies to it.
"""

import contextlib
import weakref
from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
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
CHANCE = set(
    "_adaptive_avg_pool2d_backward avg_pool3d_backward upsample_bilinear2d_backward upsample_nearest3d_backward put_ cumsum "
    "replication_pad2d_backward reflection_pad2d_backward histc bincount kthvalue median grid_sampler_2d_backward".split()
)
"""Operations that CUDA refuses where the same bits are asked for."""
PRODUCTS = set(
    "convolution convolution_backward mm addmm bmm baddbmm dot mv _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention".split()
)
"""What a GPU does at the rate of its arithmetic; all else it does at that of its memory."""


def _mapped(of, value, kind=torch.Tensor):
    """Arguments or results of an operator with `of` each tensor in its place: PyTorch's own way asks of each number what it is."""
    if isinstance(value, kind):
        return of(value)
    if isinstance(value, tuple | list):
        return type(value)([_mapped(of, v, kind) for v in value])
    return {name: _mapped(of, v, kind) for name, v in value.items()} if isinstance(value, dict) else value


def _tensors(*values):
    """The tensors in arguments or results of an operator, in their order."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(*value)
        elif isinstance(value, dict):
            yield from _tensors(*value.values())


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
        _not_while_recording("tolist")
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

    def __str__(self):
        return f"{self.operations} operations, {self.dispatched} with views, {self.waits} waits, {self.copies} copies"

    def add(self, func, tensors, out):
        name = func._overloadpacket.__name__
        results = list(_tensors(out))
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
    return any(not isinstance(t, Pretended) for t in _tensors(out))


_open: list[Counts] = []
_largest = [float("inf")]
_holding = ["cpu"]


@contextlib.contextmanager
def small_memory(largest):
    """Within it, the device has no room for a tensor of more bytes."""
    before, _largest[0] = _largest[0], largest
    try:
        yield
    finally:
        _largest[0] = before


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
    if not isinstance(source, Pretended):
        _not_while_recording("a copy from the host")
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
            ours = t.device == DEVICE and t.is_floating_point() and t.dtype != torch.float64
            return t.to(to) if ours else t

        with torch._C._ExcludeDispatchKeyGuard(_without_autocast):
            args, kwargs = _mapped(lowered, (args, kwargs))
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
    if name in CHANCE and torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(f"{name}_cuda does not have a deterministic implementation, but you set it to be asked for.")
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
    tensors = list(_tensors(args, kwargs))
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
    if _tapes and (ours or here):
        name = func._overloadpacket.__name__
        if name in WAITS or (ours and not here) or any(not isinstance(t, Pretended) and t.dim() for t in tensors):
            _not_while_recording(name)
    held_args, held_kwargs = _mapped(lambda t: t.held if isinstance(t, Pretended) else t, (args, kwargs))
    for tape in _tapes:
        tape.before(func, held_args, held_kwargs)
    # Of optimizers torch does not know the shapes that they have: none.
    without = func._overloadpacket.__name__.startswith("_fused") and _holding[0] == "meta"
    out = None if without else func(*held_args, **held_kwargs)
    for tape in _tapes:
        tape.after(func, held_args, held_kwargs, out)
    known = {id(t.held): t for t in ours}  # What is changed in place is still the same tensor.

    def placed(o):
        if id(o) in known:
            return known[id(o)]
        return Pretended(o) if here else o

    out = _mapped(placed, out)
    for t in _tensors(out):
        if isinstance(t, Pretended) and t.numel() * t.element_size() > _largest[0]:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {t.numel() * t.element_size()} bytes.\nMore words."
            )
    if ours or here:
        for counts in _open:
            counts.add(func, tensors, out)
    return out


def _not_while_recording(what):
    if _tapes:
        raise RuntimeError(f"operation not permitted when stream is capturing: {what}")


class Tape:
    """What was asked of the device while it recorded: nothing was computed, and a replay reads what lies at its addresses then."""

    def __init__(self):
        self.entries = []
        self._made = {}  # What came to be while it recorded, views too.
        self._before = {}
        self._outside = {}

    def before(self, func, args, kwargs):
        written = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
        values = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        for argument, is_written in zip(func._schema.arguments, written, strict=True):
            for tensor in _tensors(values.get(argument.name)):
                if id(tensor) not in self._made:
                    # Memory of a card that was freed, which a replay would read.
                    self._outside[id(tensor)] = weakref.ref(tensor)
                if is_written:
                    self._before.setdefault(id(tensor), (tensor, tensor.clone()))

    def after(self, func, args, kwargs, out):
        aliases = any(r.alias_info is not None for r in func._schema.returns)
        results = list(_tensors(out))
        for t in results:
            self._made.setdefault(id(t), t)
        if not (aliases and not func._schema.is_mutable):  # A view needs nothing to be done again.
            self.entries.append((func, *_mapped(self._light, (args, kwargs)), [] if aliases else results))

    def _light(self, tensor):
        return tensor if id(tensor) in self._made else weakref.ref(tensor)

    def end(self):
        for tensor, value in reversed(self._before.values()):
            tensor.copy_(value)
        self._before.clear()
        for _, _, _, results in self.entries:
            for t in results:
                if t.is_floating_point() and t.numel():
                    t.fill_(float("nan"))

    def replay(self):
        if any(outside() is None for outside in self._outside.values()):
            raise RuntimeError("A recording reads what was freed since.")
        with torch.no_grad(), _disable_current_modes():
            for func, args, kwargs, results in self.entries:
                args, kwargs = _mapped(lambda outside: outside(), (args, kwargs), weakref.ref)
                for old, new in zip(results, _tensors(func(*args, **kwargs)), strict=False):
                    old.copy_(new)


_tapes: list[Tape] = []


class Recorder:
    """Records as CUDA graphs do, for `graphs.RECORDERS`."""

    def wait(self):
        pass

    def side_stream(self):
        return contextlib.nullcontext()

    def record(self, compute):
        tape = Tape()
        _tapes.append(tape)
        try:
            compute()
        finally:
            _tapes.remove(tape)
            tape.end()
        return tape.replay


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
