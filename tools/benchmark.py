"""`fsmis_components.commands.benchmark` as a script of the repository."""

import sys

from fsmis_components.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
