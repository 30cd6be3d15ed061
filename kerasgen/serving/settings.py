"""The settings of a server: a frozen value, checked once. Imports the standard library only."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields

from kerasgen.errors import ArgumentError
from kerasgen.keywords import Checked
from kerasgen.specs import check_whole

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class ServerSettings(metaclass=Checked):
    """Settings of a server.

    Args:
        host: the address that the server listens at; by default only this machine reaches it.
        port: TCP port; 0 takes a free one.
        api_key: what clients send as `Authorization: Bearer …`; None asks for nothing.
        model_name: the name that `/v1/models` shows; None for the name of the directory or file.
        batch_size: texts that are written at the same time.
        queue_size: texts that wait beyond these; a request that would make it more is answered by 429.
        max_new_tokens: tokens that one text may get at most; None for as many as the model has positions for.
        max_body_bytes: bytes of a request's body; a larger one is answered by 413.
        allowed_origins: origins of web pages whose scripts may call the server (CORS), such as `https://example.org`;
            `*` for all.
        allowed_hosts: names by which the server may be called, in the `Host` header. By default a server on loopback
            answers to this machine's own names alone, so that no web page reaches it under a name of its own, and
            another server to any name.
        shutdown_seconds: how long running texts may go on once the server is told to end.
        warm_up: write a text of two tokens first, so that the first request doesn't wait for what is compiled; until
            then `/healthz` answers 503.

    Raises:
        ArgumentError: a setting is out of range.
    """

    _argument_error = ArgumentError

    host: str = LOOPBACK
    port: int = 8000
    api_key: str | None = None
    model_name: str | None = None
    batch_size: int = 32
    queue_size: int = 256
    max_new_tokens: int | None = None
    max_body_bytes: int = 4 << 20
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    shutdown_seconds: int = 30
    warm_up: bool = True

    def __post_init__(self) -> None:
        for name, least in (("port", 0), ("batch_size", 1), ("queue_size", 0), ("max_body_bytes", 1)):
            check_whole(name, getattr(self, name), least=least)
        check_whole("shutdown_seconds", self.shutdown_seconds, least=0)
        if not isinstance(self.warm_up, bool):
            raise ArgumentError(f"`warm_up` must be True or False. Received: warm_up={self.warm_up!r}.")
        if self.max_new_tokens is not None:
            check_whole("max_new_tokens", self.max_new_tokens, least=1)
        if self.port > 65_535:
            raise ArgumentError(f"`port` must be at most 65535. Received: port={self.port}.")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip()):
            raise ArgumentError("`api_key` must be text of ASCII characters that is not empty.")  # and is not shown
        for name in ("allowed_origins", "allowed_hosts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that requests may call the server by; none for any."""
        if self.allowed_hosts or not self.is_local:
            return self.allowed_hosts
        return ("localhost", "127.0.0.1", "[::1]", self.host)


NAMES = tuple(field.name for field in fields(ServerSettings))
