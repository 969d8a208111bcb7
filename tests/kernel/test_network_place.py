"""The place itself: what tests of networks stand on."""

import os

from network_place import HOST, HOST6, OUTSIDE, OUTSIDE6, Place, place

__all__ = ["place"]


def test_a_place_is_a_namespace_of_its_own(place: Place) -> None:
    assert set(place.links()) == {"lo", "wan0"}
    assert place.run("readlink", "/proc/self/ns/net").stdout.strip() != os.readlink("/proc/self/ns/net")
    assert place.run("ls", "/run/pyrtc").stdout == ""
    assert place.tables() == []
    place.assert_clean()


def test_the_outside_is_reached_and_reaches_it(place: Place) -> None:
    for address in (OUTSIDE, OUTSIDE6):
        place.run("ping", "-c1", "-W10", address)
    for address in (HOST, HOST6):
        place.outside.run("ping", "-c1", "-W10", address)


def test_pyrtc_runs_in_it(place: Place) -> None:
    assert place.pyrtc("run", "--rm", "--network", "host", "host", "ls", "/sys/class/net").returncode == 0
    inside = place.pyrtc("run", "--rm", "--network", "host", "host", "readlink", "/proc/self/ns/net").stdout
    assert inside == place.run("readlink", "/proc/self/ns/net").stdout
    assert place.python("import pyrtc; print(pyrtc.run('host', ['true']).returncode)") == "0\n"
