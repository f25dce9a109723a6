"""Times functions that train and call one another, by number of functions and of calls in each."""

from __future__ import annotations

import argparse
import sys
import time

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.settings import Settings
from tests.test_generated import recursive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", type=int, nargs="+", default=[125, 250, 500])
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 2, 6])
    arguments = parser.parse_args()
    codes = Settings().enabled_codes()
    check_text(recursive(2, 1), "x.py", codes)  # imports
    for functions in arguments.functions:
        for calls in arguments.calls:
            source = recursive(functions, calls)
            start = time.process_time()
            check_text(source, "x.py", codes)
            seconds = time.process_time() - start
            sys.stdout.write(f"{functions:5} functions, {calls} calls each, {len(source):7} characters: {seconds:.2f} s\n")


if __name__ == "__main__":
    main()
