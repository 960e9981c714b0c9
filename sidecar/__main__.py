"""`python -m sidecar` is `relay-sidecar`."""

import sys

from sidecar.cli import main

sys.exit(main())
