"""`python -m workpool` is the command `workpool`."""

from workpool.cli import main

main()
