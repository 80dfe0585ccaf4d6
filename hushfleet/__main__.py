"""`python -m hushfleet` is the command `hushfleet`."""

from hushfleet.cli import main

if __name__ == "__main__":
    main()
