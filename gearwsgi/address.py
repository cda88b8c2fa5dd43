"""Where job servers listen: `host:port` and its relatives, read once."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from .errors import ConfigError

DEFAULT_PORT = 4730

EMBEDDED = "embedded"


class TLS(NamedTuple):
    """How to speak TLS to a job server: paths of the CA's certificate, and of our own certificate and key."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class Address(NamedTuple):
    """Where a job server listens."""

    host: str
    port: int
    tls: TLS | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls://' if self.tls else ''}{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name, whatever it begins with


def parse_servers(servers: Any) -> tuple[tuple[Address, ...], bool]:
    """The addresses in `servers`, and whether they are the embedded server's.

    Args:
        servers: `host:port[,host:port…]` or a list of such; `embedded` or `embedded://host:port`;
            `tls://host:port?ca=FILE&cert=FILE&key=FILE`.

    Raises:
        ConfigError: it can't be read.
    """
    items = servers.split(",") if isinstance(servers, str) else servers
    if not isinstance(items, Iterable) or isinstance(items, bytes | Mapping):
        raise ConfigError(f"servers is {servers!r}: give 'host:port', several with commas, a list, or 'embedded'")
    texts = [_join_pair(item) for item in items]
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise ConfigError("servers is empty: give 'host:port', several with commas, a list, or 'embedded'")
    embedded = [text for text in texts if text == EMBEDDED or text.startswith(EMBEDDED + "://")]
    if embedded and len(texts) > 1:
        raise ConfigError(f"servers is {servers!r}: the embedded job server goes alone")
    if embedded:
        return (parse_address(texts[0].removeprefix(EMBEDDED).removeprefix("://") or "127.0.0.1"),), True
    addresses = tuple(parse_address(text) for text in texts)
    if len(set(addresses)) < len(addresses):
        raise ConfigError(f"servers names one twice: {servers!r}")
    return addresses, False


def _join_pair(item: Any) -> str:
    if isinstance(item, tuple | list) and len(item) == 2:
        return f"{item[0]}:{item[1]}"
    if not isinstance(item, str):
        raise ConfigError(f"servers holds {item!r}: give 'host:port'")
    return item


_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]@]+))(?::(\d{1,5}))?")


def parse_address(text: str) -> Address:
    """One address: `host`, `host:port`, `[v6]:port`, with `tls://` before it where TLS is spoken.

    Raises:
        ConfigError: it is none of these.
    """
    tls: TLS | None = None
    rest = text
    if text.startswith("tls://"):
        rest, _, query = text.removeprefix("tls://").partition("?")
        options = {key: values[-1] for key, values in parse_qs(query).items()}
        unknown = set(options) - set(TLS._fields)
        if unknown:
            raise ConfigError(f"server {text!r} has an unknown option {min(unknown)!r}; known: ca, cert, key")
        tls = TLS(**options)
    matched = _HOST_PORT.fullmatch(rest)
    if matched is None:
        raise ConfigError(f"server {text!r} can't be read: give 'host:port', '[ipv6]:port' or 'tls://host:port'")
    port = int(matched[3] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise ConfigError(f"server {text!r} has port {port}: give one from 1 to 65535")
    return Address(matched[1] or matched[2], port, tls)


def parse_listen(text: str) -> Address:
    """Where to listen: `host:port` or `[v6]:port`; port 0 takes a free one.

    Raises:
        ConfigError: it is neither.
    """
    matched = _HOST_PORT.fullmatch(text)
    if matched is None or matched[3] is None or int(matched[3]) > 65535:
        raise ConfigError(f"can't listen on {text!r}: write HOST:PORT, such as 127.0.0.1:4730 or [::1]:4730")
    return Address(matched[1] or matched[2], int(matched[3]))
