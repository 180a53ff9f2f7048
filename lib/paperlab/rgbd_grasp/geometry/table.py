"""What grasps and rectangles share: a row of numbers with names, and a group of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Floats, floats


class Row:
    """A row of `length` numbers, some of which have names."""

    length: ClassVar[int]

    def __init__(self, array: ArrayLike) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{type(self).__name__}: got {type(array).__name__}, needs a numpy array")
        self._array = floats(type(self).__name__, array, self.length).copy()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{value:.4g}' for value in self._array)})"


def named(index: int, doc: str, kind: Callable[[Any], Any] = float) -> Any:
    """Return a property of `Row` that reads and sets one number."""

    def get(self: Row) -> Any:
        return kind(self._array[index])

    def put(self: Row, value: float) -> None:
        self._array[index] = value

    return property(get, put, doc=doc)


def column(index: int | slice, doc: str) -> Any:
    """Return a property of `Table` that reads and sets one column, or several."""

    def get(self: Table[Any]) -> Floats:
        return self._array[:, index]

    def put(self: Table[Any], value: ArrayLike) -> None:
        self._array[:, index] = floats(doc, value, *self._array[:, index].shape)

    return property(get, put, doc=doc)


R = TypeVar("R", bound=Row)


class Table(Generic[R]):
    """Rows (N, length) of numbers; an array that is given is shared, not copied."""

    length: ClassVar[int]
    score_column: ClassVar[int]
    row_type: ClassVar[type[Row]]

    def __init__(self, array: ArrayLike | str | PathLike[str] | None = None) -> None:
        if isinstance(array, str | PathLike):
            self.from_npy(array)
        elif array is None or isinstance(array, np.ndarray):
            empty = np.zeros((0, self.length))
            self._array = floats(type(self).__name__, empty if array is None else array, None, self.length)
        else:
            raise TypeError(f"{type(self).__name__}: got {type(array).__name__}, needs a numpy array or a file name")

    def __len__(self) -> int:
        return len(self._array)

    def __repr__(self) -> str:
        shown = [repr(self[i]) for i in range(min(len(self), 6))]
        return "\n  ".join([f"{type(self).__name__} of {len(self)}", *shown, *(["..."] if len(self) > 6 else [])])

    def __iter__(self) -> Iterator[R]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> R: ...
    @overload
    def __getitem__(self, index: slice | list[int] | np.ndarray) -> Self: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self.row_type(self._array[index])
        if isinstance(index, slice | list | np.ndarray):
            return type(self)(self._array[index].copy())
        raise TypeError(f"{type(self).__name__}: got index {index!r}, needs an int, slice, list or array")

    def add(self, element: R | Self) -> Self:
        """Append a row or a group, in place, and return the group."""
        if not isinstance(element, self.row_type | type(self)):
            raise TypeError(f"add: got {type(element).__name__}, needs {self.row_type.__name__} or a group of them")
        self._array = np.concatenate([self._array, element._array.reshape(-1, self.length)])
        return self

    def remove(self, index: int | list[int] | np.ndarray) -> Self:
        """Delete rows, in place, and return the group."""
        self._array = np.delete(self._array, index, axis=0)
        return self

    def sort_by_score(self, reverse: bool = False) -> Self:
        """Sort by score, in place, and return the group: best first, or last if `reverse`; ties keep their order."""
        score = self._array[:, self.score_column]
        self._array = self._array[np.argsort(score if reverse else -score, kind="stable")]
        return self

    def random_sample(self, numGrasp: int = 20, rng: np.random.Generator | None = None) -> Self:
        """Return `numGrasp` different rows; raises ValueError where there are fewer."""
        if numGrasp > len(self):
            raise ValueError(f"numGrasp: got {numGrasp}, the group has {len(self)}")
        return self[(rng or np.random.default_rng()).permutation(len(self))[:numGrasp]]

    def from_npy(self, npy_file_path: str | PathLike[str]) -> Self:
        """Read the rows of a `.npy` file into this group and return it; pickled data is refused with ValueError."""
        try:
            loaded = np.load(npy_file_path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{npy_file_path}: {error}; needs a plain .npy array (N, {self.length})") from None
        self._array = floats(str(npy_file_path), loaded, None, self.length)
        return self

    def save_npy(self, npy_file_path: str | PathLike[str]) -> None:
        """Write the rows to a `.npy` file."""
        np.save(npy_file_path, self._array, allow_pickle=False)
