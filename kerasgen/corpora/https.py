"""Opens addresses by https, or on this machine, with a limit on how long a server may stall."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import threading
import urllib.parse
import urllib.request
from typing import Any


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to https, or on this machine; urllib would leave https for http or ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        target = urllib.parse.urljoin(req.full_url, newurl)
        is_safe = target.startswith("https://") or (not req.full_url.startswith("https://") and is_this_machine(target))
        if not is_safe:
            fp.close()
            raise OSError(f"it redirects to {target!r}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _connection(kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
    """Return a connection whose timeout covers the status and all headers; a socket's own timeout is for each read."""

    class Bounded(kind):  # type: ignore[misc, valid-type]
        def getresponse(self) -> Any:
            fired = threading.Event()

            def give_up(end: socket.socket) -> None:
                fired.set()
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

            timer = threading.Timer(float(self.timeout), give_up, [self.sock])
            timer.daemon = True
            timer.start()
            try:
                response = super().getresponse()
            except (OSError, http.client.HTTPException) as cause:
                if not fired.is_set():
                    raise
                raise TimeoutError(f"no answer in {self.timeout} s") from cause
            finally:
                timer.cancel()
            if fired.is_set():  # headers that were cut look like headers
                response.close()
                raise TimeoutError(f"no answer in {self.timeout} s")
            return response

    return Bounded


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_connection(http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_connection(http.client.HTTPSConnection), req)


def open_url(request: urllib.request.Request, *, timeout: float) -> Any:
    """Return the response of a server that is reached by https, or on this machine.

    Raises:
        OSError, http.client.HTTPException: there is none, or it is not what may be asked for.
    """
    return urllib.request.build_opener(_Http, _Https, _Redirects).open(request, timeout=timeout)


def is_this_machine(url: str) -> bool:
    """Return whether an address is http or https on this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return False
    host = parts.hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
