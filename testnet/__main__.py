"""`python -m testnet`: what ./testnet/run runs."""

import sys

from testnet.cli import main

sys.exit(main(sys.argv[1:]))
