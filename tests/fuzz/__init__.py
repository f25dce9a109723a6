"""Fuzzers: programs that nobody would write, read by the analyzer and mended by the fixes, which must neither fail nor hang nor lie.

`oracles` says what must hold, `judge` asks in a process of its own, `mutations` and `generated` make inputs, `coverage` has them led by
what they reach, and `minimise` makes what fails short. `python -m tests.fuzz --help` runs them for longer than the tests do.
"""
