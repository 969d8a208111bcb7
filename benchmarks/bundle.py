"""An OCI bundle for crun and runc with the isolation that pyrtc's defaults give."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyrtc.runtime import capabilities, seccomp
from pyrtc.runtime.system import READ_ONLY, masked_paths

__all__ = ["MEMORY", "PIDS", "write_bundle"]

MEMORY = 256 << 20
PIDS = 64
_PERIOD = 100_000
_ARCHITECTURES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}


def write_bundle(
    runtime: str, directory: Path, rootfs: Path, *, limits: bool, command: Sequence[str] = ("true",)
) -> None:
    """Write config.json: what `RUNTIME spec` says, with Docker's capabilities, seccomp rules and masked paths.

    Parameters
    ----------
    rootfs: the root directory, as it is: these runtimes mount no layers.
    limits: memory, one CPU and processes, as the rows with limits have them.
    """
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([runtime, "spec"], cwd=scratch, check=True)
        document: dict[str, Any] = json.loads((Path(scratch) / "config.json").read_text())
    names = list(capabilities.DEFAULT)
    process, linux = document["process"], document["linux"]
    process["terminal"] = False
    process["args"] = list(command)
    process["capabilities"] = {"bounding": names, "permitted": names, "effective": names}
    process["noNewPrivileges"] = True
    process.pop("rlimits", None)
    document["root"] = {"path": str(rootfs), "readonly": False}
    linux["maskedPaths"] = list(masked_paths())
    linux["readonlyPaths"] = list(READ_ONLY)
    linux["seccomp"] = _seccomp(frozenset(names))
    if not any(namespace["type"] == "cgroup" for namespace in linux["namespaces"]):
        linux["namespaces"].append({"type": "cgroup"})
    if limits:
        linux["resources"] |= {
            "memory": {"limit": MEMORY},
            "cpu": {"quota": _PERIOD, "period": _PERIOD},
            "pids": {"limit": PIDS},
        }
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(document))


def _seccomp(names: frozenset[str]) -> dict[str, object]:
    """Return Docker's profile with its conditions decided, as Docker hands it to a runtime."""
    profile = json.loads(Path(seccomp.__file__).with_name("profiles").joinpath("default.json").read_text())
    token, architecture = _ARCHITECTURES[os.uname().machine]
    kernel = tuple(int(part) for part in os.uname().release.split(".")[:2])

    def holds(conditions: dict[str, Any], *, exclude: bool) -> bool:
        answers = [capability in names for capability in conditions.get("caps", ())]
        if "arches" in conditions:
            answers.append(architecture in conditions["arches"])
        if "minKernel" in conditions:
            answers.append(kernel >= tuple(int(part) for part in conditions["minKernel"].split(".")))
        return not any(answers) if exclude else all(answers)

    rules = [
        {key: value for key, value in rule.items() if key in ("names", "action", "errnoRet", "args")}
        for rule in profile["syscalls"]
        if holds(rule.get("includes", {}), exclude=False) and holds(rule.get("excludes", {}), exclude=True)
    ]
    below = [entry["subArchitectures"] for entry in profile["archMap"] if entry["architecture"] == token]
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": [token, *below[0]],
        "syscalls": rules,
    }
