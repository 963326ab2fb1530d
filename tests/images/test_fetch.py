"""A download is the published file or no file, whatever the server does."""

import contextlib
import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mae_lib.errors import BusyError, MaeError, StoreError
from mae_lib.images.fetch import checksums, fetch
from mae_lib.images.publishers import PUBLISHERS, Published, instructions, publisher_of
from mae_lib.records.locks import locked

CONTENT = gzip.compress(os.urandom(150_000), mtime=0)
PAGE = b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"


class _Server(http.server.ThreadingHTTPServer):
    """Does what `answers` says, one after the other, the last again and again."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.ranges, self.handle_error = answers, [], lambda *_: None


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def send(self, status, body, *, length=None, kind="application/gzip", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def start(self):
        wish = self.headers.get("Range")
        return int(wish.removeprefix("bytes=").removesuffix("-")) if wish else 0

    def rest(self, content=CONTENT, most=None):
        """Answer a range properly, but send `most` bytes at most."""
        body = content[self.start :]
        sent = body if most is None else body[:most]
        if not self.start:
            return self.send(200, sent, length=len(body))
        span = f"bytes {self.start}-{len(content) - 1}/{len(content)}"
        return self.send(206, sent, length=len(body), Content_Range=span)


@contextlib.contextmanager
def serving(*answers):
    server = _Server(list(answers))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, remote(f"http://127.0.0.1:{server.server_address[1]}/set.tar.gz")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def remote(url, content=CONTENT):
    sums = {name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha256")}
    return Published("set.tar.gz", len(content), sums["md5"], sums["sha256"], url)


def test_a_good_file_is_fetched_once_and_checked_when_it_is_there(tmp_path):
    with serving(lambda h: h.rest()) as (server, wanted):
        seen = []
        path = fetch(wanted, tmp_path, progress=lambda done, total: seen.append((done, total)))
        assert path.read_bytes() == CONTENT
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        fetch(wanted, tmp_path)
        assert server.ranges == [None]
    assert checksums(path)["md5"] == wanted.md5
    assert {p.name for p in tmp_path.iterdir()} == {"set.tar.gz", ".set.tar.gz.lock"}


def test_a_cut_download_is_resumed_by_range_in_this_run_and_in_the_next(tmp_path):
    with serving(lambda h: h.rest(most=50_000)) as (server, wanted):
        assert fetch(wanted, tmp_path, pause_s=0).read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=50000-", "bytes=100000-", "bytes=150000-"]
    (tmp_path / "set.tar.gz").unlink()
    with serving(lambda h: h.rest(most=5_000), lambda h: h.send(503, b"")) as (server, wanted):
        with pytest.raises(StoreError, match=r"cut 2 times .*HTTP 503; 5,000 of .* are kept"):
            fetch(wanted, tmp_path, tries=2, pause_s=0)
        assert (tmp_path / "set.tar.gz.part").stat().st_size == 5_000
    with serving(lambda h: h.rest()) as (server, wanted):
        assert fetch(wanted, tmp_path).read_bytes() == CONTENT
        assert server.ranges == ["bytes=5000-"]


def test_a_download_that_is_killed_is_resumed(tmp_path):
    done = threading.Event()

    def hold(handler):
        handler.rest(most=70_000)
        handler.wfile.flush()
        done.wait(20)

    code = (
        "import sys; from pathlib import Path; from mae_lib.images.fetch import fetch\n"
        "from mae_lib.images.publishers import Published\n"
        "fetch(Published('set.tar.gz', int(sys.argv[2]), url=sys.argv[1]), Path(sys.argv[3]))"
    )
    part = tmp_path / "set.tar.gz.part"
    with serving(hold, lambda h: h.rest()) as (server, wanted):
        child = subprocess.Popen(
            [sys.executable, "-c", code, wanted.url, str(wanted.size), str(tmp_path)]
        )
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.kill()
        child.wait()
        done.set()
        have = part.stat().st_size
        assert fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert 0 < have <= 70_000
    assert server.ranges == [None, f"bytes={have}-"]


def test_a_server_without_ranges_starts_anew_and_one_that_lost_the_range_too(tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT[:9_000])
    with serving(lambda h: h.send(200, CONTENT)) as (_, wanted):
        assert fetch(wanted, tmp_path).read_bytes() == CONTENT
    (tmp_path / "set.tar.gz").rename(tmp_path / "set.tar.gz.part")
    os.truncate(tmp_path / "set.tar.gz.part", 9_000)
    with serving(lambda h: h.send(416, b""), lambda h: h.rest()) as (server, wanted):
        assert fetch(wanted, tmp_path, pause_s=0).read_bytes() == CONTENT
        assert server.ranges == ["bytes=9000-", None]


def _changed(handler):
    body = bytearray(CONTENT)
    body[-1] ^= 1
    handler.rest(bytes(body))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda h: h.send(200, PAGE, kind="text/html; charset=utf-8"), "a web page and not the"),
        (lambda h: h.send(200, PAGE, length=len(CONTENT)), "a web page and not the file"),
        (_changed, "changed: sha256: got"),
        (lambda h: h.send(200, CONTENT[:1000]), "size: got 1000 bytes, wanted"),
        (lambda h: h.send(200, CONTENT + b"more"), f"size: got {len(CONTENT) + 4} bytes, wanted"),
        (lambda h: h.send(302, b"", Location="http://example.org/set.tar.gz"), "got http://exam"),
        (lambda h: h.send(302, b"", Location="ftp://example.org/set"), "got ftp://example.org"),
        (lambda h: h.send(404, b""), "refused, got HTTP 404"),
        (lambda h: h.send(403, PAGE, kind="text/html"), "refused, got HTTP 403"),
    ],
)
def test_what_is_not_the_file_is_refused_in_one_line_and_leaves_none(tmp_path, answer, says):
    with serving(answer) as (_, wanted), pytest.raises(StoreError) as caught:
        fetch(wanted, tmp_path, pause_s=0)
    assert says in str(caught.value)
    assert caught.value.exit_code == (1 if says.startswith("refused") else 4)
    assert not (tmp_path / "set.tar.gz").exists()


@pytest.mark.parametrize(
    ("span", "says"),
    [("bytes 0-9/10", "Content-Range: bytes from 400 were asked for"), ("bytes 400-9/10", "size")],
)
def test_a_range_that_was_not_asked_for_is_refused(tmp_path, span, says):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT[:400])

    def answer(handler):
        handler.send(206, CONTENT[:10], Content_Range=span)

    with serving(answer) as (_, wanted), pytest.raises(StoreError, match=says):
        fetch(wanted, tmp_path, pause_s=0)
    assert (tmp_path / "set.tar.gz.part").read_bytes() == CONTENT[:400]


def test_a_server_that_is_gone_and_an_address_that_is_plain_are_one_line(tmp_path):
    with serving(lambda h: h.rest()) as (_, wanted):
        pass
    with pytest.raises(
        StoreError, match=r"cut 2 times without a new byte, got .*refused"
    ) as caught:
        fetch(wanted, tmp_path, tries=2, pause_s=0)
    assert caught.value.exit_code == 1
    assert "Errno" not in str(caught.value)
    with pytest.raises(StoreError, match=r"got http://example.org where https was expected"):
        fetch(remote("http://example.org/set.tar.gz"), tmp_path)


def test_a_server_that_falls_silent_is_left_and_asked_again(tmp_path):
    done = threading.Event()

    def silent(handler):
        handler.rest(most=70_000)
        handler.wfile.flush()
        done.wait(10)

    with serving(silent, lambda h: h.rest()) as (server, wanted):
        path = fetch(wanted, tmp_path, pause_s=0, timeout_s=0.2)
        done.set()
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=70000-"]


def test_a_file_that_is_there_and_another_is_not_overwritten(tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"mine")
    with pytest.raises(StoreError, match="not the published file: size: got 4 bytes"):
        fetch(remote("https://example.org/set.tar.gz"), tmp_path)
    assert (tmp_path / "set.tar.gz").read_bytes() == b"mine"


def test_a_second_download_of_the_same_file_is_refused(tmp_path):
    with locked(tmp_path / ".set.tar.gz.lock"), pytest.raises(BusyError):
        fetch(remote("https://example.org/set.tar.gz"), tmp_path)


def test_a_full_disk_is_one_line(tmp_path):
    huge = Published("set.tar.gz", 10**18, None, None, "https://example.org/set.tar.gz")
    with pytest.raises(StoreError, match="free space") as caught:
        fetch(huge, tmp_path)
    assert caught.value.exit_code == 1
    with serving(lambda h: h.rest()) as (_, wanted):
        (tmp_path / "set.tar.gz.part").symlink_to("/dev/full")
        with pytest.raises(MaeError, match="cannot be written"):
            fetch(wanted, tmp_path)


@pytest.mark.parametrize("name", list(PUBLISHERS))
def test_every_public_set_says_its_files_terms_and_place(name):
    lines = "\n".join(instructions(publisher_of(name), "MAE_DATA"))
    for word in ("page:", "terms:", "steps:", "1. ", "put into MAE_DATA", PUBLISHERS[name].page):
        assert word in lines
    for file in PUBLISHERS[name].files:
        assert file.name in lines
        if file.size:
            assert f"{file.size:,} bytes" in lines


def test_only_the_set_without_terms_is_downloaded():
    assert [p.name for p in PUBLISHERS.values() if p.free] == ["cifar10"]
    file = PUBLISHERS["cifar10"].files[0]
    assert (file.size, file.md5) == (170_052_171, "c32a1d4ab5d03f1284b67883e8d87530")
    with pytest.raises(MaeError, match="did you mean 'imagenet'"):
        publisher_of("imagnet")
    assert Path(file.url).name == file.name
