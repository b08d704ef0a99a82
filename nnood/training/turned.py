"""Stored cases, seen from another side: nothing is read but what a patch needs, nothing is stored twice."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnood.planning.storage import CaseStore
from nnood.views import View


@dataclass(frozen=True, eq=False)
class TurnedArray:
    """A stored array (C, Z, Y, X) with its axes as they are seen; slices are read when they are asked for.

    Attributes:
        array: Of NumPy or Blosc2.
        view: From where it is seen.
    """

    array: Any
    view: View

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S) as it is seen."""
        return (self.array.shape[0], *(self.array.shape[1 + axis] for axis in self.view.order))

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.array.dtype

    def __getitem__(self, where: slice | tuple[slice, ...]) -> np.ndarray:
        """Read a part.

        Args:
            where: One slice per axis, channels first; axes that are left out are read whole.
        """
        seen = [*(where if isinstance(where, tuple) else (where,)), *[slice(None)] * 4][:4]
        stored = [seen[0], *[slice(None)] * 3]
        for axis, part in zip(self.view.order, seen[1:], strict=True):
            stored[1 + axis] = part
        return np.moveaxis(self.array[tuple(stored)], 1 + self.view.axis, 1)


class TurnedStore:
    """What nnU-Net's loader needs of a store, seen from another side."""

    def __init__(self, store: CaseStore, view: View) -> None:
        """Wrap a store.

        Args:
            store: The cases.
            view: From where they are seen.
        """
        self.identifiers = store.identifiers
        self._store = store
        self._view = view

    def load_case(self, identifier: str) -> tuple[TurnedArray, TurnedArray, None, dict[str, Any]]:
        """Open a case lazily, as `CaseStore` does."""
        image, segmentation, _, properties = self._store.load_case(identifier)
        columns = [0, *(1 + axis for axis in self._view.order)]
        locations = {name: found[:, columns] for name, found in properties["class_locations"].items()}
        turned = TurnedArray(image, self._view), TurnedArray(segmentation, self._view)
        return *turned, None, {**properties, "class_locations": locations}


def seen_from(store: CaseStore, view: View) -> CaseStore | TurnedStore:
    """The store as a view sees it: the store itself from the front."""
    return TurnedStore(store, view) if view.axis else store
