"""`python -m kerasgen`: the command line, where no script `kerasgen` is on the path."""

from __future__ import annotations

import sys

from kerasgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
