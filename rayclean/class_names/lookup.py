"""The names of a label set, to look values up."""

import difflib
from collections.abc import Sequence

from rayclean.class_names.near import near_keys
from rayclean.class_names.spelling import class_key, visible
from rayclean.errors import ConfigError

_NAMES_SHOWN = 50
"""Most names that a message lists."""


class ClassNames:
    """The names of a label set, looked up by what they mean.

    Args:
        names: [K], no two of one `class_key`.
        merge: whether values that are near a name (`near_keys`) are that class.
    """

    def __init__(self, names: Sequence[str], merge: bool = False):
        self.names = list(names)
        self.merge = merge
        self._by_key: dict[str, int] = {}
        self._near: dict[tuple[int, str], set[int]] = {}
        self._hints: dict[str, str] = {}
        for index, name in enumerate(self.names):
            self._by_key.setdefault(class_key(name), index)
            for key in enumerate(near_keys(name)):
                self._near.setdefault(key, set()).add(index)

    def index(self, value: str) -> int | None:
        """Index of the class that a value of the data names; None if it names none.

        >>> names = ClassNames(["Ham", "1"])
        >>> names.index(" Ham"), names.index("1.0"), names.index("ham")
        (0, 1, None)
        """
        found = self._by_key.get(class_key(value))
        return self.find(value) if found is None and self.merge else found

    def find(self, value: str) -> int | None:
        """Index of the class that a person means: `index`, else the only name that is near.

        >>> ClassNames(["Ham", "spam"]).find("ham"), ClassNames(["Ham", "HAM"]).find("ham")
        (0, None)
        """
        found = self._by_key.get(class_key(value))
        if found is not None:
            return found
        near = {index for key in enumerate(near_keys(value)) for index in self._near.get(key, ())}
        return near.pop() if len(near) == 1 else None

    def require(self, name: str, where: str) -> int:
        """Index of the class that a person means (`find`).

        Args:
            name: the class, as the person writes it.
            where: the option or argument that names it, for the message.

        Raises:
            ConfigError: there is no such class, or several are near.
        """
        index = self.find(name)
        if index is None:
            raise ConfigError(f"{where}: unknown label {visible(name)}; {self.hint(name)}")
        return index

    def hint(self, value: str) -> str:
        """The end of a message about a value that names no class: the nearest names, and the first of all.

        >>> ClassNames(["tech", "sports"]).hint("sprots")
        'did you mean sports? known: sports, tech'
        """
        if value not in self._hints:  # thousands of rows may hold one wrong value
            nearest = self.nearest(value)
            hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
            self._hints[value] = f"{hint}known: {', '.join(sorted(self.names)[:_NAMES_SHOWN])}"
        return self._hints[value]

    def nearest(self, value: str) -> list[str]:
        """Up to three names that a wrong value may stand for, the most similar first.

        >>> ClassNames(["sports", "tech"]).nearest("SPROTS")
        ['sports']
        """
        near = {index for key in enumerate(near_keys(value)) for index in self._near.get(key, ())}
        if near:
            return [self.names[index] for index in sorted(near)[:3]]
        by_key = {near_keys(name)[0]: name for name in reversed(self.names)}
        close = difflib.get_close_matches(near_keys(value)[0], by_key, n=3, cutoff=0.5)
        return [by_key[key] for key in close]
