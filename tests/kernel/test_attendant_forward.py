"""Names that somebody else has to answer: what an attendant asks, whom it believes, and when it gives up."""

from itertools import pairwise
from pathlib import Path

from attended import BACK, Attended, attended
from network_place import eventually, place
from test_attendant_names import ASK, descriptors

__all__ = ["attended", "place"]  # fixtures

STUB, SECOND = "4 7f000035 53", "4 7f000036 53"  # 127.0.0.53 and 127.0.0.54 of the host
NOBODY = "4 7f000037 53"
RIGHT = ["192.0.2.1"]


def begin(attended: Attended, *servers: str, **words) -> Path:
    log = attended.serve("127.0.0.53")
    attended.write(BACK, "back", ["web 4 ac120009"])
    attended.knows(BACK, servers=servers or [STUB], **words)
    attended.start()
    return log


def asked(log: Path) -> list[list[str]]:
    """Return what a resolver was asked: protocol, id, name, type, message; what it was asked again counts once."""
    return [line.split() for line in dict.fromkeys(log.read_text().splitlines())]


def test_what_is_unknown_is_asked_for(attended: Attended) -> None:
    """Also of a resolver on the host's loopback device, which the container does not reach."""
    log = begin(attended)
    for words in (["example.org"], ["example.org", "+tcp"], ["Web2"], ["example.org", "+noedns"]):
        answer = attended.dig(*words)
        assert (answer.status, answer.records) == ("NOERROR", RIGHT), answer
    assert [(entry[0], entry[2]) for entry in asked(log)] == [
        ("udp", "example.org"),
        ("tcp", "example.org"),
        ("udp", "Web2"),
        ("udp", "example.org"),
    ]
    assert attended.dig("web").records == ["172.18.0.9"]
    assert len(asked(log)) == 4


def test_the_message_is_passed_on_as_it_is(attended: Attended) -> None:
    """EDNS, DNSSEC and what else it says are between who asks and who answers."""
    log = begin(attended)
    attended.dig("one.example", "+bufsize=1400", "+dnssec", "+nsid", "+ednsopt=65001:abcd", "TXT")
    (entry,) = asked(log)
    assert "0000290578000080" in entry[4] and "fde90002abcd" in entry[4]
    assert attended.dig("-c", "CH", "version.bind", "TXT").status == "NOERROR"
    assert asked(log)[1][2] == "version.bind"


def test_ids_cannot_be_foretold(attended: Attended) -> None:
    log = begin(attended)
    source = r"""
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.connect(("127.0.0.11", 53))
for _ in range(40):
    one.send(b"\0\7\1\0\0\1\0\0\0\0\0\0\7example\0\0\1\0\1")
    assert one.recv(512)[:2] == b"\0\7"
"""
    attended.python(source)
    ids = [int(entry[1]) for entry in asked(log)]
    assert len(ids) == 40 and len(set(ids)) > 35
    assert len({later - earlier for earlier, later in pairwise(ids)}) > 30


def test_lies_are_not_believed(attended: Attended) -> None:
    """Neither another id, nor another question, nor the question itself, nor somebody else."""
    begin(attended)
    for name in ("liar.example", "spoofed.example"):
        answer = attended.dig(name)
        assert (answer.status, answer.records) == ("NOERROR", RIGHT), answer
    assert attended.alive()


def test_garbage_is_no_answer(attended: Attended) -> None:
    begin(attended)
    assert attended.dig("garbage.example").status == "SERVFAIL"
    assert attended.dig("garbage.example", "+tcp").records == RIGHT
    assert attended.dig("liar.example", "+tcp").status == "SERVFAIL"
    assert attended.dig("closing.example", "+tcp").status == "SERVFAIL"
    assert attended.alive()


def test_who_is_silent_is_not_waited_for(attended: Attended) -> None:
    first, second = begin(attended, STUB, SECOND), attended.serve("127.0.0.54")
    answer = attended.dig("silent.example")
    assert answer.status == "SERVFAIL"  # both are
    assert [len(log.read_text().splitlines()) for log in (first, second)] == [2, 1]
    answer = attended.dig("silent.example", "+tcp")
    assert answer.status == "SERVFAIL"


def test_the_next_one_is_asked(attended: Attended) -> None:
    """At once where nobody listens, or when one cannot help; after a while where one is silent."""
    attended.serve("127.0.0.54")
    log = begin(attended, NOBODY, "4 c0000209 53", SECOND)  # the second leads nowhere
    assert attended.dig("example.org").records == RIGHT
    assert asked(log) == []
    attended.knows(BACK, servers=[NOBODY, "4 7f000038 53", SECOND])
    for words in (["example.org"], ["example.org", "+tcp"]):
        # Two that are silent would take three seconds.
        assert attended.dig(*words, "+time=2").records == RIGHT


