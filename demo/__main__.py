"""`make demo`: load two small images, run containers of them, and show what each got. Leaves nothing behind."""

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyrtc
from demo.images import BUSYBOX, write_archive

PYRTC = Path(sys.executable).with_name("pyrtc")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
RUNS = 50


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def command(*words: str) -> float:
    """Show and run a pyrtc command; returns how long the whole process took, in milliseconds."""
    print(f"$ pyrtc {shlex.join(words)}", flush=True)
    begin = time.perf_counter()
    subprocess.run([PYRTC, *words], check=True)
    return (time.perf_counter() - begin) * 1000


def images(directory: Path) -> None:
    """Load both images of one archive."""
    title("Images: two in one archive, the layer they share is stored once")
    write_archive(directory / "images.tar")
    command("load", "-i", str(directory / "images.tar"))
    command("images")
    layers = sum(1 for _ in (directory / "store" / "layers").iterdir())
    print(f"The images have 1 + 2 layers; on disk are {layers}.")


def first_container() -> None:
    """Run the command line's first container."""
    title("A container")
    command("run", "--rm", "demo/hello")
    command("run", "--rm", "demo/hello", "ls", "/etc")
    print("The upper layer hides the base's /etc/passwd; hosts, hostname and resolv.conf are each container's own.")
    command("run", "--rm", "demo/busybox", "sh", "-c", "id; hostname; ps; touch /srv/mine && ls /srv")
    milliseconds = command("run", "--rm", "demo/busybox", "ls", "/srv")
    print("What the container before wrote was in its own R/W layer and went with it.")
    print(f"This whole command, interpreter and all, took {milliseconds:.0f} ms.")


def isolation(engine: pyrtc.Engine) -> None:
    """Compare a container's namespaces, rights and limits with this process's."""
    title("Isolation")
    script = "for n in $0 $@; do readlink /proc/self/ns/$n; done; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status"
    done = pyrtc.run("demo/busybox", ["sh", "-c", script, *NAMESPACES], engine=engine, check=True)
    lines = done.stdout.decode().splitlines()
    for name, inside in zip(NAMESPACES, lines, strict=False):
        own = inside != str(Path(f"/proc/self/ns/{name}").readlink())
        print(f"  {name:<7} namespace: {'its own' if own else 'shared with the host'}")
    print("\n".join(f"  {line.expandtabs(12)}" for line in lines[len(NAMESPACES) :]))
    print("Capabilities are Docker's 14; Seccomp 2 is Docker's list of system calls, as a filter.")


def ends(engine: pyrtc.Engine) -> None:
    """Show how containers end that do not behave."""
    title("Limits")
    done = pyrtc.run("demo/busybox", ["sleep", "60"], timeout=0.2, engine=engine)
    print(f"  sleep 60 with timeout=0.2    -> {done.outcome}, after {done.usage.wall_seconds:.2f} s")
    done = pyrtc.run("demo/busybox", ["yes"], max_output=1000, on_limit="kill", engine=engine)
    print(f"  yes with max_output=1000     -> {done.outcome}, {len(done.stdout)} bytes kept")
    hog = ["sh", "-c", "a=x; while :; do a=$a$a; done"]
    try:
        done = pyrtc.run("demo/busybox", hog, memory="32m", memory_swap="32m", engine=engine)
        print(f"  a memory hog in 32 MiB       -> {done.outcome}, peak {(done.usage.memory_peak or 0) >> 20} MiB")
    except pyrtc.PyrtcError as error:
        print(f"  a memory hog in 32 MiB       -> {error}")


def speed(engine: pyrtc.Engine) -> None:
    """Measure starts from this process."""
    title(f"Time: {RUNS} x pyrtc.run('demo/busybox', ['true']), from the call to the result")
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        pyrtc.run("demo/busybox", ["true"], engine=engine, check=True)
        times.append((time.perf_counter() - begin) * 1000)
    print(f"  median {statistics.median(times):.2f} ms, fastest {min(times):.2f} ms")


def main() -> int:
    """Run the demonstration in a store of its own."""
    if not BUSYBOX.exists():
        print("the demo needs a static busybox; have root run: apt-get install busybox-static", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="pyrtc-demo-") as name:
        directory = Path(name)
        os.environ["PYRTC_ROOT"] = str(directory / "store")
        try:
            images(directory)
            first_container()
            with pyrtc.Engine() as engine:
                isolation(engine)
                ends(engine)
                speed(engine)
        except subprocess.CalledProcessError as error:
            return error.returncode
        except pyrtc.PyrtcError as error:
            print(f"demo: {error}", file=sys.stderr)
            return error.exit_code
    print(f"\nNow with images of your own:  {PYRTC} load -i IMAGE.tar; {PYRTC} run --rm -it NAME")
    return 0


if __name__ == "__main__":
    sys.exit(main())
