"""What is asked of etcd, typed: ranges, transactions, leases and watches, through its JSON gateway.

Keys are text, values are bytes. A transaction may be sent twice (see `pyrtc.network.overlay.gateway`): it can have
been carried out although no answer came. Whoever writes one must be able to tell by what it then finds that it was.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from pyrtc.errors import ClusterError
from pyrtc.network.overlay.gateway import Gateway, Stream
from pyrtc.values import dataclass

__all__ = [
    "Change",
    "Compacted",
    "Condition",
    "Delete",
    "Etcd",
    "Item",
    "Listing",
    "Made",
    "Put",
    "Same",
    "Unchanged",
    "Unmade",
    "Watch",
    "Written",
]

_PAGE = 500  # items of one page of a listing
_MOST_ITEMS = 200_000
_MOST_OPERATIONS = 128  # etcd's own limit for one transaction


class Compacted(ClusterError):
    """What is asked for is so long ago that etcd has forgotten it: list anew."""


@dataclass(frozen=True, slots=True)
class Item:
    """A key and its value, and the revisions of the store that made it and wrote it last."""

    key: str
    value: bytes
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The items below a prefix, all as they were at one revision."""

    revision: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Unmade:
    """A condition: there is no such key. prefix: nor one that begins with it."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A condition: there is such a key."""

    key: str


@dataclass(frozen=True, slots=True)
class Same:
    """A condition: the key has this value."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A condition: the key was written last by this revision; 0: there is no such key."""

    key: str
    modified: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key. lease: it goes with this lease; 0: it stays."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key, or all that begin with it."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction did: whether its conditions held, the revision, and the items asked for if they did not."""

    done: bool
    revision: int
    found: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """An item that was written, or (value None) removed."""

    key: str
    value: bytes | None
    revision: int


class _Header(msgspec.Struct):
    revision: str = "0"
    cluster_id: str = "0"


class _Kv(msgspec.Struct):
    key: str
    value: str = ""
    create_revision: str = "0"
    mod_revision: str = "0"


class _Range(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    kvs: list[_Kv] = []
    more: bool = False


class _Op(msgspec.Struct):
    response_range: _Range | None = None


class _Txn(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    succeeded: bool = False
    responses: list[_Op] = []


class _Lease(msgspec.Struct):
    ID: str = "0"
    TTL: str = "0"
    error: str = ""


class _LeaseLine(msgspec.Struct):
    result: _Lease | None = None


class _Event(msgspec.Struct):
    kv: _Kv
    type: str = "PUT"


class _Watched(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    created: bool = False
    canceled: bool = False
    compact_revision: str = "0"
    cancel_reason: str = ""
    events: list[_Event] = []


class _StreamFailure(msgspec.Struct):
    message: str = ""


class _WatchLine(msgspec.Struct):
    result: _Watched | None = None
    error: _StreamFailure | None = None


Condition = Unmade | Made | Same | Unchanged


class Etcd:
    """The client. Used by many threads; every call may raise ClusterUnreachable and ClusterError."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def get(self, key: str) -> Item | None:
        """Return one item; what was written before by anybody is seen."""
        answer = self._range({"key": _text(key)})
        return _item(answer.kvs[0]) if answer.kvs else None

    def list(self, prefix: str) -> Listing:
        """Return all items below a prefix, in pages of one revision, sorted by key."""
        items: list[Item] = []
        start, end, revision = prefix.encode(), _end_of(prefix), 0
        while True:
            asked: dict[str, object] = {"key": _b64(start), "range_end": _b64(end), "limit": _PAGE}
            if revision:
                asked["revision"] = revision
            answer = self._range(asked)
            revision = revision or _number(answer.header.revision)
            items += [_item(kv) for kv in answer.kvs]
            if len(items) > _MOST_ITEMS:
                raise ClusterError(f"etcd has more than {_MOST_ITEMS} keys below {prefix}")
            if not answer.more or not answer.kvs:
                return Listing(revision, tuple(items))
            start = items[-1].key.encode() + b"\0"

    def transact(
        self,
        conditions: Sequence[Condition],
        operations: Sequence[Put | Delete],
        otherwise: Sequence[str] = (),
    ) -> Written:
        """Do all operations if all conditions hold, else look up the keys of otherwise."""
        if len(operations) > _MOST_OPERATIONS:
            raise ClusterError(f"{len(operations)} operations are too many for one transaction of etcd")
        asked = {
            "compare": [_comparison(condition) for condition in conditions],
            "success": [_operation(operation) for operation in operations],
            "failure": [{"request_range": {"key": _text(key)}} for key in otherwise],
        }
        answer = _decode(self.gateway.call("/v3/kv/txn", msgspec.json.encode(asked)), _Txn)
        found: tuple[Item, ...] = ()
        if not answer.succeeded:
            ranges = (response.response_range for response in answer.responses)
            found = tuple(_item(kv) for answered in ranges if answered is not None for kv in answered.kvs)
        return Written(answer.succeeded, _number(answer.header.revision), found)

    def grant(self, seconds: int) -> int:
        """Make a lease that ends after so many seconds in which nobody keeps it alive."""
        answer = _decode(self.gateway.call("/v3/lease/grant", msgspec.json.encode({"TTL": seconds})), _Lease)
        lease = _number(answer.ID)
        if answer.error or not lease:
            raise ClusterError(f"etcd gives no lease: {answer.error[:200] or 'no number'}")
        return lease

    def keep_alive(self, lease: int) -> bool:
        """Let a lease live on; False when it has ended."""
        line = self.gateway.call("/v3/lease/keepalive", msgspec.json.encode({"ID": str(lease)}))
        answer = _decode(line, _LeaseLine).result
        return answer is not None and _number(answer.TTL) > 0

    def revoke(self, lease: int) -> None:
        """End a lease now, and what goes with it."""
        self.gateway.call("/v3/lease/revoke", msgspec.json.encode({"ID": str(lease)}))

    def watch(self, prefix: str, revision: int) -> "Watch":
        """Hear of every change below a prefix from a revision on."""
        request = {
            "key": _text(prefix),
            "range_end": _b64(_end_of(prefix)),
            "start_revision": str(revision),
            "progress_notify": True,
        }
        return Watch(self.gateway.stream("/v3/watch", msgspec.json.encode({"create_request": request})))

    def close(self) -> None:
        """Close connections that nobody uses."""
        self.gateway.close()

    def _range(self, asked: dict[str, object]) -> _Range:
        return _decode(self.gateway.call("/v3/kv/range", msgspec.json.encode(asked)), _Range)


