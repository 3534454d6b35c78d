"""Whole numbers in a label column: names of classes, or positions in `dataset.labels`, counted from 0 or from 1.

Taken for the wrong one, every row gets the name of another class and nothing looks amiss. So numbers are positions only where
that is said, and wherever they may count from 1 the load stops and asks.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from rayclean.class_names import class_key, is_number, is_numeric
from rayclean.errors import DataError

_SHOWN = 4

MAX_FRACTIONS = 100
"""Most classes that may be numbers with a fraction, like ratings in half steps."""


@dataclass(frozen=True)
class PositionRule:
    """When the whole numbers of a column are positions in the label set, and from what they count."""

    names: tuple[str, ...]
    """The names in the order of their numbers: `dataset.labels`, or what the files give, which may be more than the classes."""
    named: bool
    """Whether `dataset.labels` or the files name it; otherwise numbers are names themselves."""
    first_label: int | None
    """`dataset.first_label`: the number of the first name; None: 0, unless the numbers say otherwise."""
    is_known: bool = False
    """Whether another column has shown that numbers count from 0."""
    others: tuple[tuple[str, ...], ...] = ()
    """Other orders of the names, where files number them otherwise than `dataset.labels` or than each other."""

    def apply_to(self, keys: Collection[str]) -> bool:
        """Whether a column of these class keys holds positions: numbers only, none of which is a name."""
        if not self.named or not keys or not all(map(is_number, keys)):
            return False
        by_name = {class_key(name) for name in self.names}
        return not all(map(is_number, by_name)) and by_name.isdisjoint(keys)

    def check_order(self, numbers: Iterable[int], first: int, column: str) -> None:
        """Stop where one of the numbers has different names in the orders that are known.

        Args:
            numbers: all positions that a column holds.
            first: the number of the first name.
            column: for messages.

        Raises:
            DataError: there is such a number; the message shows its names.
        """
        for number in sorted(set(numbers)):
            place = number - first
            found = {
                class_key(names[place]): names[place]
                for names in (self.names, *self.others)
                if 0 <= place < len(names)
            }
            if len(found) > 1:
                raise DataError(
                    f"{column} holds whole numbers without names, and names are numbered in different ways: {number} is "
                    f"{' or '.join(map(repr, found.values()))}, by the order of dataset.labels or of the names in the files. "
                    "Write the names themselves into that column, or give all files names in one order"
                )

    def first(self, numbers: Iterable[int], column: str) -> int:
        """The number of the first name.

        Args:
            numbers: all positions that a column holds.
            column: for messages.

        Raises:
            DataError: the numbers seem to count from 1, or may do so.
        """
        if self.first_label is not None:
            return self.first_label
        held, size = set(numbers), len(self.names)
        if size in held and 0 not in held:
            raise DataError(
                self._question(
                    column, f"from {min(held)} to {max(held)}, never 0", "if they count from 1, or 0 if not"
                )
            )
        if held.issuperset(range(size + 1)):
            raise DataError(
                self._question(
                    column,
                    f"from {min(held)} to {max(held)}, which are {size + 1} classes or more",
                    'and dataset.unlabelled = [0] if 0 means "no label" and the classes count from 1; otherwise name all classes '
                    f"in dataset.labels, or list {size} in dataset.unlabelled",
                )
            )
        if not self.is_known and held & set(range(size)) and 0 not in held:
            raise DataError(
                self._question(column, f"neither 0 nor {size}", "or 0, whichever they count from")
            )
        return 0

    def _question(self, column: str, held: str, answer: str) -> str:
        names, size = self.names, len(self.names)
        from_zero = [f"{number} is {names[number]!r}" for number in range(1, min(size, _SHOWN))]
        from_one = [f"{number} is {names[number - 1]!r}" for number in range(1, min(size, _SHOWN) + 1)]
        return (
            f"{column} holds whole numbers, {held}, and the label set has {size} names. Counted from 0, "
            f"{', '.join(from_zero)}, and {size} is no class; counted from 1, {', '.join(from_one)}. "
            f"Set dataset.first_label = 1 {answer}"
        )


def check_shift(names: Iterable[str], keys: Collection[str], column: str) -> None:
    """Stop where classes are numbers without a gap, and another column counts them from one more or one less.

    Args:
        names: of the label set.
        keys: class keys of all values of the column.
        column: for messages.

    Raises:
        DataError: the column holds the number behind the last or before the first class, and lacks the class at the other end.
    """
    known = [class_key(name) for name in names]
    if len(known) < 2 or not all(map(is_number, known)):
        return
    numbers = sorted(map(int, known))
    first, last = numbers[0], numbers[-1]
    held = {int(key) for key in keys if is_number(key)}
    up, down = last + 1 in held and first not in held, first - 1 in held - {-1} and last not in held
    if numbers == list(range(first, last + 1)) and up != down:
        raise DataError(
            f"{column} holds whole numbers from {min(held)} to {max(held)}, and the classes are {first} to {last}, as if one "
            "counted from 0 and the other from 1: then every row would have the name of another class. Count from the same "
            f"number everywhere; if {last + 1 if up else first - 1} is another class, list it in dataset.unlabelled to leave its "
            "rows out"
        )


def check_measure(keys: Collection[str]) -> None:
    """Stop at a column of numbers that measure something, such as prices.

    Args:
        keys: class keys of all values of the label column.

    Raises:
        DataError: there are more than `MAX_FRACTIONS` numbers, some of them with a fraction.
    """
    fractions = sorted(key for key in keys if is_numeric(key) and "." in key)
    if fractions and len(keys) > MAX_FRACTIONS and all(map(is_numeric, keys)):
        raise DataError(
            f"the label column holds {len(keys):,} different numbers, some with a fraction ({', '.join(fractions[:_SHOWN])}): "
            "that is a measure, and classification needs classes. Check dataset.label; if they are classes, name them in "
            "dataset.labels"
        )


def check_numbers_and_names(keys: Collection[str]) -> None:
    """Stop where the classes of a data set are numbers and names that seem to stand for each other.

    Args:
        keys: class keys of all values of the label column.

    Raises:
        DataError: the numbers count from 0 or 1 without a gap, and there are as many names or more.
    """
    numbers = sorted((key for key in keys if is_number(key)), key=int)
    names = sorted(key for key in keys if not is_numeric(key))
    counted = [int(number) for number in numbers]
    if len(counted) < 2 or len(counted) > len(names):
        return
    if counted[0] in (0, 1) and counted == list(range(counted[0], counted[0] + len(counted))):
        raise DataError(
            f"the label column mixes numbers ({', '.join(numbers[:_SHOWN])}) and names "
            f"({', '.join(map(repr, names[:_SHOWN]))}), as if some files wrote the number of a class where others write its "
            "name. Write one kind everywhere; if all of them are classes of their own, name them all in dataset.labels"
        )
