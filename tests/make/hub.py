"""Settings of a JupyterHub, run in a container beside the labs that a test starts for it with the environment it gives.

There is no proxy: the test asks the labs themselves.
"""

import json
from pathlib import Path
from typing import Any

from jupyterhub.proxy import Proxy
from jupyterhub.spawner import Spawner

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821


class Outside(Spawner):  # type: ignore[misc]  # jupyterhub is not there where types are checked
    """Tells the test what a user's server is to know, and expects it at the name lab."""

    stopped = True

    async def start(self) -> tuple[str, int]:
        """Write the server's environment for the test."""
        self.stopped = False
        Path("/tmp/environment.json").write_text(json.dumps(self.get_env()))
        return "lab", 8888

    async def poll(self) -> int | None:
        """Take the server for running, until it is stopped."""
        return 0 if self.stopped else None

    async def stop(self, now: bool = False) -> None:
        """Leave it to the test."""
        self.stopped = True


class NoProxy(Proxy):  # type: ignore[misc]
    """Knows no route."""

    should_start = False

    async def add_route(self, routespec: str, target: str, data: object) -> None:
        """Forget a route."""

    async def delete_route(self, routespec: str) -> None:
        """Forget it once more."""

    async def get_all_routes(self) -> dict[str, object]:
        """None."""
        return {}


c.JupyterHub.spawner_class = Outside
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = "hub"
c.JupyterHub.db_url = "sqlite:////tmp/hub.sqlite"
c.JupyterHub.cookie_secret_file = "/tmp/cookie_secret"
c.JupyterHub.services = [{"name": "test", "api_token": "0123456789abcdef0123456789abcdef"}]
c.JupyterHub.load_roles = [
    {"name": "tester", "services": ["test"], "scopes": ["admin:users", "admin:servers", "access:servers", "tokens"]}
]
c.Authenticator.allow_all = True
c.Spawner.ip = "0.0.0.0"
c.Spawner.port = 8888
c.Spawner.http_timeout = 120  # seconds, on a busy machine
