"""Decides who may use the dashboard, and that a form was sent from one of its own pages."""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable
from typing import Any, TypeAlias

from webob import Request, Response

from .answers import Refused, own_address, quoted_mount

Authorize: TypeAlias = Callable[[dict[str, Any]], str | None]
"""From a request's environ to the visitor's name; None: somebody who may not be here."""
TOKEN_HOLDER = "token holder"
"""The name in the log of whoever has come with the token."""
CSRF_FIELD = "csrf"
_NONCE = "gearwsgi_dashboard"
_MIN_NONCE = 32


class Access:
    """Decides by `authorize`, or else by a token that is made anew for each dashboard.

    A visitor has one cookie: with `authorize` a random text, else the proof that the token was given. Each form carries
    a value made from that cookie. A page of another site can't read either, so it can't send a form.

    Args:
        authorize: the site's own decision; None: the token's.
    """

    def __init__(self, authorize: Authorize | None) -> None:
        self._authorize = authorize
        self.token = "" if authorize is not None else secrets.token_urlsafe(32)
        # A host's cookies are shared by all its ports: two dashboards on one machine must not overwrite each other's.
        own = hashlib.sha256(self.token.encode()).hexdigest()[:8]
        self._cookie = _NONCE if authorize is not None else f"{_NONCE}_{own}"

    def who(self, request: Request) -> str:
        """The visitor's name.

        Raises:
            Refused: the visitor may not be here.
        """
        if self._authorize is not None:
            name = self._authorize(request.environ)
            if not name:
                raise Refused(403, "Not for you", "This site lets in who has logged in, and may. Do so, and come back.")
            return str(name)
        if not hmac.compare_digest(self._given(request), self._session()):
            text = "Open the address that `gearwsgi dashboard` has printed: it holds a token that is new at each start."
            raise Refused(403, "Closed", text)
        return TOKEN_HOLDER

    def log_in(self, request: Request) -> Response | None:
        """Where the address has the token: a redirect to the same address without it. None: it has none.

        Raises:
            Refused: the token is wrong.
        """
        if self._authorize is not None or "token" not in request.GET:
            return None
        if not hmac.compare_digest(_hash(request.GET["token"]), _hash(self.token)):
            text = "The token in this address is not, or no longer, the right one: `gearwsgi dashboard` prints it."
            raise Refused(403, "Closed", text)
        further = [(name, value) for name, value in request.GET.items() if name != "token"]
        response = Response(status=303, content_type="text/plain", charset="utf-8")
        response.location = own_address(request, further)
        self._set_cookie(request, response, self._session().decode())
        return response

    def csrf(self, request: Request, response: Response) -> str:
        """The value that this visitor's forms carry; sets the cookie that it is made from, where there is none yet."""
        given = self._given(request)
        if self._authorize is not None and len(given) < _MIN_NONCE:
            given = secrets.token_urlsafe(32).encode()
            self._set_cookie(request, response, given.decode())
        return _sign(given, "csrf")

    def check_form(self, request: Request) -> None:
        """Check that a form was sent from one of our pages.

        Raises:
            Refused: it was not, or that is not certain.
        """
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        given = self._given(request)
        token = request.POST.get(CSRF_FIELD, "")
        is_ours = len(given) >= _MIN_NONCE and hmac.compare_digest(_hash(token), _hash(_sign(given, "csrf")))
        if site != "same-origin" or not is_ours:
            text = "This form was not sent from one of the dashboard's pages, or that page is too old. Load it anew."
            raise Refused(403, "Nothing was done", text)

    def _given(self, request: Request) -> bytes:
        return str(request.cookies.get(self._cookie, "")).encode("utf-8", "backslashreplace")

    def _session(self) -> bytes:
        return _sign(self.token.encode(), "session").encode()

    def _set_cookie(self, request: Request, response: Response, value: str) -> None:
        response.set_cookie(
            self._cookie,
            value,
            path=quoted_mount(request.environ) or "/",
            secure=request.scheme == "https",
            httponly=True,
            samesite="Strict",
        )


def on_this_machine(environ: dict[str, Any]) -> str | None:
    """An `authorize` that lets in whoever comes from this machine: by the client's address, and by the name in Host.

    Another site whose name leads here (DNS rebinding), or a tunnel, comes with another name in Host.
    """
    host = environ.get("HTTP_HOST", "").lower()
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    is_local = name == "localhost" or name.endswith(".localhost") or _is_loopback(name)
    return "you" if is_local and _is_loopback(environ.get("REMOTE_ADDR", "")) else None


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _sign(key: bytes, what: str) -> str:
    return hmac.new(key, what.encode(), hashlib.sha256).hexdigest()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()
