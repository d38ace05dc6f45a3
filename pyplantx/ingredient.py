"""`Ingredient.Type`: the names by which scripts choose how an ingredient is stored."""

from __future__ import annotations

from enum import Enum


class IngredientType(Enum):
    """The built-in kinds of ingredient. A member's value is the name of its spec.

    Extensions (`specs.HdfArraySpec`, ...) are named by their class instead.
    """

    simple = "simple"  #: None, bool, int, float, complex, str or bytes
    list = "list"  #: a list of simple values and of such lists
    object = "object"  #: anything that can be pickled
    array = "array"  #: a NumPy array
    file = "file"  #: a file, received as a path


class Ingredient:
    """Namespace of what scripts say about an ingredient: ``pipe.send('x', value, Ingredient.Type.array)``."""

    Type = IngredientType
