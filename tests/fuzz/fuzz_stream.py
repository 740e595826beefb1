"""Coverage-guided fuzzing of parse and decode, by hand (atheris is in no extra: pip install it):

    python tests/fuzz/fuzz_stream.py -max_total_time=120 -max_len=2048

The check is that of tests/test_fuzz.py. An input's last byte chooses whether its checksums are
repaired. Starts from the valid vectors; new inputs go to the folders given, crashes to here.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["gvcc"]):  # the first import of gvcc must be here
    import faulty_vectors
    import test_fuzz

seen: Counter[str] = Counter()


def one_input(data: bytes) -> None:
    data, choice = data[:-1], data[-1:]
    if choice and choice[0] % 4:
        data = faulty_vectors.repair(data)
    seen[test_fuzz.guarded(data, 2**31)] += 1
    if sum(seen.values()) % 2000 == 0:
        print(dict(seen), file=sys.stderr, flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for i, vector in enumerate(test_fuzz.VECTORS):
            (Path(corpus) / str(i)).write_bytes(vector + b"\1")
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