class Watch:
    """Changes as they happen, in the order of their revisions."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def place(self) -> str:
        """The URL of the member that tells."""
        return self._stream.place

    def __iter__(self) -> Iterator[tuple[int, tuple[Change, ...]]]:
        """Yield the revision that is reached, and the changes that lead there; the first may be none.

        Raises
        ------
        Compacted: etcd has forgotten some of them. ClusterUnreachable: the connection ended.
        """
        for line in self._stream:
            message = _decode(line, _WatchLine)
            if message.error is not None:
                raise ClusterError(f"etcd at {self._stream.place} ends a watch: {message.error.message[:200]}")
            result = message.result
            if result is None:
                continue
            if _number(result.compact_revision):
                raise Compacted(f"etcd has forgotten what was before revision {result.compact_revision}")
            if result.canceled:
                raise ClusterError(f"etcd at {self._stream.place} ends a watch: {result.cancel_reason[:200]}")
            if result.created:
                yield 0, ()
                continue
            yield _number(result.header.revision), tuple(_change(event) for event in result.events)

    def interrupt(self) -> None:
        """Wake up who waits for changes, from any thread."""
        self._stream.interrupt()

    def close(self) -> None:
        """End it, by the thread that reads."""
        self._stream.close()


def _end_of(prefix: str) -> bytes:
    """Return the first key after all that begin with prefix (which does not end with 0xff, as text never does)."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _text(text: str) -> str:
    return _b64(text.encode())


def _comparison(condition: Condition) -> dict[str, object]:
    asked: dict[str, object] = {"key": _text(condition.key), "result": "EQUAL"}
    if isinstance(condition, Unmade):
        if condition.prefix:
            asked["range_end"] = _b64(_end_of(condition.key))
        return asked | {"target": "CREATE", "create_revision": "0"}
    if isinstance(condition, Made):
        return asked | {"target": "CREATE", "create_revision": "0", "result": "NOT_EQUAL"}
    if isinstance(condition, Same):
        return asked | {"target": "VALUE", "value": _b64(condition.value)}
    return asked | {"target": "MOD", "mod_revision": str(condition.modified)}


def _operation(operation: Put | Delete) -> dict[str, object]:
    if isinstance(operation, Put):
        put: dict[str, object] = {"key": _text(operation.key), "value": _b64(operation.value)}
        if operation.lease:
            put["lease"] = str(operation.lease)
        return {"request_put": put}
    delete = {"key": _text(operation.key)}
    if operation.prefix:
        delete["range_end"] = _b64(_end_of(operation.key))
    return {"request_delete_range": delete}


_Message = TypeVar("_Message")


def _decode(raw: bytes, kind: type[_Message]) -> _Message:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise ClusterError(f"etcd sends what cannot be read: {error}") from error


def _number(text: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise ClusterError(f"etcd sends {text[:40]!r} where a number was expected")
    return int(text)


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ClusterError("etcd sends what is no base64") from error


def _item(kv: _Kv) -> Item:
    return Item(_key(kv.key), _raw(kv.value), _number(kv.create_revision), _number(kv.mod_revision))


def _change(event: _Event) -> Change:
    value = None if event.type == "DELETE" else _raw(event.kv.value)
    return Change(_key(event.kv.key), value, _number(event.kv.mod_revision))


def _key(text: str) -> str:
    return _raw(text).decode("utf-8", "backslashreplace")