def test_one_that_cannot_help_is_passed_on_in_the_end(attended: Attended) -> None:
    first, second = begin(attended, STUB, SECOND), attended.serve("127.0.0.54")
    assert attended.dig("servfail.example").status == "SERVFAIL"
    assert attended.dig("refused.example").status == "REFUSED"
    assert [len(log.read_text().splitlines()) for log in (first, second)] == [4, 2]
    assert attended.dig("nxdomain.example").status == "NXDOMAIN"  # an answer, and no failure
    assert len(asked(first)) == 3 and len(asked(second)) == 2


def test_a_slow_one_is_still_heard(attended: Attended) -> None:
    log = begin(attended)
    assert attended.dig("slow2500.example").records == RIGHT
    assert len(log.read_text().splitlines()) >= 2  # a datagram may have been lost: it was asked again


def test_nobody_answers(attended: Attended) -> None:
    attended.knows(BACK, servers=[NOBODY])
    attended.start()
    assert attended.dig("example.org").status == "SERVFAIL"
    assert attended.dig("example.org", "+tcp").status == "SERVFAIL"
    attended.knows(BACK)
    assert attended.dig("example.org").status == "SERVFAIL"
    assert attended.dig("example.org", "+tcp").status == "SERVFAIL"


def test_a_truncated_answer_is_fetched_over_tcp(attended: Attended) -> None:
    log = begin(attended)
    assert "tc" in attended.dig("truncated.example", "+ignore").flags
    assert len(attended.dig("truncated.example").records) == 4000
    assert [entry[0] for entry in asked(log)] == ["udp", "udp", "tcp"]
    assert len(attended.dig("large.example", "+bufsize=4096").records) == 70


def test_a_question_that_is_too_long_comes_over_tcp(attended: Attended) -> None:
    log = begin(attended)
    source = r"""
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.connect(("127.0.0.11", 53))
padding = b"\0\x0c\2\x58" + bytes(600)
one.send(b"\0\7\1\0\0\1\0\0\0\0\0\1\7example\0\0\1\0\1\0\0\x29\4\xd0\0\0\0\0\2\x5c" + padding)
answer = one.recv(512)
assert answer[2] & 2 and answer[3] & 15 == 0, answer
"""
    attended.python(source)
    assert asked(log) == []
    assert attended.dig("example.org", "+tcp", "+ednsopt=12:" + "00" * 600).records == RIGHT
    assert len(asked(log)[0][4]) > 1200


def test_internal_networks_ask_nobody(attended: Attended) -> None:
    log = begin(attended, forward=False)
    for words in (["example.org"], ["example.org", "+tcp"], ["-x", "8.8.8.8"], ["-c", "CH", "version.bind", "TXT"]):
        assert attended.dig(*words).status == "NXDOMAIN", words
    assert attended.dig("web").records == ["172.18.0.9"]
    attended.knows(BACK, servers=[STUB])
    assert attended.dig("example.org").records == RIGHT
    assert len(asked(log)) == 1


def test_a_resolver_of_the_other_family(attended: Attended) -> None:
    log = attended.serve("::1")
    attended.knows(servers=["6 " + "0" * 31 + "1 53"])
    attended.start()
    assert attended.dig("example.org").records == RIGHT
    assert attended.dig("example.org", "+tcp").records == RIGHT
    assert [entry[0] for entry in asked(log)] == ["udp", "tcp"]


def test_a_thousand_questions_to_others_at_once(attended: Attended) -> None:
    """More than can be on their way get an error at once; local names are answered all the while."""
    begin(attended)
    before = descriptors(attended)
    found = dict(eval(attended.python(ASK, "1500", "slow700.example", "3")))
    assert sum(found.values()) == 1500 and set(found) <= {0, 2} and found[0] > 300
    assert attended.dig("web").records == ["172.18.0.9"]
    assert eventually(lambda: descriptors(attended) == before)
    silent = attended.place.popen(*attended.enter, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do dig @127.0.0.11 "
                                  "+tries=1 silent$i.example >/dev/null & done; wait")  # fmt: skip
    for _ in range(20):
        assert attended.dig("web", "+time=2").records == ["172.18.0.9"]
    assert silent.wait(60) == 0
    assert eventually(lambda: descriptors(attended) == before)


def test_clients_that_leave_before_the_answer(attended: Attended) -> None:
    begin(attended)
    before = descriptors(attended)
    source = r"""
import socket, struct
message = b"\0\7\1\0\0\1\0\0\0\0\0\0\6silent\7example\0\0\1\0\1"
for number in range(200):
    with socket.create_connection(("127.0.0.11", 53), 30) as client:
        client.sendall(struct.pack(">H", len(message)) + message)
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""
    attended.python(source)
    assert attended.dig("web", "+tcp").records == ["172.18.0.9"]
    assert attended.dig("example.org", "+tcp").records == RIGHT
    assert eventually(lambda: descriptors(attended) == before)
