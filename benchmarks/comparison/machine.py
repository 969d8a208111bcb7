"""The machine that was measured on, and the other engines on it."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from benchmarks.peers import docker_answers

__all__ = ["PACKAGES", "describe", "install", "peers"]

# Program -> Debian's package.
PACKAGES = {
    "bwrap": "bubblewrap",
    "crun": "crun",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "lxc-execute": "lxc",
    "podman": "podman",
    "qemu-system-x86_64": "qemu-system-x86",
    "runc": "runc",
    "skopeo": "skopeo",
    "systemd-nspawn": "systemd-container",
    "tar": "tar",
    "umoci": "umoci",
}


def describe(directory: Path) -> dict[str, object]:
    """Return what a reader must know of this machine. directory: where the file system to measure on lies."""
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in (_first("/proc/cpuinfo", "flags") or "").split(),
        "kvm": os.access("/dev/kvm", os.R_OK | os.W_OK),
        "memory_mib": int((_first("/proc/meminfo", "MemTotal") or "0").split()[0]) >> 10,
        "kernel": platform.release(),
        "system": _system(),
        "python": platform.python_version(),
        "cgroups": _cgroups(),
        "below": _file_system(directory),
        "load": os.getloadavg(),
    }


def _first(path: str, name: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _cgroups() -> str:
    kinds = {line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return {(True, True): "1 and 2", (True, False): "1", (False, True): "2"}.get(
        ("cgroup" in kinds, "cgroup2" in kinds), "none"
    )


def _file_system(directory: Path) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", directory], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def peers() -> dict[str, str | None]:
    """Return each other engine and tool with its version; None for what this machine does not have."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    if not shutil.which(name):
        return None
    done = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    words = (done.stdout or done.stderr).partition("\n")[0].replace(",", " ").split()
    return next((word for word in words if word[0].isdigit()), "?")


def install() -> None:
    """Fetch what is missing from Debian; what cannot be had is left out and named in the report."""
    missing = {package for name, package in PACKAGES.items() if not shutil.which(name)}
    if shutil.which("docker") and not docker_answers() and not shutil.which("dockerd"):
        missing.add(PACKAGES["docker"])
    if not missing:
        return
    print(f"installing {', '.join(sorted(missing))}", flush=True)
    if not shutil.which("apt-get"):
        print("  this is no Debian: install them as it is done here")
        return
    subprocess.run(["apt-get", "update", "-qq"], check=False)
    words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for package in sorted(missing):
        done = subprocess.run([*words, package], capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            print(f"  {package}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
