"""What the broker still has to be told about filters, over lost connections and lost sessions."""

from hushfleet.mqtt.subscriptions import ALWAYS, IF_NEW, MOST, Handling, Subscriptions


def sent(subscriptions: Subscriptions) -> list[tuple[str, Handling]]:
    """Take all requests and note them as asked, numbered from 1; the filters in them."""
    result, number = [], 0
    while request := subscriptions.take():
        number += 1
        assert len({handling is None for _, handling in request}) == 1
        assert len(request) <= MOST
        result += request
        subscriptions.asked(number, request)
    return result


def test_requests_go_out_in_order_and_only_the_last_one_for_a_filter() -> None:
    subscriptions = Subscriptions()
    subscriptions.want("a")
    subscriptions.want("b")
    subscriptions.release("a")
    assert sent(subscriptions) == [("b", ALWAYS), ("a", None)]
    assert subscriptions.open
    assert subscriptions.answered(1, [True]) == []
    assert subscriptions.answered(2, []) == []
    assert not subscriptions.open
    assert sent(subscriptions) == []


def test_what_is_asked_for_at_once_is_one_request_in_its_order() -> None:
    subscriptions = Subscriptions()
    for number in range(MOST + 2):
        subscriptions.want(str(number), again=number % 2 == 0)
    subscriptions.release("x")
    subscriptions.release("y")
    subscriptions.want("z")
    requests = []
    while request := subscriptions.take():
        requests.append([topic for topic, _ in request])
    everything = [str(number) for number in range(MOST + 2)]
    assert requests == [everything[:MOST], everything[MOST:], ["x", "y"], ["z"]]


def test_a_filter_wanted_again_is_requested_again() -> None:
    subscriptions = Subscriptions()
    subscriptions.want("a")
    assert sent(subscriptions) == [("a", ALWAYS)]
    subscriptions.answered(1, [True])
    subscriptions.want("a")
    assert sent(subscriptions) == [("a", ALWAYS)]


def test_a_lost_connection_puts_the_unanswered_in_front() -> None:
    subscriptions = Subscriptions()
    subscriptions.want("b")
    sent(subscriptions)
    subscriptions.answered(1, [True])
    for name in ("a", "c"):
        subscriptions.want(name)
    sent(subscriptions)
    subscriptions.want("d")
    subscriptions.release("c")
    subscriptions.rewind()
    assert sent(subscriptions) == [("a", ALWAYS), ("d", ALWAYS), ("c", None)]


def test_a_lost_session_requests_all_that_is_wanted_and_nothing_else() -> None:
    subscriptions = Subscriptions()
    for name in ("a", "b", "c", "d"):
        subscriptions.want(name)
    sent(subscriptions)
    assert subscriptions.answered(1, [True, True, True, False]) == ["d"]
    subscriptions.release("b")
    subscriptions.renew()
    assert sent(subscriptions) == [("a", ALWAYS), ("c", ALWAYS)]


def test_a_refused_release_is_no_refused_subscription() -> None:
    subscriptions = Subscriptions()
    subscriptions.release("a")
    sent(subscriptions)
    assert subscriptions.answered(1, [False]) == []


def test_a_subscription_that_may_be_there_already_does_not_weaken_one_that_waits() -> None:
    subscriptions = Subscriptions()
    subscriptions.want("a")
    subscriptions.want("b", again=False)
    subscriptions.want("a", again=False)
    assert sent(subscriptions) == [("a", ALWAYS), ("b", IF_NEW)]
    subscriptions.want("c")
    subscriptions.rewind()
    for name in ("a", "b", "c"):
        subscriptions.want(name, again=False)
    assert sent(subscriptions) == [("a", ALWAYS), ("c", ALWAYS), ("b", IF_NEW)]
    subscriptions.renew()
    assert sent(subscriptions) == [("a", ALWAYS), ("b", ALWAYS), ("c", ALWAYS)]
