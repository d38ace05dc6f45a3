"""What is the state of a library's object: for some types a plain value, for others nothing that could count.

This file may know: types by their names (none of them is imported for this), and where sources lie. It may
not know: how anything is encoded or hashed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Final

from pyplantx.fingerprint import jitted, schemas, shared
from pyplantx.fingerprint.boundary import is_library_file
from pyplantx.fingerprint.generated import compiler_options


def _path_state(value: Any) -> object:
    return str(value)


_SPARSE_PARTS = ("data", "indices", "indptr", "row", "col", "offsets", "rows")
#: What SciPy keeps on a matrix beside its content: what follows from that, and how much of it is printed.
_SPARSE_FIELDS = frozenset(
    {
        *(*_SPARSE_PARTS, "coords", "_dict", "shape", "_shape", "dtype", "maxprint", "_maxprint"),
        *("has_sorted_indices", "_has_sorted_indices", "has_canonical_format", "_has_canonical_format"),
    }
)
_SPARSE_BASES = frozenset({"scipy.sparse._base._spbase", "scipy.sparse._base.spmatrix", "scipy.sparse.base.spmatrix"})


def is_sparse(module: str, bases: Iterable[str]) -> bool:
    """Whether a class of this module, with bases of these names, is one of SciPy's sparse matrices or arrays."""
    return module.startswith("scipy.sparse.") and not _SPARSE_BASES.isdisjoint(bases)


def sparse_state(value: Any) -> object:
    """The parts of a scipy.sparse matrix or array, and what its user has hung on it."""
    fields = object.__getattribute__(value, "__dict__")
    coords = fields.get("coords", ())
    content = [fields[part] for part in _SPARSE_PARTS if part in fields]
    state = [tuple(value.shape), str(value.dtype), content, list(coords), fields.get("_dict")]
    hung = hung_on_sparse(value)
    return [*state, hung] if hung else state


def hung_on_sparse(value: Any) -> dict[str, object]:
    """Attributes of a scipy.sparse matrix or array that SciPy knows nothing of."""
    fields = object.__getattribute__(value, "__dict__")
    return {name: item for name, item in fields.items() if name not in _SPARSE_FIELDS}


#: What NumPy keeps on a masked array beside its elements, mask and fill value, and which follows from these.
_MASKED_FIELDS = frozenset(
    {"_mask", "_fill_value", "_hardmask", "_sharedmask", "_isfield", "_baseclass", "_basedict"},
)


