import pytest

from scumble.errors import UsageError
from scumble.serve.settings import Settings, cores, is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_what_others_can_reach_needs_a_token(host):
    with pytest.raises(UsageError, match="a token is needed: give --token or SCUMBLE_TOKEN, or say --insecure"):
        Settings(host=host)
    assert Settings(host=host, token="long-enough").host == host
    assert Settings(host=host, insecure=True).token is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_this_machine_needs_none(host):
    assert is_loopback(host)
    assert Settings(host=host).token is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"token": "short"}, "a token must have 8 to 1024 characters; got 5"),
        ({"token": "with a space"}, "printable ASCII"),
        ({"token": "ümlaut-token"}, "printable ASCII"),
        ({"port": 70_000}, "port must be between 0 and 65535; got 70000"),
        ({"workers": 0}, "workers must be between 1 and 1024; got 0"),
        ({"queue": -1}, "queue must be between 0"),
        ({"root_path": "scumble"}, "the root path must begin with /"),
        ({"root_path": "/scumble/"}, "not end with it"),
        ({"retention": float("nan")}, "retention must be"),
    ],
)
def test_what_can_not_be_meant_is_refused(given, sentence):
    with pytest.raises(UsageError, match=sentence):
        Settings(**given)


def test_the_token_is_not_shown():
    assert "very-secret" not in repr(Settings(token="very-secret"))


def test_cores_are_split_among_the_workers():
    assert Settings(workers=1).threads == cores()
    assert Settings(workers=1000).threads == 1
