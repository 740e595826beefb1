"""The coders: how the symbols of a step name its noise. One row each; adding a coder is one file in
decode/ and one row here, from which header, trajectory and configuration read."""

from __future__ import annotations

from typing import NamedTuple

MOST_OF_SUBSET = 4096  # atoms of one subset: ranking more would take a decoder too long
_MOST_SIZE, _MOST_SEED = 2**16, 2**64 - 1


class Row(NamedTuple):
    """A coder: its class as "module:name"; the least and most K that a header may have, both 0 for
    one without, and the usual one; the most atoms of a frame-step; and what it goes with."""

    name: str
    made_by: str
    least_size: int
    most_size: int
    usual_size: int = 0
    powers_of_two: bool = False
    most_atoms: int = 2**16
    most_seed: int = _MOST_SEED
    rules: tuple[str, ...] = ("em", "ou", "posterior")
    allocations: tuple[str, ...] = ("uniform", "matched")

    def has_size(self, size: int) -> bool:
        """Whether K may be `size`."""
        fits = not (self.powers_of_two and size & (size - 1))
        return fits and self.least_size <= size <= self.most_size

    def atoms_within(self, size: int) -> int:
        """The most atoms of a frame-step at K = `size`."""
        return min(size, self.most_atoms) if self.most_size else self.most_atoms


# Positions are the numbers in the file; only ever append.
TABLE = (
    Row("gaussian", "gvcc.decode.codebook:Gaussian", 1, _MOST_SIZE, 16384,
        most_atoms=MOST_OF_SUBSET, most_seed=2**31 - 1),
    Row("hadamard", "gvcc.decode.codebook:Hadamard", 0, 0),
    # 12 bits of information in a chunk's candidates, and two to spare.
    Row("rcc", "gvcc.decode.rcc:Rcc", 16, _MOST_SIZE, 2**14, powers_of_two=True,
        rules=("posterior",), allocations=("matched",)),
    Row("gaussian-counter", "gvcc.decode.counter:CounterGaussian", 1, _MOST_SIZE, 16384,
        most_atoms=MOST_OF_SUBSET),
)  # fmt: skip
NAMES = tuple(row.name for row in TABLE)


def row(name: str) -> Row:
    """The row of a coder that is in the table."""
    return TABLE[NAMES.index(name)]
