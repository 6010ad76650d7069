"""Fits a mixture to a file of points, from the command line.

python -m tgmm_jax fit points.csv --components 3 --output fit.json
python -m tgmm_jax networks
"""

import sys

from tgmm_jax.command_line import main

if __name__ == "__main__":
  sys.exit(main())
