"""`fsmis_components.commands.suggest_support` as a script of the repository."""

import sys

from fsmis_components.commands.suggest_support import main

if __name__ == "__main__":
    sys.exit(main())
