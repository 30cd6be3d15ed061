"""Downloads an address to a file in a cache: resumes broken transfers, and checks the file before handing it over."""

from __future__ import annotations

import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasgen import limits
from kerasgen.corpora.https import is_this_machine, open_url
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError
from kerasgen.files import atomic, locking, staging
from kerasgen.files.digests import sha256_of
from kerasgen.terminal import size_for_bars, visible

Opener = Callable[..., Any]
"""Called with a `urllib.request.Request` and `timeout=` in seconds; returns a response as `urlopen` does."""

_BLOCK_BYTES = 1 << 16
_SLOWEST_BYTES = 1 << 10  # per second, averaged over the timeout


class _CutError(Exception):
    """The transfer broke off; the bytes received so far are on disk."""


class _ChangedError(_CutError):
    """The server has another file now; the bytes received of the old one are useless."""


def fetch(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], None] | None = None,
    advice: str = "",
    progress: bool | None = None,
    attempts: int = 5,
    timeout_seconds: float = 60.0,
    opener: Opener = open_url,
) -> Path:
    """Return `path`, downloaded from `url` unless it is there already.

    What has arrived stands in `path` + `.part` until it is complete and checked, so that a download that was cut goes
    on where it stopped: at once, up to `attempts` times, and at the next call. It goes on only if the server says
    (by its entity tag or date) that the file is still the same, and starts over if the server knows no ranges. The
    SHA-256 of the complete file is written beside it, to `path` + `.sha256`; from then on the file is handed over
    only if it still has that digest.

    How large a file may be and how long it may take in all is in `kerasgen.limits`. A server that sends less than
    1 KiB a second, over `timeout_seconds`, has broken off.

    Args:
        url: `https://`, or `http://` on this machine.
        path: where the file shall lie; missing folders are made.
        sha256: the digest, in hexadecimal, that the file must have, if it is known.
        check: called with the complete file before it takes its place; raises if the file is not the right one,
            which is then deleted.
        advice: what a person can do if the address can't be reached; ends the message.
        progress: show a bar on standard error; None shows it on a terminal only.
        attempts: how often the transfer is started in one call.
        timeout_seconds: how long to wait for the server each time.
        opener: the network.

    Raises:
        CorpusUnavailableError: the address can't be reached, or the transfer broke off again and again.
        CorpusFormatError: the file has another digest than it must have; or what `check` raises.
    """
    path = Path(path)
    if not url.startswith("https://") and not is_this_machine(url):
        raise CorpusUnavailableError(
            f"{url} is not fetched: what comes by http may be changed on its way. Give an https address, or fetch the "
            f"file yourself.{_spaced(advice)}",
            path=path,
        )
    allowed = limits.Limits.current()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locking.locked(path, wait=True):
        if path.exists():
            expected = sha256 or _recorded(path)
            digest = _verify(path, expected)
            if expected is None:  # someone put it there by hand
                if check is not None:
                    check(path)
                _record(path, digest)
            return path
        part = path.with_name(path.name + ".part")
        problem = ""
        deadline = time.monotonic() + allowed.download_seconds
        for _ in range(attempts):
            try:
                _transfer(
                    url,
                    part,
                    anew=sha256 is None,
                    progress=progress,
                    timeout=timeout_seconds,
                    opener=opener,
                    allowed=allowed,
                    deadline=deadline,
                    is_checked=sha256 is not None or check is not None,
                )
                break
            except CorpusUnavailableError:
                raise
            except _CutError as cause:
                problem = str(cause)
            except (OSError, http.client.HTTPException) as cause:
                raise CorpusUnavailableError(
                    f"{url} can't be reached: {getattr(cause, 'reason', None) or cause}.{_spaced(advice)}", path=path
                ) from cause
        else:
            received = part.stat().st_size if part.exists() else 0
            raise CorpusUnavailableError(
                f"The download of {url} broke off {attempts} times: {problem}. {received} bytes are kept in "
                f"{part}; the next call goes on from there.{_spaced(advice)}",
                path=path,
            )
        try:
            digest = _verify(part, sha256)
            if check is not None:
                check(part)
        except Exception:
            part.unlink()
            _state(part).unlink(missing_ok=True)
            raise
        atomic.sync(part)
        _record(path, digest)
        part.replace(path)
        atomic.sync_directory(path.parent)
        _state(part).unlink(missing_ok=True)
    return path


