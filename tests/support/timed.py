"""`beamlit` with other times than the product's own.

    python -m tests.support.timed TIMING COMMAND...

TIMING is what `written` makes of one.
"""

from __future__ import annotations

import pickle
import sys

from controller.api.timing import Timing
from controller.cli.main import main


def written(timing: Timing) -> str:
    """Write it as one argument."""
    return pickle.dumps(timing).hex()


def command(timing: Timing, *arguments: object) -> tuple[object, ...]:
    """Say how to start such a program."""
    return (sys.executable, "-m", "tests.support.timed", written(timing), *arguments)


if __name__ == "__main__":
    main(args=sys.argv[2:], prog_name="beamlit", obj=pickle.loads(bytes.fromhex(sys.argv[1])))
