"""Settings of the Jupyter server in every image; a user's own in ~/.jupyter come after these."""

import logging
import os
import re
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pyrlab_memory
from jupyter_core.paths import jupyter_data_dir
from jupyter_server import serverapp
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from traitlets import default

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821


class Files(AsyncLargeFileManager):  # type: ignore[misc]  # jupyter_server has no types here
    """The notebooks; the file browser opens in the folder work, where there is one."""

    @default("preferred_dir")
    def _default_preferred_dir(self) -> str:
        return super()._default_preferred_dir() or ("work" if Path(self.root_dir, "work").is_dir() else "")


def has_ipv6() -> bool:
    """Whether others can reach the container at an address of IPv6."""
    addresses = Path("/proc/net/if_inet6")
    lines = addresses.read_text().splitlines() if addresses.exists() else []
    return any(not line.startswith("fe80") and not line.endswith(" lo") for line in lines)


# Inside the container; who may reach it is decided by the published port. "" is IPv4 and IPv6, and a warning.
c.ServerApp.ip = "" if has_ipv6() else "0.0.0.0"
port = os.environ.get("JUPYTER_PORT", "")
c.ServerApp.port = int(port) if port.isdecimal() else 8888  # a cluster with a service jupyter sets it to tcp://…
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True  # a rootless engine maps the user who started the lab to root
# Tornado warns, once, that the server waits longer than 30 s for the answer to a ping; less would close what is idle.
logging.getLogger("tornado.general").addFilter(lambda record: "websocket_ping_timeout" not in record.getMessage())
c.ServerApp.contents_manager_class = Files
c.FileContentsManager.delete_to_trash = False  # nobody empties a trash folder in a container

# The server's default, not a setting: that would hold with --gateway-url, too, whose kernels run elsewhere.
serverapp.ZMQChannelsWebsocketConnection = pyrlab_memory.Connection
if limit := pyrlab_memory.amount(pyrlab_memory.LIMIT):
    c.ResourceUseDisplay.mem_limit = limit
c.ResourceUseDisplay.enable_prometheus_metrics = False  # every second, for 2 % of a processor in each idle lab
warnings.filterwarnings("ignore", "date_default is deprecated")  # by jupyter-resource-usage, which uses it

if os.environ.get("NB_PREFIX"):  # Kubeflow has asked who it is, and shows the lab in a frame
    c.ServerApp.base_url = os.environ["NB_PREFIX"]
    c.ServerApp.allow_origin = "*"
    if "JUPYTER_TOKEN" not in os.environ:
        c.IdentityProvider.token = ""

if "GEN_CERT" in os.environ:
    certificate = Path(jupyter_data_dir(), "notebook.pem")
    certificate.parent.mkdir(parents=True, exist_ok=True)
    certificate.touch(mode=0o600)
    request = ["openssl", "req", "-x509", "-newkey=rsa:2048", "-days=365", "-nodes", "-subj=/O=generated/CN=generated"]
    subprocess.run([*request, f"-keyout={certificate}", f"-out={certificate}"], check=True, capture_output=True)
    c.ServerApp.certfile = str(certificate)

if umask := os.environ.get("NB_UMASK"):
    if not re.fullmatch("[0-7]{1,4}", umask):  # an error here would cost all that is set above
        logging.getLogger("ServerApp").warning("NB_UMASK=%s is no umask, as 002 is.", umask)
    else:
        os.umask(int(umask, 8))
