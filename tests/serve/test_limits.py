import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scumble.serve.limits import BusyError, Cache, Slots, Upload


@pytest.fixture
def slots():
    made = Slots(1, 2, "test")
    yield made
    made.close()


def test_slots_take_so_many_and_no_more(slots):
    go = threading.Event()
    calls = [slots.submit(go.wait) for _ in range(3)]
    with pytest.raises(BusyError) as refused:
        slots.submit(go.wait)
    assert refused.value.retry_after >= 1
    go.set()
    assert [call.result(5) for call in calls] == [True] * 3
    deadline = time.monotonic() + 5
    while slots.taken and time.monotonic() < deadline:  # the last callback runs just after the result is there
        time.sleep(0.001)
    assert slots.taken == 0
    assert slots.submit(lambda: 7).result(5) == 7


def test_a_call_that_is_cancelled_makes_room(slots):
    go = threading.Event()
    first = slots.submit(go.wait)
    waiting = slots.submit(go.wait)
    assert waiting.cancel()
    assert slots.taken == 1
    go.set()
    assert first.result(5)
    with pytest.raises(CancelledError):
        waiting.result(0)


def test_what_a_call_raises_is_raised_and_the_worker_goes_on(slots):
    with pytest.raises(ZeroDivisionError):
        slots.submit(lambda: 1 // 0).result(5)
    assert slots.submit(lambda: 1).result(5) == 1


def test_two_who_ask_at_the_same_time_get_one_value():
    cache, made = Cache(10), []
    together = threading.Barrier(8)

    def make():
        made.append(1)
        time.sleep(0.05)
        return object()

    def ask(_):
        together.wait(5)
        return cache.get("key", make)

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(ask, range(8)))
    assert len(made) == cache.made == 1
    assert all(value is values[0] for value in values)


def test_a_value_that_could_not_be_made_is_tried_again():
    cache = Cache(10)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 // 0)
    assert cache.get("key", lambda: 3) == 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=60), st.integers(1, 12))
def test_a_cache_holds_the_latest_within_its_limit(calls, limit):
    cache, model = Cache(limit, cost=lambda value: value), {}
    for key, cost in calls:
        value = cache.get(key, lambda cost=cost: cost)
        model[key] = model.pop(key, cost)  # moved to the end
        assert value == model[key]
        while sum(model.values()) > limit and len(model) > 1:
            del model[next(iter(model))]
        assert {k for k in range(10) if k in cache._values} == set(model)
        assert cache.cost == sum(model.values())


def test_uploads_are_known_by_what_they_hold():
    assert Upload("a", b"abc").sha256 == Upload("b", b"abc").sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
