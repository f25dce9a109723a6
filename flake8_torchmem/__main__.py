"""`python -m flake8_torchmem` is the `torchmem` command."""

import os
import sys

# Python puts the working folder in front, which may be the one under check: nothing more is imported from there, unless we come from it.
if not getattr(sys.flags, "safe_path", False) and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
    del sys.path[0]

from flake8_torchmem.cli import main

if __name__ == "__main__":
    main()
