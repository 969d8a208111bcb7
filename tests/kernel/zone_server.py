"""A resolver that answers with the records that a file names: `python zone_server.py ADDRESS PORT ZONE LOG`.

ZONE is JSON, read again for each question: what is asked for, in small letters, to what the answer section holds, each
record as [name, type, seconds, data]; a type that is a number has hexadecimal data. The records of a question for A or
AAAA leave out those of the other. Names point back to where they have been written before. A name that is not there
does not exist. "truncated.NAME" is answered over UDP by saying so. LOG gets a line for each question.
"""

import json
import socket
import struct
import sys
import threading
from pathlib import Path

TYPES = {"A": 1, "CNAME": 5, "AAAA": 28}


class Message:
    def __init__(self, head: bytes) -> None:
        self.bytes = head
        self.places: dict[str, int] = {}

    def name(self, text: str) -> None:
        while text:
            if text.lower() in self.places:
                self.bytes += struct.pack(">H", 0xC000 | self.places[text.lower()])
                return
            if len(self.bytes) < 0x4000:
                self.places[text.lower()] = len(self.bytes)
            label, _, text = text.partition(".")
            self.bytes += bytes([len(label)]) + label.encode()
        self.bytes += b"\0"

    def record(self, owner: str, kind: str | int, seconds: int, data: str) -> None:
        self.name(owner)
        number = TYPES[kind] if isinstance(kind, str) else kind
        self.bytes += struct.pack(">HHIH", number, 1, seconds, 0)
        begin = len(self.bytes)
        if kind == "CNAME":
            self.name(data)
        elif isinstance(kind, int):
            self.bytes += bytes.fromhex(data)
        else:
            self.bytes += socket.inet_pton(socket.AF_INET if kind == "A" else socket.AF_INET6, data)
        self.bytes = self.bytes[: begin - 2] + struct.pack(">H", len(self.bytes) - begin) + self.bytes[begin:]


def answer(query: bytes, zone: Path, log: Path, protocol: str) -> bytes:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    asked = ".".join(labels).lower()
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    with log.open("a") as file:
        print(protocol, asked, kind, file=file)
    records = json.loads(zone.read_text()).get(asked)
    other = {1: "AAAA", 28: "A"}.get(kind)
    found = [record for record in records or () if record[1] != other]
    flags = 0x8180 if records is not None else 0x8183
    if protocol == "udp" and asked.startswith("truncated."):
        flags, found = flags | 0x200, []
    message = Message(query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0))
    message.name(".".join(labels))
    message.bytes += query[at + 1 : at + 5]
    for record in found:
        message.record(*record)
    return message.bytes


def stream(connection: socket.socket, zone: Path, log: Path) -> None:
    with connection:
        while head := connection.recv(2, socket.MSG_WAITALL):
            query = connection.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)
            said = answer(query, zone, log, "tcp")
            whole = struct.pack(">H", len(said)) + said
            for at in range(0, len(whole), 700):  # in pieces
                connection.sendall(whole[at : at + 700])


def serve(address: str, port: int, zone: Path, log: Path) -> None:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, port))
    listener = socket.create_server((address, port))

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=stream, args=(connection, zone, log), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    while True:
        query, client = datagrams.recvfrom(65535)
        datagrams.sendto(answer(query, zone, log, "udp"), client)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
