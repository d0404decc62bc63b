"""What single values of the configuration may be."""

from __future__ import annotations

import pytest

from zelect.config.http import http_listen
from zelect.config.validators import is_loopback


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("[0:0:0:0:0:0:0:1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("*", False),
        ("[::]", False),
        ("0.0.0.0", False),
        ("192.0.2.1", False),
        ("[2001:db8::1]", False),
        ("[::ffff:192.0.2.1]", False),
        ("127.0.0.999", False),
        ("localhost.example.org", False),
    ],
)
def test_what_only_this_host_can_reach_is_known_in_every_spelling(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("listen", ["127.0.0.1:8101", "[::1]:8101", "[::]:8101", "*:8101", "n1.example.org:8101", ""])
def test_http_may_listen_at_any_address(listen: str) -> None:
    assert not http_listen(listen)


@pytest.mark.parametrize("listen", ["::1:8101", "**:8101", "*", "*:0", "*:70000", "[::1]8101"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    assert "IPv6 address in brackets" in http_listen(listen)
