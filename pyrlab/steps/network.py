#!/usr/bin/env python3
"""Go online from a build step: through which proxies, to which index, trusting which certificates.

network.py run COMMAND …   run a command that goes online; where a proxy is to blame for its failure, say so
network.py bootstrap COMMAND …   the same of one whose own apt takes nothing but a proxy of the environment
network.py explain         say so of a command whose last words are on standard input, as for the bootstrap
network.py check           say what is wrong with the proxies before anything goes through them
network.py index           print, as JSON, the variables with which pip and uv find PIPPROXY

A step finds the parameters in a BuildKit secret, which enters no layer and is no part of what a step is cached
by: another proxy repeats no step and changes no image. Elsewhere they are in the environment.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request

from pyrlab.model import events
from pyrlab.model.problem import Problem
from pyrlab.model.proxies import ADDRESSES, PARAMETERS, PROXIES, REPOSITORIES

SECRET = Path("/run/secrets/network")
CA = Path("/run/secrets/ca")  # the certificates to trust, in one file
TRUST = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
APT = Path("/etc/apt")
# What apt does is the same on every Python image: the image's own settings, which in a registry's empty the cache mount
# after each run, are left out. A build step that is cut short is thrown away whole, so syncing its files buys nothing.
APT_SETTINGS = [
    'Dir::Etc::Main "/dev/null"',
    'Dir::Etc::Parts "/dev/null"',
    'Acquire::Languages "none"',
    'Acquire::Retries "3"',
    'APT::Install-Recommends "false"',
    'APT::Keep-Downloaded-Packages "true"',
    'Dpkg::Options:: "--force-unsafe-io"',
    'Dpkg::Use-Pty "0"',
]
Run = subprocess.CompletedProcess[str]
MEMORY = Path("/dev/shm")  # what may hold a password is not even in the build cache


def has_authority() -> bool:
    """Whether there are certificates to trust; an empty file has none."""
    return CA.exists() and CA.stat().st_size > 0


@functools.cache
def secret() -> dict[str, str]:
    """What the build step was given, if this is one."""
    return dict(json.loads(SECRET.read_text() or "{}")) if SECRET.exists() else {}


@functools.cache
def parameters() -> dict[str, str]:
    """The parameters that are set, by name."""
    given = secret() if SECRET.exists() else os.environ
    return {name: given[name] for name in PARAMETERS if given.get(name)}


def connect() -> None:
    """Give this process, and all that it runs, an environment with which apt, pip, uv, R, git and curl get online."""
    for name in PROXIES:
        if value := parameters().get(name):
            os.environ |= {name: value, name.upper(): value}
    if has_authority():
        os.environ |= dict.fromkeys(TRUST, str(CA))
    if index := index_settings():
        os.environ |= {**index, "UV_HTTP_TIMEOUT": "120"}  # seconds; a cache fetches before it answers
    os.environ |= {name: secret()[name] for name in REPOSITORIES if name in secret()}
    if "netrc" in secret():  # users and passwords of the addresses in requirements.txt
        netrc = MEMORY / "pyrlab-netrc"
        netrc.touch(0o600)
        netrc.write_text(secret()["netrc"])
        os.environ["NETRC"] = str(netrc)
    config = MEMORY / "pyrlab-apt.conf"
    config.write_text("".join(f"{line};\n" for line in [*APT_SETTINGS, *apt_settings()]))
    os.environ["APT_CONFIG"] = str(config)


def index_settings() -> dict[str, str]:
    """The variables that tell pip and uv of PIPPROXY."""
    given = parameters()
    if "PIPPROXY" not in given:
        return {}
    index = index_url(given["PIPPROXY"])
    found = {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}
    if host := given.get("PIPHOST") or (urlsplit(index).hostname if index.startswith("http:") else ""):
        found |= {"PIP_TRUSTED_HOST": host, "UV_INSECURE_HOST": host}
    return found


def apt_settings() -> list[str]:
    """What apt must know of the proxy and the certificates, in the form of its configuration."""
    settings = [f'Acquire::https::CAInfo "{CA}"'] if has_authority() else []
    if proxy := parameters().get("APTPROXY"):
        settings += [f'Acquire::{kind}::Proxy "{proxy}"' for kind in ("http", "https")]
        files = [path for path in [APT / "sources.list", *(APT / "sources.list.d").iterdir()] if path.is_file()]
        sources = {path.name: path.read_text() for path in files}
        if any("https://" in text for text in sources.values()) and is_apt_cacher(proxy):
            # apt-cacher-ng by default lets no TLS through, but fetches over TLS what is asked for like this.
            folder = MEMORY / "sources.list.d"
            folder.mkdir(exist_ok=True)
            for name, text in sources.items():
                (folder / name).write_text(text.replace("https://", "http://HTTPS///"))
            settings += ['Dir::Etc::SourceList "/dev/null"', f'Dir::Etc::SourceParts "{folder}"']
    return settings


def is_apt_cacher(proxy: str) -> bool:
    """Whether the server at the address `proxy` is apt-cacher-ng, which says so on its own page."""
    try:
        fetch(proxy, {})
    except HTTPError as error:
        return b"Apt-Cacher" in error.read()
    except OSError:
        pass
    return False


@functools.cache
def index_url(root: str) -> str:
    """The package index that PIPPROXY means: of a devpi server its mirror of the Python index, else the URL itself."""
    root = root.rstrip("/")
    try:
        devpi = json.loads(fetch(f"{root}/+api"))
        if devpi["type"] != "apiconfig":
            return root
        return f"{root}/+simple/" if "simpleindex" in devpi["result"] else f"{root}/root/pypi/+simple/"
    except (OSError, ValueError, KeyError, TypeError):
        return root


class Redirects(urllib.request.HTTPRedirectHandler):
    """Goes where a server sends it, and tells the password to no other host, nor to anybody on the way."""

    def redirect_request(self, req: Request, *about: Any) -> Request | None:
        """The request to make next."""
        found = super().redirect_request(req, *about)
        there, here = (urlsplit(each.full_url) for each in (found or req, req))
        if found and (there.netloc != here.netloc or (here.scheme, there.scheme) == ("https", "http")):
            found.remove_header("Authorization")
        return found


def fetch(url: str, proxies: dict[str, str] | None = None, agent: str = "pyrlab", timeout: float = 20) -> bytes:
    """The content at `url`, through `proxies` by scheme or those of the environment; raises OSError.

    Gives up where nothing comes for `timeout` seconds.
    """
    parts = urlsplit(url)
    trust = ssl.create_default_context(cafile=str(CA) if has_authority() else None)
    # Python alone, from 3.13 on, refuses what companies' proxies show that is not as RFC 5280 wants it.
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if parts.hostname == parameters().get("PIPHOST"):
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
    user, _, place = parts.netloc.rpartition("@")
    request = Request(urlunsplit(parts._replace(netloc=place)), headers={"User-Agent": agent})
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    handlers = (Redirects(), urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=trust))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
            return bytes(answer.read())
    except HTTPException as error:
        raise OSError(f"its answer is not HTTP: {error}") from error


def run(command: list[str], quiet: bool = False, explains: bool = True) -> Run:
    """Run a command that goes online; what it says, of a `quiet` one on stderr only, is shown and kept as `stderr`.

    Stops with a sentence where a proxy is to blame for its failure, if that is to be told. Nothing that is said names a
    proxy.
    """
    conceal = concealer(parameters())
    out, err = (subprocess.DEVNULL, subprocess.PIPE) if quiet else (subprocess.PIPE, subprocess.STDOUT)
    words = ""
    with subprocess.Popen(command, stdout=out, stderr=err, text=True, errors="replace") as process:
        for line in process.stderr or process.stdout or ():
            words += line
            sys.stderr.write(conceal(line))
            sys.stderr.flush()
    if process.returncode and explains and (sentence := explain(words)):
        raise Problem(sentence)
    return Run(command, process.returncode, stderr=conceal(words))


def concealer(given: dict[str, str]) -> Callable[[str], str]:
    """A function that puts parameters' names in the place of their addresses, hosts, users and passwords."""
    names: dict[str, str] = {}
    for name in (name for name in ADDRESSES if name in given):
        parts = urlsplit(given[name])
        user, _, place = parts.netloc.rpartition("@")
        host = parts.hostname or ""
        hosts = [host] if "." in host else [f"'{host}'", f"//{host}"]  # "proxy" is a word, too
        secrets = [given[name], parts.netloc, user, place, *hosts, parts.username, parts.password]
        for secret in filter(None, secrets):
            names.setdefault(secret.lower(), name)
            names.setdefault(unquote(secret).lower(), name)
    if not names:
        return str
    longest_first = "|".join(re.escape(secret) for secret in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.-])(?:{longest_first})(?![\w-])", re.IGNORECASE)

    def conceal(text: str) -> str:
        return pattern.sub(lambda found: names[found[0].lower()], text)

    return conceal


