import base64
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scumble.serve.settings import Settings

security = pytest.importorskip("scumble.serve.security", reason="needs the extra serve: pip install 'scumble[serve]'")
httpx = pytest.importorskip("httpx", reason="needs httpx: pip install 'scumble[dev]'")

TOKEN = "a-token-to-test-with"


@pytest.fixture(scope="module")
def plain(serving, tmp_path_factory):
    settings = Settings(data=tmp_path_factory.mktemp("plain"), page=False, max_body=300_000, timeout=3, allowed_hosts=("Pictures.Example",))
    with serving(settings) as url:
        yield url


@pytest.fixture(scope="module")
def guarded(serving, tmp_path_factory):
    with serving(Settings(data=tmp_path_factory.mktemp("guarded"), page=False, token=TOKEN, root_path="/art", per_client=2)) as url:
        yield url


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@given(st.text(max_size=60))
def test_only_the_token_opens(text):
    assert security.authorized(f"Bearer {text}", TOKEN) == (text.strip() == TOKEN)
    assert not security.authorized(text, TOKEN) or text.partition(" ")[2].strip() == TOKEN


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic("", TOKEN), basic("anybody", TOKEN)])
def test_ways_to_show_the_token(guarded, header):
    assert httpx.get(f"{guarded}/v1/styles", headers={"authorization": header}).status_code == 200


@pytest.mark.parametrize("header", ["", TOKEN, "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Basic !!", basic(TOKEN, "")])
@pytest.mark.parametrize("path", ["/v1/styles", "/v1/jobs/x", "/metrics", "/docs", "/openapi.json", "/nothing"])
def test_without_the_token_nothing_is_told(guarded, path, header):
    answer = httpx.get(guarded + path, headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.json() == {"error": "a token is needed: send Authorization: Bearer TOKEN", "id": answer.headers["x-request-id"]}
    assert answer.headers["www-authenticate"].startswith("Bearer" if path.startswith("/v1") else "Basic")


def test_refusals_are_in_the_log_with_their_id_and_without_what_was_sent(plain, guarded, caplog):
    asked = [
        httpx.get(f"{guarded}/v1/styles", headers={"authorization": f"Bearer {TOKEN}x"}),
        httpx.get(f"{plain}/v1/styles", headers={"host": "evil.example"}),
        httpx.post(f"{plain}/v1/stylize", headers={"origin": "https://evil.example"}),
        httpx.post(f"{plain}/v1/stylize", content=bytes(300_001)),
        httpx.post(f"{plain}/v1/stylize?style=irises", content=b"what was sent"),
        httpx.post(f"{plain}/v1/stylize?style=irises&detail=%0Aa%1B[31m", content=b"what was sent"),
        httpx.get(f"{plain}/v1/jobs/none"),
    ]
    assert [answer.status_code for answer in asked] == [401, 421, 403, 413, 422, 422, 404]
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("scumble")]
    assert [line.partition(", ")[0] for line in lines] == [f"request {a.json()['id']}: {a.status_code}" for a in asked]
    assert all(line.isprintable() and TOKEN not in line and "what was sent" not in line for line in lines)


