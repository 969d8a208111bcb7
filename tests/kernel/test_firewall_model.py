"""The firewall's elements against a model of them, through anything that containers and stores may do."""

import pytest
from network_place import place
from network_site import site

__all__ = ["place", "site"]

# The model: key of an element -> (its container, where it leads). Containers are alive, or dead with what they left.
MODEL = """
import random
from pyrtc.values import replace

chance = random.Random(int(sys.argv[1]))
stores = {31: "a", 32: "a", 33: "b"}  # network -> store
for number in stores:
    firewall.add_network(network(number))
containers = {}
for number in stores:
    for last in range(2, 6):
        one = endpoint(number, last)
        containers[number, last] = replace(one, ip6="") if last == 3 else replace(one, ip4="") if last == 4 else one
live, dead, model = {}, {}, {}
ADDRESSES = ("", "", "", "0.0.0.0", "::", "127.0.0.1", "192.0.2.1", "2001:db8::1")

def families(ip):
    return (4, 6) if not ip else (6,) if ":" in ip else (4,)

def every(port):
    return port.ip in ("", "0.0.0.0", "::")

def keys(port):
    for family in families(port.ip):
        yield (family, "" if every(port) else port.ip, port.protocol, port.host)

def collide(one, two):
    if (one.protocol, one.host) != (two.protocol, two.host):
        return False
    if not set(families(one.ip)) & set(families(two.ip)):
        return False
    return every(one) or every(two) or one.ip == two.ip

def free(port, own):
    return not any(collide(port, other) for ports in (own, *live.values()) for other in ports)

def publish(name):
    ports = []
    for _ in range(chance.randint(1, 4)):
        protocol = chance.choice(("tcp", "udp"))
        port = Port(chance.choice((80, 81)), protocol, chance.randint(1, 5), chance.choice(ADDRESSES))
        if free(port, ports):
            ports.append(port)
    firewall.publish(ports, containers[name])
    dead.pop(name, None)  # started again
    live[name] = ports
    for port in ports:
        for key in keys(port):
            address = containers[name].ip4 if key[0] == 4 else containers[name].ip6
            if key[1]:
                model.pop((key[0], "", *key[2:]), None)
            if address:
                model[key] = (name, (address, port.container))
            else:
                model.pop(key, None)

def unpublish(name, ports):
    firewall.unpublish(ports, containers[name])
    for port in ports:
        for key in keys(port):
            if model.get(key, (None,))[0] == name:
                del model[key]

def reconcile(store):
    networks = [network(number) for number, owner in stores.items() if owner == store]
    own = [(containers[name], ports) for name, ports in live.items() if stores[name[0]] == store]
    firewall.reconcile(networks, own)
    for name in [name for name in dead if stores[name[0]] == store]:
        del dead[name]
    for key, (name, _) in list(model.items()):
        if stores[name[0]] == store and key not in {key for port in live.get(name, ()) for key in keys(port)}:
            del model[key]  # also what it left in an earlier life

def found():
    elements = firewall._elements()
    led = {}
    for element in elements:
        if not element.owner:
            continue
        family = 4 if element.place.startswith("pub4") else 6
        at, protocol, port = element.key if element.place.endswith("_at") else ("", *element.key)
        short = element.owner.split()[1]
        name = (int(short[:6], 16), int(short[6:], 16))
        led[family, at, protocol, int(port)] = (name, (element.value[0], int(element.value[1])))
    held = {element for element in elements if element.place == "held"}
    # What is without a holder is looked at when it is unpublished; a holder of nothing would be there for ever.
    assert held <= {element.holder for element in elements if element.owner}, held
    return led

for step in range(int(sys.argv[2])):
    idle = [name for name in containers if name not in live]
    what = chance.choice(("publish",) * 4 + ("unpublish",) * 2 + ("die",) * 2 + ("late", "reconcile", "again"))
    if what == "publish" and idle:
        publish(chance.choice(idle))
    elif what == "unpublish" and live:
        name = chance.choice(list(live))
        unpublish(name, live.pop(name))
    elif what == "die" and live:
        name = chance.choice(list(live))
        dead[name] = live.pop(name)
    elif what == "late" and dead:
        name = chance.choice(list(dead))
        unpublish(name, dead.pop(name))
    elif what == "reconcile":
        reconcile(chance.choice("ab"))
    elif what == "again":
        firewall.add_network(network(chance.choice(list(stores))))
    led = found()
    assert led == model, (step, what, set(led.items()) ^ set(model.items()))
for number in stores:
    firewall.remove_network(network(number))
print("whole")
"""


@pytest.mark.parametrize("seed", range(3))
def test_elements_are_what_the_model_says(site, seed):
    for number in (31, 32, 33):
        site.bridge(number)
    assert site.pyrtc(MODEL, str(seed), "250").strip() == "whole"
    assert site.place.tables() == []