def hung_on_masked(fields: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a masked array that its user has set, the dict for such information among them."""
    return {n: item for n, item in fields.items() if n not in _MASKED_FIELDS and (n != "_optinfo" or item)}


def _variable_state(variable: Any) -> object:
    from contextvars import Context

    return variable.name, _outcome(lambda: Context().run(variable.get)), _outcome(variable.get)


def _referent(proxy: Any) -> object:
    """What a proxy stands for: a proxy asks that for its methods, which know whose they are."""
    found: object = proxy.__sizeof__.__self__
    return found


def _generator_state(generator: Any) -> object:
    """The state of a generator of NumPy; how many others were spawned by it decides what the next of them draws."""
    source = generator.bit_generator
    spawned = getattr(getattr(source, "seed_seq", None), "n_children_spawned", 0)
    return (source.state, spawned) if spawned else source.state


def _text_state(stream: Any) -> object:
    """Content and position of text in memory, and how it writes ends of lines, if that was said."""
    content, ends, position, _ = stream.__getstate__()
    return (content, position) if ends == "\n" else (content, position, ends)


def _options(validator: Any) -> object:
    """What may be chosen from as it was given: of a set attrs makes a tuple, in an order of the process."""
    return getattr(validator, "_original_options", validator.options)


def _compiled_state(module: Any) -> object:
    return module._modules["_orig_mod"], compiler_options(module.dynamo_ctx)


#: Base of all networks of torch.
NETWORK: Final = "torch.nn.modules.module.Module"


def hooks_in_order(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a network of torch, with its hooks by number: torch counts all hooks of the process."""
    tables = {name: table for name, table in fields.items() if "_hooks" in name and isinstance(table, dict) and table}
    if not tables:
        return fields
    numbers = sorted({key for table in tables.values() for key in table if type(key) is int})
    place = {number: index for index, number in enumerate(numbers)}
    counted = {name: [(place.get(key, key), hook) for key, hook in table.items()] for name, table in tables.items()}
    return fields | counted


def _operator_state(operator: Any) -> object:
    """What a custom operator of torch was told; that it is registered, and from which line, is in the other fields."""
    unsaid = ("_lib", "_opoverload", "_disabled_kernel", "_used_triton_kernels")
    return {name: item for name, item in vars(operator).items() if name not in unsaid}


def _jit_state(told: Any) -> object:
    """What `jax.jit` was told, without the place where the function stands."""
    return {name: item for name, item in told._asdict().items() if name != "fun_sourceinfo"}


def _by_key(mapping: Any) -> object:
    """A mapping in an order of its keys; that of its own is one of the process."""
    return dict(sorted(mapping.items(), key=lambda pair: (type(pair[0]).__qualname__, repr(pair[0]))))


#: What a registry of units of pint was told; the rest follows from it, in an order of the process.
_REGISTRY_FIELDS: Final = (
    *("_units", "_prefixes", "_suffixes", "_dimensions", "_defaults", "_contexts", "_groups", "_systems"),
    *("_default_system_name", "_non_int_type", "preprocessors", "case_sensitive", "force_ndarray"),
    *("force_ndarray_like", "separate_format_defaults", "auto_reduce_dimensions", "autoconvert_to_preferred"),
    *("default_as_delta", "autoconvert_offset_to_baseunit"),
)


def _registry_state(registry: Any) -> object:
    own = vars(registry)
    shown = getattr(own.get("formatter"), "default_format", None)
    told = [(name, own[name]) for name in _REGISTRY_FIELDS if name in own]
    return [shown, *((name, _by_key(item) if isinstance(item, Mapping) else item) for name, item in told)]


def _alias_state(alias: Any) -> object:
    state = (alias.__origin__, alias.__args__)
    return (*state, "*") if alias.__unpacked__ else state


def _delayed_state(delayed: Any) -> object:
    """What `dask.delayed` wraps; the key ends in a random number, unless it was given or the function is pure."""
    key = delayed._key
    return delayed._obj, delayed._pure, delayed._nout, _RANDOM_END.sub("", key) if isinstance(key, str) else key


def _tensor_state(tensor: Any) -> object:
    """What a tensor of torch holds. Its own pickle is an archive with a random number inside."""
    own = object.__getattribute__(tensor, "__dict__")
    facts = [str(tensor.dtype), tuple(tensor.shape), str(tensor.layout), str(tensor.device), tensor.requires_grad]
    return [*facts, *_elements(tensor.detach()), dict(own)]


def _elements(tensor: Any) -> list[object]:
    """The elements as arrays of bytes, whatever the strides."""
    torch = sys.modules["torch"]
    if tensor.device.type == "meta":
        return []
    if tensor.is_quantized:
        return [_scales(tensor), *_elements(tensor.int_repr())]
    if tensor.layout is torch.sparse_coo:
        return [*_elements(tensor._indices()), *_elements(tensor._values()), tensor.is_coalesced()]
    if tensor.layout is not torch.strided:
        return _elements(tensor.to_dense())
    plain = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    return [plain.reshape(-1).view(torch.uint8).numpy()]


def _scales(tensor: Any) -> list[object]:
    if "channel" not in str(tensor.qscheme()):
        return [str(tensor.qscheme()), tensor.q_scale(), tensor.q_zero_point()]
    scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return [str(tensor.qscheme()), *_elements(scales), *_elements(zeros), tensor.q_per_channel_axis()]


def _script_state(script: Any) -> object:
    """What torch would save of compiled code, but for the lines of its sources and a random number."""
    from io import BytesIO
    from zipfile import ZipFile

    with ZipFile(BytesIO(script.save_to_buffer())) as archive:
        names = [name for name in archive.namelist() if not name.endswith((".debug_pkl", "/serialization_id"))]
        content = [_COUNTED.sub(b"", name.encode() + b"\0" + archive.read(name)) for name in names]
    return content, _outcome(lambda: str(script.schema))


def _cell_state(cell: Any) -> object:
    return _outcome(lambda: cell.cell_contents)


def _outcome(ask: Callable[[], object]) -> tuple[object, ...]:
    try:
        return (ask(),)
    except (LookupError, ValueError, NameError, AttributeError):  # how they say that they hold nothing, or not yet
        return ()


def _compared(key: Any) -> object:
    import gc  # `functools.cmp_to_key` shows its function to nobody else

    return [held for held in gc.get_referents(key) if held is not type(key)]


#: What the variables of `typing` are asked for; the bounds, defaults and values of 3.12 are computed when asked.
_VARIABLE: Final = (
    *("__name__", "__bound__", "__constraints__", "__covariant__", "__contravariant__"),
    *("__infer_variance__", "__default__", "__type_params__", "__value__"),
)


def _typing_state(variable: Any) -> object:
    return [_outcome(partial(getattr, variable, name)) for name in _VARIABLE]


#: The second class of one name that torch compiles in a process, the third.
_COUNTED = re.compile(rb"\.___torch_mangle_\d+|/___torch_mangle_\d+")
_RANDOM_END = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

#: Exact type -> its state, as a value that can be encoded.
STATES: Final[dict[str, Callable[[Any], object]]] = {
    "decimal.Decimal": str,
    "fractions.Fraction": lambda value: (value.numerator, value.denominator),
    "datetime.date": lambda value: (value.year, value.month, value.day),
    "datetime.datetime": lambda v: (
        *(v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold),
        v.tzinfo,
    ),
    "datetime.time": lambda v: (v.hour, v.minute, v.second, v.microsecond, v.fold, v.tzinfo),
    "datetime.timedelta": lambda value: (value.days, value.seconds, value.microseconds),
    "datetime.timezone": lambda value: value.__getinitargs__(),
    "zoneinfo.ZoneInfo": lambda value: value.key,
    "uuid.UUID": lambda value: value.int,
    "re.Pattern": lambda value: (value.pattern, value.flags),
    "array.array": lambda value: (value.typecode, value.tobytes()),
    "builtins.slice": lambda value: (value.start, value.stop, value.step),
    "builtins.mappingproxy": dict,
    "builtins.memoryview": lambda value: (value.format, value.shape, value.tobytes()),
    "collections.deque": lambda value: (value.maxlen, list(value)),
    "collections.OrderedDict": lambda value: list(value.items()),
    "types.SimpleNamespace": lambda value: dict(vars(value)),
    "types.GenericAlias": _alias_state,
    "types.UnionType": lambda value: value.__args__,
    "builtins.dict_keys": list,
    "builtins.dict_values": list,
    "builtins.dict_items": list,
    "builtins.cell": _cell_state,
    "functools.KeyWrapper": _compared,
    "_struct.Struct": lambda value: value.format,
    "_io.StringIO": _text_state,
    "_io.BytesIO": lambda value: (value.getvalue(), value.tell()),
    **dict.fromkeys(("weakref.ReferenceType", "weakref.WeakMethod"), lambda value: value()),
    **dict.fromkeys(("weakref.ProxyType", "weakref.CallableProxyType"), _referent),
    "typing.NewType": lambda value: (value.__name__, value.__supertype__),
    "typing.ForwardRef": lambda value: (value.__forward_arg__, value.__forward_is_class__),
    **dict.fromkeys((f"typing.{n}" for n in ("TypeVar", "TypeVarTuple", "ParamSpec", "TypeAliasType")), _typing_state),
    **dict.fromkeys(("_contextvars.ContextVar", "contextvars.ContextVar"), _variable_state),
    "numpy.random._generator.Generator": _generator_state,
    "dask.delayed.DelayedLeaf": _delayed_state,
    # their tokens are random numbers
    **dict.fromkeys(("dask.utils.SerializableLock", "xarray.backends.locks.SerializableLock"), lambda value: None),
    "attr.validators._InValidator": _options,
    "immutables._map.Map": _by_key,
    "pint.registry.UnitRegistry": _registry_state,
    "pyrsistent._pset.PSet": frozenset,
    **dict.fromkeys(("ctypes.CDLL", "ctypes.PyDLL"), shared.library_state),
    shared.FUNCTION: shared.function_state,
    # the namespaces in which annotations are looked up; what they say is in the validator
    "pydantic._internal._namespace_utils.NsResolver": lambda value: None,
    "pydantic_core._pydantic_core.SchemaValidator": schemas.compiled_state,
    "pydantic_core._pydantic_core.SchemaSerializer": schemas.compiled_state,
    "pydantic.type_adapter.TypeAdapter": schemas.adapter_state,
    "pydantic._internal._validate_call.ValidateCallWrapper": schemas.call_state,
    **dict.fromkeys(("torch.Tensor", "torch.nn.parameter.Parameter"), _tensor_state),
    **dict.fromkeys(("torch.jit.torch.jit.ScriptFunction", "torch.jit._script.RecursiveScriptModule"), _script_state),
    "torch.jit._trace.TopLevelTracedModule": _script_state,
    "torch._dynamo.eval_frame.OptimizedModule": _compiled_state,
    "torch._library.custom_ops.CustomOpDef": _operator_state,
    "jax._src.pjit.PjitInfo": _jit_state,
    **dict.fromkeys(("torch.layout", "torch.memory_format", "torch.qscheme"), str),
    "numba.core.ccallback.CFunc": jitted.callback_state,
    "numba.stencils.stencil.StencilFunc": jitted.stencil_state,
    "numba.core.types.misc.ClassType": jitted.class_state,
    "numpy.busdaycalendar": lambda value: (value.weekmask, value.holidays),
    **dict.fromkeys((f"pathlib.{n}Path" for n in ("Posix", "Windows", "PurePosix", "PureWindows")), _path_state),
}

#: Types (and all that derive from them, `STATES` excepted) that are identified by nothing but their type.
NEVER: Final = frozenset(
    {
        *("_thread.lock", "_thread.RLock", "threading.Thread", "threading.Condition", "threading.Event"),
        *("threading.Semaphore", "threading.Barrier", "_io._IOBase", "builtins.generator"),
        *("builtins.coroutine", "builtins.async_generator", "builtins.frame", "builtins.traceback"),
        *("weakref.ReferenceType", "weakref.WeakSet", "weakref.WeakKeyDictionary", "weakref.WeakValueDictionary"),
        *("_weakrefset.WeakSet", "_weakref.ReferenceType", "_socket.socket", "sqlite3.Connection"),
        *("weakref.finalize", "os._Environ", "builtins.PyCapsule"),
        *("subprocess.Popen", "concurrent.futures._base.Executor", "h5py._hl.base.HLObject"),
        *(f"h5py.{name}ID" for name in ("h5a.Attr", "h5d.Dataset", "h5f.File", "h5g.Group", "h5p.Prop")),
        *("pyplantx.plant.Plant", "pyplantx.pipework.Pipework", "pyplantx.warehouse.warehouse.Warehouse"),
    }
)

#: Types that have an encoding, but whose state is no constant where code refers to them.
_STATEFUL: Final = frozenset(
    {"logging.Logger", "logging.LoggerAdapter", "logging.Handler", "loguru._logger.Logger"},
)

_GENERATORS: Final = frozenset(
    {
        *("numpy.random._generator.Generator", "numpy.random.mtrand.RandomState"),
        *("numpy.random.bit_generator.BitGenerator", "numpy.random.bit_generator.SeedSequence"),
    }
)


def may_be_inconstant(bases: Iterable[str]) -> bool:
    """Whether `is_inconstant` has to look at the instances of a class with these bases."""
    return "random.Random" in bases or not (_STATEFUL.isdisjoint(bases) and _GENERATORS.isdisjoint(bases))


def is_inconstant(value: Any, bases: Iterable[str]) -> bool:
    """Whether an object that code refers to has a state, but one that is no constant of the program.

    Parameters
    ----------
    value : object
        What lies in a global, a default, a closure.
    bases : iterable of str
        Dotted names of its class and all bases of that.

    Returns
    -------
    bool
        True for loggers, for the hidden generators behind ``random.random`` and ``np.random.rand``, and for
        generators of NumPy that were made without a seed. `random.Random` does not keep its seed, so one
        without a seed can't be recognised: it is another value in each process.
    """
    if not _STATEFUL.isdisjoint(bases):
        return True
    if "random.Random" in bases:
        return value is vars(sys.modules["random"]).get("_inst")
    return not _GENERATORS.isdisjoint(bases) and _is_unseeded(value)


def _is_unseeded(generator: Any) -> bool:
    """Whether a generator of NumPy began with a number from the operating system."""
    if generator is vars(sys.modules.get("numpy.random.mtrand", sys)).get("_rand"):
        return True
    source = getattr(generator, "_bit_generator", generator)
    source = getattr(source, "seed_seq", None) or getattr(source, "_seed_seq", source)
    entropy = getattr(source, "entropy", None)
    return type(entropy) is int and entropy >= 1 << 64 and not _is_written(entropy)


@lru_cache(maxsize=256)
def _is_written(number: int) -> bool:
    """Whether a source of the project holds this number: NumPy advises seeds as long as those that it makes itself."""
    spellings = (str(number), f"{number:x}")
    return any(spelling in source for source in _sources() for spelling in spellings)


def _sources() -> Iterable[str]:
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and file.endswith(".py") and not is_library_file(file):
            yield _plain(_read(file))
    for entry in list(getattr(sys.modules.get("linecache"), "cache", {}).values()):  # cells of notebooks
        yield _plain("".join(entry[2]) if len(entry) == 4 else "")


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:  # run from a place that is gone by now: nothing is written there
        return ""


def _plain(source: str) -> str:
    return source.replace("_", "").lower()
