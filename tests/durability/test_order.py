"""The reader of traces is tested itself: it sees what leaves too early, and nothing else."""

import pytest
from order import Order, require_strace

LOG, MARKS = "/s/store.db-wal", "/s/marks"
TAKE = f'8 pwrite64(4<{MARKS}>, "take 1.5\\n", 9, 0) = 9'
OWE = f'7 pwrite64(4<{MARKS}>, "owe 1.5\\n", 8, 0) = 8'
LEAVE = f'8 pwrite64(4<{MARKS}>, "leave puback 1.5\\n", 17, 0) = 17'
WRITE = f'7 pwrite64(5<{LOG}>, "7\\177"..., 4096, 32) = 4096'
SYNC = f"7 fdatasync(5<{LOG}>) = 0"
BEGUN, DONE = f"7 fdatasync(5<{LOG}> <unfinished ...>", "7 <... fdatasync resumed>) = 0"


@pytest.mark.parametrize(
    ("lines", "early"),
    [
        ([OWE, WRITE, SYNC, LEAVE], False),
        ([OWE, WRITE, BEGUN, DONE, LEAVE], False),
        ([OWE, LEAVE, WRITE, SYNC], True),
        ([OWE, WRITE, LEAVE, SYNC], True),
        ([OWE, WRITE, BEGUN, LEAVE, DONE], True),
        ([WRITE, OWE, SYNC, LEAVE], True),
        ([OWE, SYNC, LEAVE], True),
        ([OWE, WRITE, SYNC.replace("= 0", "= -1 EIO (Input/output error)"), LEAVE], True),
        ([OWE, WRITE, BEGUN, DONE.replace("= 0", "= -1 EIO (Input/output error) (INJECTED)"), LEAVE], True),
        ([OWE, WRITE, SYNC.replace(LOG, "/s/store.db"), LEAVE], True),
        ([OWE, WRITE, BEGUN, WRITE.replace("7 ", "9 ", 1), "9 fdatasync(6</s/other>) = 0", LEAVE, DONE], True),
        ([WRITE, BEGUN, OWE, WRITE, DONE, LEAVE], True),
        ([TAKE, LEAVE, OWE, WRITE, SYNC], True),
        ([TAKE, LEAVE, TAKE, OWE, WRITE, SYNC, LEAVE], False),
    ],
)
def test_what_leaves_before_its_sync_is_early(lines: list[str], early: bool) -> None:
    order = Order(LOG, MARKS)
    for line in lines:
        order.feed(line)
    assert order.left == {"puback": 1}
    assert order.early == ([("puback", "1.5")] if early else [])


def test_what_depends_on_no_records_may_leave_at_any_time() -> None:
    order = Order(LOG, MARKS)
    for line in (WRITE, LEAVE, "7 exited", "strace: Process 8 attached", SYNC):
        order.feed(line)
    assert (order.left, order.early, order.syncs) == ({}, [], 1)


def test_the_same_message_may_go_again_but_an_acknowledgement_is_of_its_own_message() -> None:
    order = Order(LOG, MARKS)
    for line in (OWE, WRITE, SYNC, OWE, LEAVE, OWE, LEAVE):
        order.feed(line)
    assert (order.left, order.early) == ({"puback": 1}, [])
    for line in (TAKE, OWE, LEAVE):
        order.feed(line)
    assert (order.left, order.early) == ({"puback": 2}, [("puback", "1.5")])


def test_without_strace_nothing_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="strace is missing"):
        require_strace()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="strace is missing"):
        require_strace()
