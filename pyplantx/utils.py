"""Export and load: ingredients in a directory of their own, for another program or another machine.

Such a directory is a small store; ``specs/warehouse`` says how to read it without pyplantx.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pyplantx.basics.given import check_texts, refusal
from pyplantx.errors import NoProducer, did_you_mean
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.waiting import Commit
from pyplantx.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    from pyplantx.plant import Plant

_EXPORTER = "pyplantx:export"
_NAMED = 10  #: names of ingredients in a hint


def store_ingredients_to_dir(plant: Plant, names: Iterable[str], directory: str | os.PathLike[str]) -> None:
    """Copy ingredients into a directory.

    Parameters
    ----------
    plant : Plant
        Where they are; nothing is run, see `Plant.fetch_ingredient`.
    names : iterable of str
        Names of the ingredients.
    directory : str or PathLike
        Made if it is not there; ingredients that it holds under other names are kept.

    Raises
    ------
    NoProducer
        If an ingredient is not stored.
    """
    _check_plant(plant)
    found = [(name, plant.find_ingredient(name)) for name in _listed(names)]  # before the directory is made
    with Warehouse(directory) as target:
        target.register_ingredient_specs(plant.warehouse.registry.added())
        sent = [(name, target.store(name, plant.warehouse.open(ref), ref.spec)) for name, ref in found]
        target.commit(Commit(_EXPORTER, hash_text(_EXPORTER), [], sent, None, None), None)


def store_reactor_inputs_to_dir(plant: Plant, reactor: Any, directory: str | os.PathLike[str]) -> None:
    """Copy what a reactor received in its last run into a directory.

    Parameters
    ----------
    plant : Plant
    reactor : Reactor or str
        The reactor or its name.
    directory : str or PathLike
        As in `store_ingredients_to_dir`.
    """
    _check_plant(plant)
    store_ingredients_to_dir(plant, plant.inputs_of(reactor), directory)


def load_ingredients_from_dir(
    directory: str | os.PathLike[str], names: Iterable[str] | None = None, logger: Any = None, specs: Iterable[Any] = ()
) -> dict[str, Any]:
    """Load what `store_ingredients_to_dir` wrote.

    Parameters
    ----------
    directory : str or PathLike
        The directory.
    names : iterable of str, optional
        Which ingredients; all if not given.
    logger : logging.Logger, optional
        Accepted for those who come from PyPlant.
    specs : iterable of IngredientTypeSpec, optional
        Types of your own that are needed to read it.

    Returns
    -------
    dict
        Name to value.

    Raises
    ------
    NoProducer
        If one of `names` is not there.
    WarehouseError
        If the directory is not one that `store_ingredients_to_dir` has made. Nothing is written to it.
    """
    listed = None if names is None else _listed(names)
    with Warehouse(directory, read_only=True) as source:
        source.register_ingredient_specs(specs)
        return {name: _load(source, name) for name in (list(source.names()) if listed is None else listed)}


def _check_plant(plant: Any) -> None:
    if not hasattr(plant, "find_ingredient"):
        raise refusal("a plant", plant, "utils.store_ingredients_to_dir(plant, ['metrics'], 'for-them')")


def _listed(names: Iterable[str]) -> tuple[str, ...]:
    return check_texts("names of ingredients", names, "['metrics', 'model']")


def _load(source: Warehouse, name: str) -> Any:
    ref = source.last_ref(name)
    if ref is None:
        raise NoProducer(f"no ingredient {name!r} in {source.directory}", hint=_what_there_is(source, name))
    return source.open(ref)


def _what_there_is(source: Warehouse, name: str) -> str:
    names = sorted(source.names())
    more = ", ..." if len(names) > _NAMED else ""
    return did_you_mean(name, names, most=3) or f"there are: {', '.join(map(repr, names[:_NAMED]))}{more}"
