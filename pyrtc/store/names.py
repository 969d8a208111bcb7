"""Names for containers that were given none: an adjective and a noun, as Docker's users expect, in words of our own."""

import os

__all__ = ["random_name"]

_ADJECTIVES = """
able airy amber ample apt astute azure balmy bold brave breezy bright brisk bubbly calm candid casual cheery civil
clear clever cosy crisp curious dapper daring deft dewy eager early earnest easy fabled fair famed fearless festive
fine fleet fluent fond frank fresh gallant genial gentle giddy glad golden grand great green hale handy happy hardy
hearty honest humble ideal jaunty jolly jovial keen kind lively loyal lucid lucky lunar magic mellow merry mighty
mild mindful modest native neat nimble noble novel patient placid plucky polite prime proud quick quiet quirky rapid
ready regal robust rosy rustic sage savvy serene sharp silent silver smart smooth snappy snug solar solid sonic spry
stable steady stoic stout sunny super swift tender tidy topaz trusty upbeat urban useful valiant vivid warm witty
wise young zesty
""".split()  # noqa: SIM905  (a page of words, not of quotes)

_NOUNS = """
acorn alder anchor antler aspen badger bamboo basin beacon beaver birch bison bobcat boulder branch breeze brook
canyon cedar cliff clover comet condor coral cove crane creek cricket cypress dahlia delta dolphin dune eagle ember
falcon fern ferret finch fjord forest fossil fox garnet gecko geyser glacier glade gorge granite grove gull harbor
hare harvest hawk hazel heath heron hill holly horizon ibis inlet island ivy jaguar jasper juniper kelp kestrel
koala lagoon lake lark laurel lemur lichen lily linden llama lotus lynx magnet maple marlin marsh martin meadow mesa
meteor mint moose moss mountain nebula newt oak oasis ocean opal orbit orca orchid osprey otter owl panda pebble
pelican pine planet plover pond poplar prairie puffin quail quarry quartz rabbit rapids raven reef ridge river robin
rowan sable salmon sequoia shore sparrow spruce stork stream summit swan thistle thrush tiger trout tulip tundra
valley walnut walrus willow wolf wombat wren zephyr
""".split()  # noqa: SIM905  (a page of words, not of quotes)


def random_name(attempt: int = 0) -> str:
    """Return a name; from the fourth attempt on with digits, so that a store with many containers finds a free one."""
    bits = int.from_bytes(os.urandom(8), "little")
    adjective = _ADJECTIVES[(bits & 0xFFFF) % len(_ADJECTIVES)]
    noun = _NOUNS[(bits >> 16 & 0xFFFF) % len(_NOUNS)]
    return f"{adjective}_{noun}" if attempt < 3 else f"{adjective}_{noun}{bits >> 32 & 0xFFFFFF}"
