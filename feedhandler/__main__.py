"""`python -m feedhandler` is the command `feedhandler`."""

import sys

from feedhandler.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
