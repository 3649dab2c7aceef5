"""What builds and labs are told of proxies, package indexes and their passwords, and certificates."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pyrlab.host.engine import Engine
from pyrlab.host.project import Project
from pyrlab.model.lists import without_comment
from pyrlab.model.problem import Problem
from pyrlab.model.proxies import ADDRESSES, PARAMETERS, PROXIES, REPOSITORIES

INDEX = ("PIP_INDEX_URL", "PIP_TRUSTED_HOST", "UV_DEFAULT_INDEX", "UV_INSECURE_HOST")
MOUNTED = ("CERTIFICATES", "CERTIFICATES_AT")
HANDED_ON = (*PROXIES, *(name.upper() for name in PROXIES), *INDEX, *MOUNTED)  # by compose.yaml, where they are set
HERE = ["localhost", "127.0.0.1", "::1"]  # what is reached without a proxy, whatever no_proxy says
BUNDLES = (  # of Debian, Fedora until 43 and since, macOS
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"),
    *("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"),
)
BUNDLE = BUNDLES[0]  # where Debian, and so a lab, has it
CERTIFICATES = "certificates.crt"  # of the cache
USER = re.compile(r"(?<=://)([^/\s]+)@([^/\s:@]+)")  # and password, of an address, and its host
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


def settings(project: Project) -> dict[str, str]:
    """The parameters about proxies that are set, by name; raises Problem for what no container could use."""
    given = {name: value for name in PARAMETERS if (value := project.parameter(name))}
    direct = [*HERE]
    for name in (name for name in ADDRESSES if name in given):
        if "://" not in given[name]:
            given[name] = f"http://{given[name]}"
        host = host_of(name, given[name])
        if names_this_machine(host):
            address = f"the address {found}" if (found := bridge(project.engine)) else "its address in your network"
            raise Problem(
                f"{name} names this machine as {host}, which in a container means the container; name it by "
                f"{address}, where the proxy must listen too, or go without: {name}="
            )
        if name in ("APTPROXY", "PIPPROXY") and is_private(host):
            direct.append(host)
    if "http_proxy" in given or "https_proxy" in given:
        given["no_proxy"] = ",".join(filter(None, dict.fromkeys([*given.get("no_proxy", "").split(","), *direct])))
    return given


def host_of(name: str, address: str) -> str:
    """The host of a proxy's address; raises Problem where that is none."""
    try:
        parts = urlsplit(address)
        if parts.hostname and parts.port != 0:
            return parts.hostname
    except ValueError:
        pass
    raise Problem(f"{name} is no address of a proxy; write it as in {name}=http://172.17.0.1:3142")


def names_this_machine(host: str) -> bool:
    """Whether a host is this machine itself, which in a container means the container."""
    return host in HERE or host.startswith("127.")


def is_private(host: str) -> bool:
    """Whether a host is an address of a network of one's own, which a company's proxy does not lead to."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def bridge(engine: Engine) -> str:
    """The address by which containers find this machine; empty for a rootless engine's, which have no such one."""
    if engine.rootless:
        return ""
    return engine.run("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").strip()


def without_password(address: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"^(\w+://)?.*@", r"\1…@", address)


