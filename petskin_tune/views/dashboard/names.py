"""Where the dashboard listens, to which names it answers, and whose pages may change a study.

A page elsewhere reaches a server in its reader's network through a name of its own that leads there (DNS rebinding):
the browser sends that name as ``Host``. A number can be no such name. What a proxy says besides (``X-Forwarded-Host``)
anybody can say, so it decides nothing.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from petskin_tune.errors import UsageError

LOOPBACK = "127.0.0.1"
THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True)
class Names:
    """Of one dashboard.

    Attributes:
        address: IP address to listen on.
        behind_proxy: whether a proxy with a login stands before it, so that it is reached at other addresses, too.
        public: host names under which the proxy is reached, in small letters.
    """

    address: str = LOOPBACK
    behind_proxy: bool = False
    public: tuple[str, ...] = ()

    @property
    def is_ipv6(self) -> bool:
        """Whether :attr:`address` is one of IPv6."""
        return ":" in self.address

    @property
    def shown(self) -> str:
        """The address as it stands in a URL."""
        return f"[{self.address}]" if self.is_ipv6 else self.address

    def answers_to(self, host: str) -> bool:
        """Whether a request with this ``Host`` is answered."""
        name = _name_of(host)
        return name in self._own or (self.behind_proxy and _is_number(name))

    def may_change(self, origin: str | None) -> bool:
        """Whether a page of this origin may change the study; programs that are no browsers send none."""
        return origin is None or _name_of(origin.partition("://")[2]) in self._own

    @property
    def _own(self) -> tuple[str, ...]:
        return (*THIS_MACHINE, self.shown, *self.public)


HERE = Names()


def checked(host: str, *, behind_proxy: bool, public: tuple[str, ...] = ()) -> Names:
    """What was typed as ``--host``, ``--behind-proxy`` and ``--public-name``.

    Raises:
        UsageError: the address is none, or others could reach a dashboard without a login; a name is none.
    """
    try:
        address = ipaddress.ip_address(LOOPBACK if host == "localhost" else host.strip("[]"))
    except ValueError:
        raise UsageError(
            f"--host takes an IP address of this machine, such as 0.0.0.0 for all, not {host[:80]!r}."
        ) from None
    if not (address.is_loopback or behind_proxy):
        raise UsageError(
            f"The dashboard has no login, and on {address} everybody in the network could use it: put a proxy with "
            "login and TLS before it and add --behind-proxy, or leave --host out and use a tunnel (ssh -L)."
        )
    if public and not behind_proxy:
        raise UsageError("--public-name is the name of a proxy: add --behind-proxy, or leave it out.")
    names = tuple(name.lower() for name in public)
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"--public-name takes a host name, such as tune.example.com, not {name[:80]!r}.")
    return Names(str(address), behind_proxy, names)


def _name_of(host: str) -> str:
    """The name in a Host header. Any port will do: tunnels map it."""
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() else host).lower()


def _is_number(name: str) -> bool:
    """Whether a name is an IP address, as a browser writes one."""
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True
