"""Download a public file so that it is either the published one or not there.

What has arrived is kept as `NAME.part` and resumed by range; the file gets its name only when its
length and its checksums are the published ones.
"""

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.publishers import Published
from mae_lib.records.atomic import not_written, replacing
from mae_lib.records.locks import locked

# (bytes that are there, bytes in all)
Progress = Callable[[int, int], None]

_CHUNK = 2**18
# Answers that may be other in a moment; any other refusal stays.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class _Cut(Exception):
    """The connection gave out; what has arrived stays."""


def fetch(
    remote: Published,
    folder: Path,
    *,
    progress: Progress = lambda done, total: None,
    notice: Callable[[str], None] = lambda line: None,
    tries: int = 5,
    pause_s: float = 1.0,
    timeout_s: float = 30.0,
) -> Path:
    """Download `remote` into `folder` and return its path; nothing is done when it is there.

    `tries` counts attempts in a row that bring no new byte; between them it waits `pause_s`,
    doubled each time, and `notice` is told why. One process downloads, another is refused
    (BusyError).
    Raises: StoreError when the server sends something else (exit code 4), or nothing (1); MaeError
    when the disk is full or the folder cannot be written.
    """
    path = folder / remote.name
    part = folder / f"{remote.name}.part"
    with locked(folder / f".{remote.name}.lock", wait=False):
        if path.exists():
            _require_same(path, remote, f"{path}: not the published file")
            return path
        _require_room(folder, remote.size - _length(part))
        failures = 0
        while (before := _length(part)) < remote.size:
            try:
                _append(remote, part, progress, timeout_s)
            except _Cut as cut:
                failures = 0 if _length(part) > before else failures + 1
                if failures >= tries:
                    raise StoreError(
                        f"{remote.url}: cut {failures} times without a new byte, got {cut}; "
                        f"{_length(part):,} of {remote.size:,} bytes are kept, the same command "
                        "goes on from there",
                        exit_code=1,
                    ) from None
                notice(f"{remote.name}: {cut}; trying again")
                time.sleep(pause_s * 2 ** max(0, failures - 1))
        try:
            _require_same(part, remote, f"{remote.url}: changed")
        except StoreError:
            part.unlink()
            raise
        with replacing(path) as temporary:
            part.rename(temporary)
    return path


def checksums(path: Path) -> dict[str, str]:
    """Return md5 and sha256 of a file, read once."""
    sums = {name: hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha256")}
    with open(path, "rb") as file:
        while block := file.read(2**20):
            for one in sums.values():
                one.update(block)
    return {name: one.hexdigest() for name, one in sums.items()}


def _require_same(path: Path, remote: Published, what: str) -> None:
    advice = "move it away and fetch it again; if that changes nothing, the publisher's file did"
    if (size := path.stat().st_size) != remote.size:
        raise StoreError(f"{what}: size: got {size:,} bytes, wanted {remote.size:,}; {advice}")
    got = checksums(path)
    for name in ("sha256", "md5"):
        wanted = getattr(remote, name)
        if wanted is not None and got[name] != wanted:
            raise StoreError(f"{what}: {name}: got {got[name]}, wanted {wanted}; {advice}")


def _append(remote: Published, part: Path, progress: Progress, timeout_s: float) -> None:
    """Ask for the rest of a file and add what comes to `part`."""
    have = _length(part)
    headers = {"User-Agent": "mae-lib (research data download)", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(_safe(remote.url, remote.url), headers=headers)
    opener = urllib.request.build_opener(_SafeRedirects(remote.url))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            resumed = _require_file(remote, have, answer.status, answer.headers)
            have = have if resumed else 0
            _copy(remote, answer, part, have, progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                # Our part is longer than what is there now: another file.
                part.unlink(missing_ok=True)
                raise _Cut("the server has no such range; starting anew") from None
            if error.code in _PASSING:
                raise _Cut(f"HTTP {error.code}") from None
            raise StoreError(
                f"{remote.url}: refused, got HTTP {error.code} {error.reason}; look at it in a "
                "browser, the publisher may have moved it",
                exit_code=1,
            ) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as e:
        reason = getattr(e, "reason", None) or e
        words = getattr(reason, "strerror", None) or str(reason) or type(e).__name__
        raise _Cut(words) from None


def _require_file(
    remote: Published, have: int, status: int, headers: http.client.HTTPMessage
) -> bool:
    """Say whether the answer goes on where we stand; raise StoreError when it is no such file."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise StoreError(_a_page(remote, f"Content-Type {kind}"))
    if status == 206:
        unit, _, span = headers.get("Content-Range", "").partition(" ")
        first, _, total = span.partition("/")
        if unit != "bytes" or first.partition("-")[0] != str(have):
            raise StoreError(
                f"{remote.url}: Content-Range: bytes from {have:,} were asked for, "
                f"got {headers.get('Content-Range')!r}"
            )
        if total not in ("*", str(remote.size)):
            raise StoreError(_wrong_size(remote, total))
        return True
    length = headers.get("Content-Length")
    if length is not None and length != str(remote.size):
        raise StoreError(_wrong_size(remote, length))
    return False


def _copy(
    remote: Published,
    answer: http.client.HTTPResponse,
    part: Path,
    have: int,
    progress: Progress,
) -> None:
    try:
        with open(part, "r+b" if part.exists() else "wb") as file:
            file.truncate(have)
            file.seek(have)
            while chunk := _received(answer):
                if have == 0 and chunk.lstrip()[:1] == b"<":
                    raise StoreError(_a_page(remote, repr(chunk.lstrip()[:40])))
                if have + len(chunk) > remote.size:
                    raise StoreError(_wrong_size(remote, f"more than {remote.size:,}"))
                file.write(chunk)
                have += len(chunk)
                progress(have, remote.size)
    except OSError as error:
        raise not_written(part, error) from error
    # A connection that closes early ends the loop with no error of its own.
    if have < remote.size:
        raise _Cut(f"{have:,} of {remote.size:,} bytes")


def _received(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(_CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _Cut(str(error) or type(error).__name__) from None


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow a redirect to https only: over plain http anyone on the way may change the file."""

    def __init__(self, origin: str):
        self._origin = origin

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return super().redirect_request(req, fp, code, msg, headers, _safe(newurl, self._origin))


def _safe(url: str, origin: str) -> str:
    """Return a URL that nobody on the way can change; this machine's own counts as one.

    Raises: StoreError.
    """
    parts = urllib.parse.urlsplit(url)
    own = parts.scheme == "http" and parts.hostname in _LOOPBACK
    # A redirect to this machine is a trick, unless we asked this machine to begin with.
    own = own and urllib.parse.urlsplit(origin).hostname in _LOOPBACK
    if parts.scheme != "https" and not own:
        raise StoreError(
            f"{origin}: refused, got {parts.scheme or 'no scheme'}://{parts.hostname or ''} "
            "where https was expected; fetch the file by hand and put it beside the others"
        )
    return url


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"{folder}: {needed:,} bytes are to come, {free:,} are free; free space, then run the "
            "same command again",
            exit_code=1,
        )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _a_page(remote: Published, got: str) -> str:
    return (
        f"{remote.url}: a web page and not the file, got {got}; look at it in a browser: "
        "a quota, a login or a proxy may stand in between"
    )


def _wrong_size(remote: Published, got: str) -> str:
    return (
        f"{remote.url}: size: got {got} bytes, wanted {remote.size:,}; "
        "the publisher's file changed, or something stands in between"
    )
