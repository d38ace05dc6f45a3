"""The way of a value down: written by its spec into a stage, sealed, moved to its address.

This file may know: specs, stages, addresses. It may not know: lmdb, names, traces, when the queue is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.errors import BadRequest, CannotStore, MissingLibrary, PyplantxError, UnknownSpec, WarehouseFull
from pyplantx.fingerprint.foreign import is_answer
from pyplantx.warehouse.files import disk_error
from pyplantx.warehouse.records import IN_FILES
from pyplantx.warehouse.session import Session
from pyplantx.warehouse.staging import TINY, Sealed, StagedObject, tiny_ref

if TYPE_CHECKING:
    from pyplantx.specs import SpecRegistry
    from pyplantx.specs.base import Allocation, IngredientTypeSpec, Written
    from pyplantx.specs.simple import SimpleSpec
    from pyplantx.warehouse.opening import Opener


#: What a spec says of a value or of options, without knowing the ingredient's name.
_TOLD_WITH_ITS_NAME = (CannotStore, BadRequest, UnknownSpec, MissingLibrary, WarehouseFull)
#: What ends a program where its own code raises it, and says no more than any other error where a value does.
_ENDS = (SystemExit, KeyboardInterrupt, GeneratorExit)


class Allocated:
    """An ingredient that a reactor fills itself.

    Attributes
    ----------
    name : str
        Of the ingredient.
    handle : object
        What the reactor writes into.
    inner : Allocation
        What the type spec made.
    before_publishing : list of callable
        What is to happen while it is whole and still ours.
    """

    def __init__(
        self, storer: Storer, name: str, spec: IngredientTypeSpec, stage: StagedObject, inner: Allocation
    ) -> None:
        self.name = name
        self.handle: Any = inner.handle
        self.inner = inner
        self.before_publishing: list[Callable[[], None]] = []
        self._storer = storer
        self._spec = spec
        self._stage = stage

    def seal(self, type_given: Any = None) -> ObjectRef:
        """Finish: the handle refuses more writes, the object is at its address and may be opened.

        Parameters
        ----------
        type_given : Ingredient.Type member, spec class, spec instance, or str, optional
            What it is to be, if that is said once more.

        Raises
        ------
        BadRequest
            If it was allocated as something else.
        CannotStore, WarehouseFull
            If it can't be stored; then it is discarded.
        """
        if type_given is not None:
            self._storer.check_type(self.name, self._spec, type_given)
        try:
            written = self.inner.seal()
            for prepare in self.before_publishing:
                prepare()
            self.before_publishing.clear()  # some of them lead back here
            ref = self._storer.publish(self._spec, self._stage, written)
            published = getattr(self.inner, "published", None)
            if published is not None:
                published(self._storer.folder_of(ref))
            return ref
        except BaseException as error:
            raise self._storer.failure(f"ingredient {self.name!r} can't be stored", self._stage, error)  # noqa: B904

    def discard(self) -> None:
        """Give up: close the handle, remove what was written."""
        try:
            self.inner.discard()
        finally:
            self._stage.discard()


class Storer:
    """Puts values into the store.

    Parameters
    ----------
    session : Session
        The open store.
    registry : SpecRegistry
        Writes the payloads.
    opener : Opener
        Tells what is there already.
    user : int
        Whose activities tell whether what is stored is soon named or forgotten; see `Stillness`.
    """

    def __init__(self, session: Session, registry: SpecRegistry, opener: Opener, user: int) -> None:
        self._session = session
        self._user = user
        self._registry = registry
        self._opener = opener
        self._simple = cast("SimpleSpec", registry.get("simple"))  # unless another spec is put in its place

    def store(self, name: str, value: Any, type_given: Any) -> ObjectRef:
        """See `Warehouse.store`."""
        stage: StagedObject | None = None
        try:
            spec = self._registry.infer(value) if type_given is None else self._registry.resolve(type_given)
            if spec is self._simple:
                tiny = self._simple.write_tiny(value, TINY)
                if tiny is not None:
                    return tiny_ref(spec.name, spec.version, *tiny)
            stage = StagedObject(self._session.staging)
            return self.publish(spec, stage, spec.write(value, stage))
        except BaseException as error:
            raise self.failure(f"ingredient {name!r} can't be stored", stage, error, value)  # noqa: B904

    def allocate(self, name: str, type_given: Any, options: dict[str, Any], what: str = "ingredient") -> Allocated:
        """See `Warehouse.allocate`; ``what`` says in messages what it is."""
        stage = StagedObject(self._session.staging)
        try:
            spec = self._registry.resolve(type_given)
            return Allocated(self, name, spec, stage, spec.allocate(stage, **options))
        except BaseException as error:
            raise self.failure(f"{what} {name!r} can't be allocated", stage, error)  # noqa: B904

    def check_type(self, name: str, spec: IngredientTypeSpec, type_given: Any) -> None:
        """Refuse to send what was allocated as one type as another.

        Raises
        ------
        BadRequest, UnknownSpec
            If the types differ, or it is none.
        """
        wanted = self._registry.resolve(type_given).name
        if wanted != spec.name:
            raise BadRequest(
                f"ingredient {name!r} was allocated as {spec.name!r}, and can't be sent as {wanted!r}",
                hint=f"pipe.send({name!r}, ...) without a type, or allocate it as {wanted!r}",
            )

    def folder_of(self, ref: ObjectRef) -> str:
        """Where the files of an object are."""
        return self._session.layout.object_folder(ref.address)

    def failure(
        self, what: str, stage: StagedObject | None, error: BaseException, value: object = None
    ) -> BaseException:
        """The error to raise when storing a value failed: it says what can't be done. Nothing is left behind.

        Its cause is set here: what says enough by itself, Ctrl-C or an exception of the user's, has none.
        """
        written = 0
        if stage is not None:
            written = stage.size_so_far()
            stage.discard()
        told = self._in_words(what, error, written, value)
        if told is not error:
            told.__cause__ = error
        return told

    def _in_words(self, what: str, error: BaseException, written: int, value: object) -> BaseException:
        if isinstance(error, OSError) and not isinstance(error, PyplantxError):
            root, wanted = self._session.layout.root, getattr(value, "nbytes", None)
            return disk_error(error, what, root, written, wanted if isinstance(wanted, int) else None)
        if isinstance(error, _ENDS) and value is not None and is_answer(error):
            own = f"to look at the value, a {type(value).__qualname__}, raises {type(error).__name__}"
            return CannotStore(own, hint="send what it holds, without the object that raises this").within(what)
        return error.within(what) if isinstance(error, _TOLD_WITH_ITS_NAME) else error

    def publish(self, spec: IngredientTypeSpec, stage: StagedObject, written: Written) -> ObjectRef:
        """Seal what a spec has written and make it available; bytes that the store has already are kept."""
        tiny = stage.tiny(spec.name, spec.version, written)
        if tiny is not None:
            return tiny
        sealed = stage.seal(spec.name, spec.version, written)
        stillness = self._session.stillness
        try:
            stillness.begin_storing()
            self._keep(stage, sealed)
        finally:
            stillness.end_storing()
        address, record, _ = sealed
        return ObjectRef(record.spec, record.version, record.digest, address, record.size, record.meta)

    def _keep(self, stage: StagedObject, sealed: Sealed) -> None:
        address, record, payload = sealed
        committer, passing = self._session.committer, self._user in self._session.stillness.active
        if self._has_whole(address):
            stage.discard()
            if not passing:
                committer.keep_unnamed(address)
            return
        if record.home == IN_FILES:
            self._session.objects.publish(stage, sealed)
        committer.hold(address, record, payload, passing=passing)
        self._session.added += record.size

    def _has_whole(self, address: Digest) -> bool:
        """Whether the store has these very bytes already; read back and checked, for a bad copy must not win."""
        known = self._opener.find(address)
        if known is None:
            return False
        if known[0].home == IN_FILES:
            whole = self._session.objects.is_whole(address, known[0])
            if not whole:
                self._session.objects.quarantine(address)
            return whole
        return self._opener.memory_parts(address, *known) is not None
