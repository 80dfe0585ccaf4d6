"""`python -m hushfleet` is the command `hushfleet`."""

from hushfleet.cli import main

main()
