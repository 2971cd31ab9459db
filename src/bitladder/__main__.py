"""`python -m bitladder` is the command `bitladder`."""

import sys

from bitladder.cli import main

sys.exit(main())
