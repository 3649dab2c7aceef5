#!/opt/venv/bin/python
"""Start JupyterLab in place of this process, with whatever arguments follow."""

import os
import sys

command = ["jupyter", "lab", *sys.argv[1:]]
os.execvp(command[0], command)
