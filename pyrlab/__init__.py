"""What make does on the host: build the images, run the labs, say what is wrong. Standard library only."""

import sys

# Every Python 3 understands this file, and reads it before any other of the package.
if sys.version_info < (3, 11):  # noqa: UP036
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        "pyrlab: pyrlab needs Python 3.11 or later; this is " + found + " (" + sys.executable + "); "
        "install a later one, or put it before this one on PATH"
    )
