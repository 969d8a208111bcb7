"""Types of the cffi extension, as far as core.py relies on them."""

from typing import Any

class _FFI:
    CData: Any
    NULL: Any
    def new(self, cdecl: str, init: Any = ...) -> Any: ...
    def string(self, cdata: Any, maxlen: int = ...) -> bytes: ...
    def from_buffer(self, cdecl: str, buffer: Any) -> Any: ...
    def buffer(self, cdata: Any, size: int = ...) -> Any: ...

ffi: _FFI
lib: Any
