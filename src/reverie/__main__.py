"""`python -m reverie` is the command `reverie`."""

import sys

from reverie.cli.main import main

sys.exit(main())