def certificates_of(project: Project) -> bytes:
    """The certificates that builds and labs trust, none perhaps: this machine's, and CACERT's."""
    own = next((Path(name).read_bytes() for name in BUNDLES if Path(name).is_file()), b"")
    if not (path := project.parameter("CACERT")):
        return own
    try:
        given = Path(path).read_bytes()
    except OSError as error:
        raise Problem(f"CACERT={path} cannot be read: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in given:
        raise Problem(f"CACERT={path} has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    return given if own in given else own + b"\n" + given


def trusted(project: Project) -> str:
    """A file with these certificates; empty without any."""
    if not (content := certificates_of(project)):
        return ""
    bundle = project.cache / CERTIFICATES
    project.cache.mkdir(exist_ok=True)
    if not bundle.exists() or bundle.read_bytes() != content:
        bundle.write_bytes(content)
        bundle.chmod(0o644)
    return str(bundle)


def netrc(project: Project) -> str:
    """The users and passwords of the lists' addresses, by host, as uv and pip look them up."""
    found: dict[str, str] = {}
    lists = project.checkout
    texts = {name: text for path in lists.own for name, text in lists.texts(path).items()}
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            where = f"{name} line {number}"
            for user, host in USER.findall(without_comment(line)):
                if "ssh://" in line.lower():
                    continue
                if "git+" in line.lower():
                    raise Problem(
                        f"{where}: what is in the address of a git repository would be in every image; build a wheel "
                        "of it and name that, as in ./wheels/NAME.whl"
                    )
                login, _, password = (
                    unquote(expanded(part, project.environment, where)) for part in user.partition(":")
                )
                if any(re.search(r'[\s\\]|^"', part) for part in (login, password)):
                    mark = "a blank, a backslash, or a quotation mark at its beginning"
                    raise Problem(f"{where}: a user or password with {mark} cannot be handed on to uv and pip")
                entry = f"machine {host.lower()} login {login}{password and f' password {password}'}\n"
                if found.setdefault(host.lower(), entry) != entry:
                    raise Problem(f"{where}: {host} is named with another user or password before")
    return "".join(found.values())


def expanded(text: str, environment: Mapping[str, str], where: str) -> str:
    """A text in which ${NAME} is what the environment has for it, as pip reads lists."""
    for name in VARIABLE.findall(text):
        if name not in environment:
            raise Problem(f"{where}: the variable {name} is not set in the environment")
    return VARIABLE.sub(lambda found: environment[found[1]], text)


def build_environment(project: Project) -> dict[str, str]:
    """What docker/bake.hcl hands on to the steps that get online."""
    logins = {"netrc": found} if (found := netrc(project)) else {}
    repositories = {name: value for name in REPOSITORIES if (value := project.parameter(name))}
    return {"NETWORK": json.dumps({**settings(project), **repositories, **logins}), "CACERT": trusted(project)}


def lab_environment(project: Project) -> dict[str, str]:
    """The environment for Compose: this machine's, but for what is handed on to a lab."""
    given = settings(project)
    found: dict[str, str] = {}
    for name in PROXIES:
        if value := given.get(name):
            found |= {name: value, name.upper(): value}
    found |= json.loads(network(project, "index"))
    if certificates := trusted(project):
        found |= {"CERTIFICATES": certificates, "CERTIFICATES_AT": BUNDLE}
    return handing_on(project, found)


def environment_of(project: Project, container: dict[str, Any]) -> dict[str, str]:
    """The same of a lab that runs: what it was started with."""
    started = dict(entry.split("=", 1) for entry in container["Config"]["Env"] if "=" in entry)  # without: not set
    found = {name: value for name, value in started.items() if name in HANDED_ON}
    for mount in container["Mounts"]:
        if mount["Destination"] == BUNDLE:
            found |= {"CERTIFICATES": mount["Source"], "CERTIFICATES_AT": BUNDLE}
    return handing_on(project, found)


def handing_on(project: Project, found: dict[str, str]) -> dict[str, str]:
    """The environment of the project, in which nothing but `found` is handed on to a lab, or steers Compose."""
    own = {k: v for k, v in project.environment.items() if k not in HANDED_ON and not k.startswith("COMPOSE_")}
    return own | found


def check(project: Project) -> None:
    """Raise Problem where a proxy is down or wants another password, if this machine can tell for its engine."""
    local = sys.platform == "linux" and not project.engine.context[1].startswith(("tcp:", "ssh:"))
    if local and settings(project) and (said := network(project, "check")):
        raise Problem(said)


def network(project: Project, verb: str, words: str = "") -> str:
    """What the build's own tool prints, run on this machine."""
    trust = {"SSL_CERT_FILE": certificates} if (certificates := trusted(project)) else {}
    environment = {**project.environment, **settings(project), **trust}
    command = [sys.executable, "-m", "pyrlab.steps.network", verb]
    run = subprocess.run(command, cwd=project.root, input=words, capture_output=True, text=True, env=environment)
    if run.returncode:
        raise Problem(f"the proxies could not be checked: {(run.stderr.strip() or 'no reason given').splitlines()[-1]}")
    return run.stdout.strip()
