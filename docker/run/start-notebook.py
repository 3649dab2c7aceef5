#!/opt/venv/bin/python -P
"""Be JupyterLab, with whatever arguments follow: in this very process, since every Python more takes time to start."""

import sys

from jupyterlab.labapp import main

sys.argv[0] = "jupyter-lab"
sys.exit(main())
