"""`python -m flake8_torchmem` is the `torchmem` command."""

from flake8_torchmem.cli import main

if __name__ == "__main__":
    main()
