"""A resolver whose manners depend on what it is asked for: the first label says what it does.

    python name_server.py ADDRESS PORT LOG

Writes a line to LOG for each question: protocol, id, name, type, and the message in hexadecimal digits.
"""

import selectors
import socket
import struct
import sys
import time

ANSWER = bytes([192, 0, 2, 1])


def parse(message: bytes) -> tuple[str, int, int]:
    """Return name, type and the end of the question."""
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("latin-1"))
        at += 1 + message[at]
    return ".".join(labels), struct.unpack(">H", message[at + 1 : at + 3])[0], at + 5


def reply(message: bytes, count: int = 1, *, flags: int = 0x8180, number: int | None = None) -> bytes:
    """Return an answer with records of type A."""
    end = parse(message)[2]
    head = struct.pack(
        ">HHHHHH", struct.unpack(">H", message[:2])[0] if number is None else number, flags, 1, count, 0, 0
    )
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + ANSWER
    return head + message[12:end] + record * count


class Server:
    def __init__(self, address: str, port: int, log: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.datagrams = socket.socket(family, socket.SOCK_DGRAM)
        self.datagrams.bind((address, port))
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen(128)
        self.other = socket.socket(family, socket.SOCK_DGRAM)  # answers from a port that nobody has asked
        self.log = open(log, "a", buffering=1)  # noqa: SIM115  (as long as the server)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.datagrams, selectors.EVENT_READ, self.datagram)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.later: list[tuple[float, bytes, object]] = []

    def note(self, protocol: str, message: bytes) -> str:
        name, kind, _ = parse(message)
        print(protocol, struct.unpack(">H", message[:2])[0], name, kind, message.hex(), file=self.log)
        return name.lower()

    def serve(self) -> None:
        print("ready", flush=True)
        while True:
            wait = max(0.0, min(due for due, _, _ in self.later) - time.monotonic()) if self.later else None
            for key, _ in self.selector.select(wait):
                key.data(key.fileobj)
            now = time.monotonic()
            ready = [entry for entry in self.later if entry[0] <= now]
            self.later = [entry for entry in self.later if entry[0] > now]
            for _, message, client in ready:
                self.datagrams.sendto(message, client)

    def datagram(self, _: socket.socket) -> None:
        message, client = self.datagrams.recvfrom(65535)
        manner = self.note("udp", message).split(".")[0]
        number = struct.unpack(">H", message[:2])[0]
        right = reply(message)
        if manner.startswith("slow"):
            self.later.append((time.monotonic() + int(manner[4:]) / 1000, right, client))
            return
        answers = {
            "silent": [],
            "liar": [
                reply(message, number=number ^ 1),
                reply(message.replace(b"\4liar", b"\4lion")),
                message,
                b"",
                right[:11],
                right[:20],
                right[:2] + b"\0" + right[3:],
            ],
            "garbage": [bytes(range(256)), message[:2] + b"\x81\x80" + b"\xff" * 500],
            "servfail": [reply(message, 0, flags=0x8182)],
            "refused": [reply(message, 0, flags=0x8185)],
            "nxdomain": [reply(message, 0, flags=0x8183)],
            "truncated": [reply(message, 0, flags=0x8380)],
            "large": [reply(message, 70)],
        }.get(manner, [right])
        if manner == "spoofed":
            self.other.sendto(right.replace(ANSWER, b"\6\6\6\6"), client)
            self.later.append((time.monotonic() + 0.1, right, client))
            return
        for answer in answers:
            self.datagrams.sendto(answer, client)
        if manner == "liar":
            self.later.append((time.monotonic() + 0.1, right, client))

    def accept(self, _: socket.socket) -> None:
        stream, _address = self.listener.accept()
        self.selector.register(stream, selectors.EVENT_READ, self.stream)

    def stream(self, stream: socket.socket) -> None:
        head = stream.recv(2, socket.MSG_WAITALL)
        if len(head) < 2:
            self.selector.unregister(stream)
            stream.close()
            return
        message = stream.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)
        manner = self.note("tcp", message).split(".")[0]
        answer = reply(message, 4000 if manner in ("truncated", "large") else 1)
        if manner == "silent":
            return
        if manner == "liar":
            answer = reply(message, number=1 + struct.unpack(">H", message[:2])[0] & 0xFFFF)
        if manner == "closing":
            self.selector.unregister(stream)
            stream.close()
            return
        stream.setblocking(True)
        stream.sendall(struct.pack(">H", len(answer)))  # in two pieces
        stream.sendall(answer)


if __name__ == "__main__":
    Server(sys.argv[1], int(sys.argv[2]), sys.argv[3]).serve()
