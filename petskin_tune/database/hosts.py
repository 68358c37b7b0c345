"""Whether a database server is this machine, as far as that can be said without asking anybody."""

from __future__ import annotations

import configparser
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path


def is_this_machine(host: str) -> bool:
    """Whether a host's name, address or socket means the machine that this process runs on, asking nobody."""
    if not host or host.startswith(("/", "@")):
        return True
    name = host.lower().rstrip(".")
    own = socket.gethostname().lower()
    if name in ("localhost", "localhost.localdomain", "ip6-localhost", own, own.partition(".")[0]):
        return True
    address = _address(name)
    return name.endswith(".localhost") if address is None else address.is_loopback or address.is_unspecified


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:  # 127.1, 0x7f.1
            return ipaddress.IPv4Address(socket.inet_aton(name)) if name[0].isdigit() else None
        except (OSError, ValueError):
            return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def of_service(query: Mapping[str, str], environ: Mapping[str, str]) -> Mapping[str, str]:
    """What the service file says of the service that a URL or PGSERVICE names; empty where it says nothing."""
    name = query.get("service") or environ.get("PGSERVICE")
    if not name:
        return {}
    for file in _service_files(query, environ):
        parser = configparser.RawConfigParser(strict=False, comment_prefixes="#", delimiters="=")
        try:
            parser.read(file, encoding="utf-8")
        except (OSError, ValueError, configparser.Error):
            continue
        if parser.has_section(name):
            return {key: value.strip() for key, value in parser.items(name)}
    return {}


def _service_files(query: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[Path]:
    named = query.get("servicefile") or environ.get("PGSERVICEFILE")
    yield Path(named) if named else Path(os.path.expanduser("~/.pg_service.conf"))
    yield Path(environ.get("PGSYSCONFDIR", "/etc/postgresql-common")) / "pg_service.conf"