def explain(words: str) -> str:
    """What keeps a command from getting online, as one sentence, told from its words; empty if nothing does."""
    given = parameters()
    if archive := re.search(r"https?://\S+/InRelease\b", words):
        return trouble(archive[0], "APTPROXY", b"-----BEGIN PGP")
    if root := given.get("PIPPROXY"):
        return trouble(f"{index_url(root).rstrip('/')}/pip/", "PIPPROXY", b"pip-")
    if url := re.search(r"[Ff]ailed to fetch: `?(https?://[^`\s]+)", words):
        return trouble(url[1], "", b"")
    return check() if "ProxyError" in words or "SSLError" in words else ""


def check() -> str:
    """What is wrong with the first of the proxies that is down or wants another password; empty if none is."""
    given = parameters()
    for name, scheme in (("APTPROXY", "http"), ("http_proxy", "http"), ("https_proxy", "https")):
        if name in given:
            code, reason, _ = ask(f"{scheme}://pyrlab.invalid/", {scheme: given[name]})  # a name that cannot be
            if code == 407:
                return DENIED.format(name)
            if not code and reason:
                return down(name, reason)
    return explain("") if "PIPPROXY" in given else ""


DENIED = "{} demands a user name and a password, or not these; write them as in http://user:password@host:port"


def down(who: str, reason: str, hint: str = "correct it, or unset it") -> str:
    """The sentence on who gives no answer at all."""
    if re.search("self.signed|local issuer", reason):
        hint = "name the file of its authority, as in CACERT=ca.pem"
        return f"{who} shows a certificate that nothing here trusts; {hint}"
    return f"{who} cannot be reached ({reason}); {hint}"


