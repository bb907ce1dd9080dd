import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scumble import fetch as module
from scumble.errors import InputError, UsageError
from scumble.fetch import cache_folder, fetch

BODY = bytes(range(256)) * 2000
SHA = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY in ways that a real server may: see the paths in Handler."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    def url(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        kind = self.path.split("/")[1]
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "busy" and len(self.server.ranges) < 3:
            self.send_error(503)
            return
        body = b"\n<!DOCTYPE HTML><title>Sign in</title>" if kind in ("html", "login") else BODY
        start = int(wanted[6:-1]) if wanted and kind not in ("plain", "login") else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        broken = kind == "short" or (kind in ("once", "plain") and len(self.server.ranges) == 1)
        self.wfile.write(body[start : start + 100_000] if broken else body[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    for name in ("SCUMBLE_OFFLINE", "SCUMBLE_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_downloads_once(server, tmp_path):
    seen = []
    path = fetch(server.url("good/net.pth"), SHA, tmp_path / "a" / "b", report=lambda here, total: seen.append((here, total)))
    assert path == tmp_path / "a" / "b" / "net.pth"
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert fetch(server.url("good/net.pth"), SHA, tmp_path / "a" / "b") == path
    assert len(server.ranges) == 1
    assert visible(path.parent) == ["net.pth"]


def test_first_digits_of_the_hash_suffice(server, tmp_path):
    assert fetch(server.url("good/net.pth"), SHA[:8].upper(), tmp_path).read_bytes() == BODY


def test_goes_on_where_it_broke_off(server, tmp_path):
    assert fetch(server.url("once/net.pth"), SHA, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-"]


def test_goes_on_after_an_interruption(server, tmp_path):
    def interrupt(here, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url("good/net.pth"), SHA, tmp_path, report=interrupt)
    assert visible(tmp_path) == ["net.pth.part"]
    here = (tmp_path / "net.pth.part").stat().st_size
    assert 0 < here < len(BODY)
    assert fetch(server.url("good/net.pth"), SHA, tmp_path).read_bytes() == BODY
    assert server.ranges[1] == f"bytes={here}-"


def test_starts_again_where_the_server_knows_no_range(server, tmp_path):
    assert fetch(server.url("plain/net.pth"), SHA, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-"]


def test_server_that_is_busy_is_asked_again(server, tmp_path):
    assert fetch(server.url("busy/net.pth"), SHA, tmp_path).read_bytes() == BODY


def test_complete_part_is_used(server, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(BODY)
    assert fetch(server.url("good/net.pth"), SHA, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("stale", [b"another version" * 100, BODY + b"too long"])
def test_stale_part_is_replaced(server, tmp_path, stale):
    (tmp_path / "net.pth.part").write_bytes(stale)
    assert fetch(server.url("good/net.pth"), SHA, tmp_path).read_bytes() == BODY
    assert visible(tmp_path) == ["net.pth"]


def test_truncated_keeps_its_part(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    with pytest.raises(InputError, match=r"200000 bytes are here and the next try goes on.*net\.pth$"):
        fetch(server.url("short/net.pth"), SHA, tmp_path)
    assert (tmp_path / "net.pth.part").read_bytes() == BODY[:200_000]
    assert visible(tmp_path) == ["net.pth.part"]


def test_wrong_hash_keeps_nothing(server, tmp_path):
    with pytest.raises(InputError, match=f"{SHA} and should have {'0' * 64}.*nothing was kept"):
        fetch(server.url("good/net.pth"), "0" * 64, tmp_path)
    assert visible(tmp_path) == []


def test_web_page_is_refused(server, tmp_path):
    with pytest.raises(InputError, match="is a web page and not weights"):
        fetch(server.url("html/net.pth"), SHA, tmp_path)
    assert visible(tmp_path) == []


def test_web_page_does_not_cost_what_is_here(server, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(BODY[:100_000])
    with pytest.raises(InputError, match="is a web page"):
        fetch(server.url("login/net.pth"), SHA, tmp_path)
    assert fetch(server.url("good/net.pth"), SHA, tmp_path).read_bytes() == BODY
    assert server.ranges == ["bytes=100000-", "bytes=100000-"]


def test_missing(server, tmp_path):
    with pytest.raises(InputError, match="404"):
        fetch(server.url("missing/net.pth"), SHA, tmp_path)
    assert len(server.ranges) == 1


def test_unreachable(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match=r"can't be downloaded .*[Rr]efused"):
        fetch(server.url("good/net.pth"), SHA, tmp_path)


@pytest.mark.parametrize("by_environment", [False, True])
def test_offline(server, tmp_path, monkeypatch, by_environment):
    url = server.url("good/net.pth")
    if by_environment:
        monkeypatch.setenv("SCUMBLE_OFFLINE", "1")
    with pytest.raises(InputError) as e:
        fetch(url, SHA, tmp_path / "cache", offline=not by_environment)
    for part in (url, str(tmp_path / "cache" / "net.pth")):
        assert part in str(e.value)
    assert not (tmp_path / "cache").exists()
    assert server.ranges == []
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "net.pth").write_bytes(BODY[:-1])
    with pytest.raises(InputError, match="another SHA-256"):
        fetch(url, SHA, tmp_path / "cache", offline=True)
    (tmp_path / "cache" / "net.pth").write_bytes(BODY)
    assert fetch(url, SHA, tmp_path / "cache", offline=True).read_bytes() == BODY


def test_damaged_file_is_replaced(server, tmp_path):
    (tmp_path / "net.pth").write_bytes(BODY[:-1])
    assert fetch(server.url("good/net.pth"), SHA, tmp_path).read_bytes() == BODY


def test_two_processes_download_once(server, tmp_path):
    code = "import sys; from pathlib import Path; from scumble.fetch import fetch; fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, server.url("once/net.pth"), SHA, str(tmp_path)]
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [p.wait(timeout=60) for p in both] == [0, 0]
    assert (tmp_path / "net.pth").read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-"]


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="SCUMBLE_CACHE can name another folder"):
        fetch(server.url("good/net.pth"), SHA, tmp_path / "file")


def test_usage():
    with pytest.raises(UsageError, match="https://"):
        fetch("file:///etc/passwd", SHA)
    with pytest.raises(UsageError, match="end in a file name"):
        fetch("https://example.org/", SHA)
    with pytest.raises(UsageError, match="8 to 64"):
        fetch("https://example.org/a.pth", "abc")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    assert not cache_folder().exists()
    monkeypatch.delenv("SCUMBLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "scumble"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "scumble"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "scumble"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "scumble" / "Cache"