def test_balancers_need_no_token(guarded):
    assert httpx.get(f"{guarded}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{guarded}/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("prefix", ["", "/art"])
def test_proxies_may_leave_or_cut_their_path(guarded, prefix):
    client = httpx.Client(headers={"authorization": f"Bearer {TOKEN}"})
    assert client.get(f"{guarded}{prefix}/v1/styles/great-wave").json()["title"]
    docs = client.get(f"{guarded}{prefix}/docs")
    assert docs.status_code == 200
    assert "/art/openapi.json" in docs.text
    assert client.get(f"{guarded}{prefix}/openapi.json").json()["openapi"].startswith("3.")


def test_names_of_other_machines_are_not_answered(plain):
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "", "[::1", "[x]"):
        answer = httpx.get(f"{plain}/v1/styles", headers={"host": host})
        assert answer.status_code == 421, host
    for host in ("localhost", "127.0.0.1:1234", "[::1]:80", "LOCALHOST", "pictures.example", "Pictures.Example:80"):
        assert httpx.get(f"{plain}/v1/styles", headers={"host": host}).status_code == 200, host


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[x"])
def test_pages_of_other_sites_can_not_post(plain, photo, origin):
    for headers in ({"origin": origin}, {"sec-fetch-site": "cross-site"}):
        answer = httpx.post(f"{plain}/v1/stylize?style=irises", content=photo, headers=headers)
        assert answer.status_code == 403
    own = httpx.post(f"{plain}/v1/stylize?style=irises", content=photo, headers={"origin": plain, "sec-fetch-site": "same-origin"})
    assert own.status_code == 200


def test_no_other_site_is_allowed_to_read(plain):
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = httpx.options(f"{plain}/v1/stylize", headers=asked)
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/styles", "/v1/nothing", "/docs", "/healthz"])
def test_every_answer_has_the_headers(plain, path):
    answer = httpx.get(plain + path)
    for name, value in security.HEADERS.items():
        assert answer.headers[name] == value
    assert "server" not in answer.headers
    assert (answer.headers.get("cache-control") == "no-store") == path.startswith("/v1")


def test_the_docs_load_nothing_from_elsewhere(plain):
    docs = httpx.get(f"{plain}/docs").text
    assert "swagger-ui" in docs
    assert "http://" not in docs
    assert "https://" not in docs


def test_an_upload_that_is_too_large_is_refused(plain):
    answer = httpx.post(f"{plain}/v1/stylize?style=irises", content=b"x" * 300_001)
    assert answer.status_code == 413
    assert answer.json()["error"] == "the upload is larger than 300,000 bytes"


def test_an_upload_that_does_not_tell_its_size_is_counted(plain):
    def chunks():
        for _ in range(40):
            yield b"x" * 10_000

    assert httpx.post(f"{plain}/v1/stylize?style=irises", content=chunks()).status_code == 413


def test_an_upload_that_does_not_come_is_given_up(plain):
    host, port = plain.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        began = time.monotonic()
        connection.sendall(b"POST /v1/stylize?style=irises HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nabc")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert 2 < time.monotonic() - began < 15


def test_streams_without_an_end_of_their_own_end_with_the_service():
    import asyncio

    async def run():
        sent = []

        async def app(_scope, _receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream; charset=utf-8")]})
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        guard = security.Guard(app, Settings(), lambda *_: None)
        scope = {"type": "http", "method": "GET", "path": "/v1/jobs/x/events", "headers": [(b"host", b"localhost")], "client": None}
        stream = asyncio.create_task(guard(scope, None, send))
        await asyncio.sleep(0.01)
        guard.close_streams()
        await asyncio.wait_for(stream, 5)
        return sent[-1]

    assert asyncio.run(run()) == {"type": "http.response.body", "body": b"", "more_body": False}


def test_a_page_takes_nothing_from_the_quota_of_programs():
    import asyncio

    async def run():
        hold, answered = asyncio.Event(), []

        async def app(scope, _receive, send):
            if not scope["path"].startswith("/v1"):
                await hold.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def ask(path):
            async def send(message):
                if message["type"] == "http.response.start":
                    answered.append(message["status"])

            scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1)}
            await guard(scope, None, send)

        guard = security.Guard(app, Settings(per_client=1), lambda *_: None)
        pages = [asyncio.create_task(ask("/gradio_api/heartbeat/a")) for _ in range(3)]
        await asyncio.sleep(0)
        await ask("/v1/styles")
        hold.set()
        await asyncio.gather(*pages)
        return answered

    assert asyncio.run(run()) == [200] * 4


def test_one_client_has_so_many_requests_at_a_time(guarded):
    host, port = guarded.removeprefix("http://").split(":")
    slow = []
    for _ in range(2):
        connection = socket.create_connection((host, int(port)), timeout=20)
        head = f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 1000\r\n\r\n"
        connection.sendall(head.encode())
        slow.append(connection)
    time.sleep(0.3)
    ask = {"url": f"{guarded}/v1/styles", "headers": {"authorization": f"Bearer {TOKEN}"}}
    refused = httpx.get(**ask)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    for connection in slow:
        connection.close()
    time.sleep(0.3)
    assert httpx.get(**ask).status_code == 200