def trouble(url: str, own: str, sign: bytes) -> str:
    """Ask for `url` as the tools do; what is wrong with an answer that lacks `sign`, as a sentence, or nothing.

    `own` is the parameter that names the server to ask, if any; whatever stands between has its own.
    """
    given, parts = parameters(), urlsplit(url)
    proxies = urllib.request.getproxies()
    if own == "APTPROXY" and own in given:
        proxies = dict.fromkeys(("http", "https"), given[own])
        name = own
    elif parts.scheme in proxies and not urllib.request.proxy_bypass(parts.hostname or ""):
        name = f"{parts.scheme}_proxy"
    else:
        name = own if own in given else ""
    code, reason, content = ask(url, proxies)
    who = name or str(parts.hostname)
    if code == 404 or (code == 200 and sign in content) or not (code or reason):
        return ""
    if code == 200:
        return f"{who} answers with another page than asked for, perhaps one to log in; try it in a browser"
    if code in (401, 407):
        return DENIED.format((own or parts.hostname) if code == 401 else who)
    if code:
        return f"{who} answers {code} {reason}, and gives no packages; ask whoever runs it"
    if name:
        return down(name, reason)
    return down(who, reason, "behind a proxy, set http_proxy and https_proxy, or APTPROXY and PIPPROXY")


def ask(url: str, proxies: dict[str, str]) -> tuple[int, str, bytes]:
    """The status of the answer (0: there is none), the reason of a failure, and the content at `url`.

    Of a server that was reached and takes its time there is neither status nor reason.
    """
    try:
        return 200, "", fetch(url, proxies)
    except HTTPError as error:
        return error.code, error.reason, b""
    except TimeoutError:
        return 0, "", b""
    except OSError as error:
        reason = str(getattr(error, "reason", error))
        if tunnel := re.search(r"Tunnel connection failed: (\d+) (.*)", reason):
            return int(tunnel[1]), tunnel[2], b""
        return 0, reason, b""


def main() -> None:
    """Dispatch; see the module's docstring."""
    verb, *rest = sys.argv[1:]
    if verb in ("run", "bootstrap"):
        connect()
        if verb == "bootstrap" and (proxy := parameters().get("APTPROXY")):
            os.environ["http_proxy"] = proxy
        sys.exit(run(rest).returncode)
    elif verb == "index":
        print(json.dumps(index_settings()))
    else:
        print(check() if verb == "check" else explain(sys.stdin.read()))


if __name__ == "__main__":
    events.run(main)
