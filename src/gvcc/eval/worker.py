"""`python -m gvcc.eval.worker`: the cells of a job (JSON, from stdin), a line of JSON for each on
stdout as it is finished."""

from __future__ import annotations

import dataclasses
import json
import sys

from gvcc.eval import cells


def main() -> None:
    job = cells.Job.of(json.load(sys.stdin))
    for made in cells.run(job):
        line = dataclasses.asdict(made) | {n: getattr(made, n).hex() for n in cells.BINARY}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