def _transfer(
    url: str,
    part: Path,
    *,
    anew: bool,
    progress: bool | None,
    timeout: float,
    opener: Opener,
    allowed: limits.Limits,
    deadline: float,
    is_checked: bool,
) -> None:
    """Download what `part` still lacks.

    Args:
        url: the address.
        part: the file begun, if it is there.
        anew: start over rather than append to a file of which the server gave no tag or date. Without a digest
            nothing else could tell that two halves of different files were put together.
        progress: see `fetch`.
        timeout: seconds.
        opener: the network.
        allowed: how much may come.
        deadline: by `time.monotonic`, when it must have come.
        is_checked: whether the caller can tell a cut file from a whole one.

    Raises:
        CorpusUnavailableError: more comes than may, or longer.
        _CutError: it broke off after it had begun.
        OSError, http.client.HTTPException: it did not begin.
    """
    from tqdm import tqdm

    have, validator = _begun(url, part)
    if have and not validator and anew:
        have = 0
    headers = {"User-Agent": "kerasgen", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = opener(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as cause:
        with cause:
            if have and cause.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                is_same = validator is None or _validator(cause) in (None, validator)
                if is_same and cause.headers.get("Content-Range") == f"bytes */{have}":
                    return  # the part was complete already
                part.unlink()
                raise _CutError("the file on the server is shorter than the part that is here") from cause
            raise
    with response:
        try:
            start, total = _extent(response, have, validator)
        except _ChangedError:
            part.unlink()
            raise
        if total is None and not is_checked and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise OSError("it does not say how long the file is, so that nobody would notice a cut one")
        _check_room(url, part, start, total, allowed)
        _state(part).write_text(
            json.dumps({"url": url, "validator": _validator(response)}, allow_nan=False), encoding="utf-8"
        )
        with (
            part.open("ab" if start else "wb") as stream,
            tqdm(
                desc=visible(part.name.removesuffix(".part")),
                initial=start,
                total=total,
                unit="B",
                unit_scale=True,
                disable=None if progress is None else not progress,
                **size_for_bars(),
            ) as bar,
        ):
            came, mark, marked = start, time.monotonic(), start
            while block := _read(response):
                came += len(block)
                if came > allowed.download_bytes:
                    part.unlink()
                    raise _too_large(url, f"{came:,} bytes came", part, allowed)
                try:
                    stream.write(block)
                except OSError as cause:
                    raise CorpusUnavailableError(f"{part} can't be written: {cause}.", path=part) from cause
                bar.update(len(block))
                now = time.monotonic()
                if now > deadline:
                    raise CorpusUnavailableError(
                        f"The download of {url} took too long; {came} bytes are kept in {part}. "
                        f"{limits.advice('download_seconds', allowed.download_seconds)}",
                        path=part,
                    )
                if now - mark > timeout:
                    if came - marked < _SLOWEST_BYTES * timeout:
                        raise _CutError(f"{came - marked} bytes came in {now - mark:.0f} s")
                    mark, marked = now, came
    size = part.stat().st_size
    if total is not None and size != total:
        raise _CutError(f"{size} of {total} bytes came")


def _read(response: Any) -> bytes:
    try:
        # read1: what is there. `read` would wait for a whole block, however slowly it comes.
        return bytes(response.read1(_BLOCK_BYTES))
    except (OSError, http.client.HTTPException) as cause:
        raise _CutError(str(cause) or type(cause).__name__) from cause


def _extent(response: Any, have: int, validator: str | None) -> tuple[int, int | None]:
    """Return the offset of the response's bytes, and the file's whole size if the server gives it.

    Raises:
        OSError: the server sends something else than a file's bytes.
        _CutError: the server sends another range than was asked for, or of another file.
    """
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise OSError(f"it sends the file coded as {coding!r}, though its own bytes were asked for")
    length = _length(response)
    if response.status == http.client.OK:
        return 0, length
    if not have or response.status != http.client.PARTIAL_CONTENT:
        asked = "a range" if have else "the whole file"
        raise OSError(f"it answers with the status {response.status}, though {asked} was asked for")
    # "bytes 100-199/200"; the last number is "*" where the server does not know it.
    extent, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if extent.partition("-")[0].strip() != str(have):
        raise _CutError(f"the bytes from {have} on were asked for, {extent or 'others'} came")
    if validator is not None and _validator(response) not in (None, validator):
        raise _ChangedError("the file on the server is another one than the part that is here")
    return have, int(total) if total.isascii() and total.isdigit() else None if length is None else have + length


def _length(response: Any) -> int | None:
    text = response.headers.get("Content-Length")
    if text is None or response.headers.get("Transfer-Encoding"):
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise OSError(f"it says that the file has {text[:40]!r} bytes")
    return int(text)


def _check_room(url: str, part: Path, start: int, total: int | None, allowed: limits.Limits) -> None:
    if total is None:
        return
    if total > allowed.download_bytes:
        raise _too_large(url, f"it has {total:,} bytes", part, allowed)
    free = shutil.disk_usage(part.parent).free
    if total - start > free:
        raise CorpusUnavailableError(
            f"{url} has {total:,} bytes, and the disk of {part.parent} has room for {free:,}. Make room.", path=part
        )


def _too_large(url: str, what: str, part: Path, allowed: limits.Limits) -> CorpusUnavailableError:
    return CorpusUnavailableError(
        f"{url} is not fetched: {what}. {limits.advice('download_bytes', allowed.download_bytes)}", path=part
    )


def _validator(response: Any) -> str | None:
    """Return the strong entity tag or date that identifies a file's version; a weak tag does not promise the bytes."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    date = response.headers.get("Last-Modified")
    return None if date is None else str(date)


def _begun(url: str, part: Path) -> tuple[int, str | None]:
    """Return how many bytes of this address are here already, and the validator that the server's file had then."""
    try:
        state = json.loads(_state(part).read_text(encoding="utf-8"))
        if state["url"] == url:
            return part.stat().st_size, state["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing is here, or nothing that could be trusted
    return 0, None


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _record(path: Path, digest: str) -> None:
    """Write the digest beside the file, as `sha256sum --check` reads it."""
    place = path.with_name(path.name + ".sha256")
    staging.sweep(place)
    atomic.write(place, f"{digest}  {path.name}\n")


def _recorded(path: Path) -> str | None:
    try:
        return path.with_name(path.name + ".sha256").read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def _verify(path: Path, sha256: str | None) -> str:
    digest = sha256_of(path)
    if sha256 is not None and digest != sha256.lower():
        raise CorpusFormatError(
            f"{path} has not the bytes that it should have. Its SHA-256 is {digest}; expected {sha256.lower()}. "
            "Delete it, and it will be fetched again.",
            path=path,
        )
    return digest


def _spaced(advice: str) -> str:
    return f" {advice}" if advice else ""
