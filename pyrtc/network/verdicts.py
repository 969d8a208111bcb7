"""What the rules of another firewall do with a packet of ours, as far as rules alone tell.

A match is true, false, or not known (None): of a packet it is known which devices it passes, whose subnet one of its
ends is in, and that it begins a connection. A rule counts only if everything it matches is known to be true, so "drop"
here means that a packet is dropped unless some rule lets a part of such packets through.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pyrtc.errors import UsageError
from pyrtc.ip import Subnet, number, parse_subnet
from pyrtc.values import dataclass

__all__ = ["Chains", "Packet", "Rule", "chains_of_iptables", "chains_of_nft", "verdict"]

Answer = bool | None


@dataclass(frozen=True, slots=True)
class Packet:
    """One that begins a connection. came_in, goes_out: devices, "": some other one. source, target: subnets, None: any.

    translated: it was for a published port.
    """

    family: Literal[4, 6]
    came_in: str
    goes_out: str
    source: Subnet | None
    target: Subnet | None
    translated: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done with the packet, and whether surely. action: accept, drop, jump, goto, return or "": nothing."""

    sure: bool
    action: str
    target: str = ""


Chains = dict[str, list[Rule]]
_DEEPEST = 32
_FINAL = ("accept", "drop")
_BESIDE = ("counter", "log", "mangle", "notrack")  # done to a packet without deciding about it


def verdict(chains: Chains, chain: str, policy: str) -> str:
    """Return "accept" or "drop"."""
    return _walk(chains, chain, _DEEPEST) or policy


def _walk(chains: Chains, chain: str, depth: int) -> str:
    """Return the verdict of a chain, "" if it has none."""
    for rule in chains.get(chain, ()):
        if not rule.sure:
            continue
        if rule.action in _FINAL:
            return rule.action
        if rule.action == "return":
            return ""
        if rule.action in ("jump", "goto") and depth:
            found = _walk(chains, rule.target, depth - 1)
            if found or rule.action == "goto":
                return found
    return ""


def chains_of_nft(items: Iterable[Mapping[str, Any]], packet: Packet) -> Chains:
    """Read the rules of a table as `nft -j` lists them; those that surely do not match are left out."""
    chains: Chains = {}
    for item in items:
        if "rule" in item:
            rule = item["rule"]
            chains.setdefault(rule["chain"], []).extend(_nft_rule(rule["expr"], packet))
    return chains


def _nft_rule(expressions: Iterable[Mapping[str, Any]], packet: Packet) -> list[Rule]:
    answers: list[Answer] = []
    for expression in expressions:
        ((kind, said),) = expression.items()
        if kind == "match":
            answers.append(_nft_match(said, packet))
        elif kind == "xt" and said["type"] == "match":
            answers.append(True if said["name"] == "comment" else None)
        elif kind in ("accept", "drop", "return"):
            return _rule(answers, kind)
        elif kind == "reject" or (kind == "xt" and said.get("name") == "REJECT"):
            return _rule(answers, "drop")
        elif kind in ("jump", "goto"):
            return _rule(answers, kind, said["target"])
        elif kind not in _BESIDE and not (kind == "xt" and said["type"] == "target"):
            answers.append(None)  # a limit, a quota, a map of verdicts
    return []


def _rule(answers: Sequence[Answer], action: str, target: str = "") -> list[Rule]:
    return [] if False in answers else [Rule(None not in answers, action, target)]


def _nft_match(said: Mapping[str, Any], packet: Packet) -> Answer:
    right = said["right"]
    if isinstance(right, Mapping) and "set" in right:
        right = right["set"]
    wanted = right if isinstance(right, list) else [right]
    answer = _any(_nft_equal(said["left"], one, packet) for one in wanted)
    return answer if answer is None or said["op"] != "!=" else not answer


def _any(answers: Iterable[Answer]) -> Answer:
    found = list(answers)
    return True if True in found else None if None in found else False


def _nft_equal(left: Mapping[str, Any], right: object, packet: Packet) -> Answer:
    ((kind, said),) = left.items()
    if kind == "meta" and said["key"] in ("iifname", "oifname"):
        return _device(packet.came_in if said["key"] == "iifname" else packet.goes_out, right, "*")
    if kind == "meta" and said["key"] == "nfproto":
        return right == f"ipv{packet.family}"
    if kind == "ct" and said["key"] == "state":
        return right == "new"
    if kind == "ct" and said["key"] == "status" and right == "dnat":
        return packet.translated
    if kind == "payload" and said.get("field") in ("saddr", "daddr") and said.get("protocol") in ("ip", "ip6"):
        if (said["protocol"] == "ip") != (packet.family == 4):
            return False
        return _address(packet.source if said["field"] == "saddr" else packet.target, right)
    return None


def _device(name: str, pattern: object, wildcard: str) -> Answer:
    if not name or not isinstance(pattern, str) or not pattern or pattern.startswith("@"):
        return None
    if pattern.endswith(wildcard):
        return name.startswith(pattern.removesuffix(wildcard))
    return name == pattern


def _address(subnet: Subnet | None, right: object) -> Answer:
    if isinstance(right, Mapping) and "prefix" in right:
        right = f"{right['prefix']['addr']}/{right['prefix']['len']}"
    if subnet is None or not isinstance(right, str):
        return None
    try:
        family, _ = number(right.partition("/")[0])
        other = parse_subnet(right if "/" in right else f"{right}/{32 if family == 4 else 128}")
    except UsageError:
        return None  # a named set, or a name
    if other.contains(subnet):
        return True
    return None if other.overlaps(subnet) else False


def chains_of_iptables(lines: Iterable[str], packet: Packet) -> tuple[Chains, dict[str, str]]:
    """Read the rules of a table as `iptables -S` prints them, and the policies of its chains."""
    import shlex

    chains: Chains = {}
    policies: dict[str, str] = {}
    for line in lines:
        words = shlex.split(line)
        if len(words) == 3 and words[0] == "-P" and words[2].lower() in _FINAL:
            policies[words[1]] = words[2].lower()
        elif len(words) > 2 and words[0] == "-A":
            chains.setdefault(words[1], []).extend(_iptables_rule(words[2:], packet))
    return chains, policies


_IPTABLES_ACTIONS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}


def _iptables_rule(words: Sequence[str], packet: Packet) -> list[Rule]:
    answers: list[Answer] = []
    left = iter(words)
    negated = False
    for word in left:
        answer: Answer = None
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            target = next(left, "")
            action = _IPTABLES_ACTIONS.get(target, "jump" if word == "-j" else "goto")
            return _rule(answers, action, target)
        if word in ("-i", "-o"):
            answer = _device(packet.came_in if word == "-i" else packet.goes_out, next(left, ""), "+")
        elif word in ("-s", "-d"):
            answer = _address(packet.source if word == "-s" else packet.target, next(left, ""))
        elif word in ("--ctstate", "--state"):
            answer = "NEW" in next(left, "").split(",")
        elif word == "--comment":
            next(left, "")
            continue
        elif word == "-m" and next(left, "") in ("comment", "conntrack", "state"):
            continue
        answers.append(answer if answer is None or not negated else not answer)
        negated = False
    return []
