"""How another interpreter of the same installation is told what to run: no module comes from the working directory."""

import os
import sys

__all__ = ["program_of"]


def program_of(module: str, call: str) -> str:
    """Return the text for `python -I -c` that imports a function's module from where this process has it, and calls it.

    A process that was started with `python -c`, or is interactive, looks for modules in its working directory, and that
    may be what a container's files were copied to: all modules that it has already would be looked for there anew.
    """
    places = [place for place in sys.path if os.path.isabs(place)]
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if home not in places:
        places.append(home)
    name = call.partition("(")[0]
    return f"import sys; sys.path[:] = {places!r}\nfrom {module} import {name}; {call}"
