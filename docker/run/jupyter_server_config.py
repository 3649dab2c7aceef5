"""Settings of the Jupyter server in every image; a user's own in ~/.jupyter come after these."""

import os
from pathlib import Path
from typing import Any

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821

c.ServerApp.ip = "0.0.0.0"  # inside the container; who may reach it is decided by the published port
c.ServerApp.port = int(os.environ.get("JUPYTER_PORT", "8888"))
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True  # a rootless engine maps the user who started the lab to root
c.ServerApp.tornado_settings = {"ws_ping_timeout": 30_000}  # tornado warns of the server's own, longer one
c.ServerApp.root_dir = str(Path.home())
c.FileContentsManager.preferred_dir = "work"  # the file browser opens there
c.FileContentsManager.delete_to_trash = False  # nobody empties a trash folder in a container
