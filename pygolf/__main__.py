"""`python -m pygolf`, and the entry for `torchrun -m pygolf`."""

from pygolf.cli import main

main()
