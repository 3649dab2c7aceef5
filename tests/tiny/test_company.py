"""A company's proxy, as a real squid: what is said of it before a build begins, and after one has failed."""

from __future__ import annotations

import pytest

from pyrlab.steps import network
from servers import Squid
from told import APT, NOBODY, UV, check, explain


@pytest.mark.parametrize(("name", "words"), [("APTPROXY", APT), ("https_proxy", UV), ("http_proxy", APT)])
@pytest.mark.parametrize("credentials", ["", "somebody:wrong@"])
def test_password_wanted(squid: Squid, name: str, words: str, credentials: str) -> None:
    """A proxy that wants a password gets none, or a wrong one."""
    address = squid.url.replace("//", f"//{credentials}")
    assert explain(words, **{name: address}) == network.DENIED.format(name)


@pytest.mark.parametrize("name", ["APTPROXY", "PIPPROXY", "http_proxy", "https_proxy"])
def test_checked_before_the_work(squid: Squid, portal: str, name: str) -> None:
    """A proxy that is down or wants a password is told before anything else; one that is well is not."""
    assert check(**{name: NOBODY}) == network.down(name, "[Errno 111] Connection refused")
    if name == "PIPPROXY":
        assert check(PIPPROXY=portal).startswith("PIPPROXY answers with another page than asked for")
    else:
        assert check(**{name: squid.url}) == network.DENIED.format(name)
        assert check(**{name: squid.with_password}, SSL_CERT_FILE=str(squid.authority)) == ""


def test_strange_certificate(squid: Squid) -> None:
    """A proxy that looks into TLS with an authority that is not trusted is told from one that is down."""
    sentence = (
        "https_proxy shows a certificate that nothing here trusts; name the file of its authority, as in CACERT=ca.pem"
    )
    assert check(https_proxy=squid.with_password) == sentence
    assert explain(UV, https_proxy=squid.with_password) == sentence


@pytest.mark.parametrize("name", ["APTPROXY", "http_proxy"])
def test_proxy_refuses(squid: Squid, name: str) -> None:
    """A proxy that knows its user, but lets nobody go there, says so with a number that is passed on."""
    sentence = explain(APT.replace("packages.invalid", squid.forbidden), **{name: squid.with_password})
    assert sentence == f"{name} answers 403 Forbidden, and gives no packages; ask whoever runs it"
