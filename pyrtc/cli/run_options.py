"""What `pyrtc run` takes: the table of its options, and what Docker has beside them."""

from pyrtc.cli.option_table import Group, Option

__all__ = ["CPU_TIME", "GROUPS", "UNAVAILABLE"]

GROUPS = (
    Group(
        "The container",
        (
            Option("-d, --detach", "", "leave the container running, and print its id"),
            Option("--name", "NAME", "name the container; without it, it gets a random name"),
            Option("--rm", "", "remove the container with all that it wrote when it ends"),
            Option("--cidfile", "FILE", "write the container's id to FILE, which must not exist yet"),
            Option("-l, --label", "KEY[=VALUE]", "attach a label", repeat=True),
            Option("--label-file", "FILE", "attach the labels of a file, one a line", repeat=True),
            Option(
                "--restart",
                "POLICY",
                "start a detached container again when it ends: no, on-failure[:RETRIES], always, unless-stopped",
            ),
            Option("--log-driver", "local|none", "keep the output of a detached container, the default, or drop it"),
            Option(
                "--log-opt", "KEY=VALUE", "max-size=SIZE of one log file, 10m; max-file=NUMBER of them, 3", repeat=True
            ),
            Option(
                "--health-cmd", "COMMAND", "check the health of a detached container with this, in the image's shell"
            ),
            Option("--health-interval", "TIME", "time between two checks; default: 30s"),
            Option("--health-timeout", "TIME", "a check that takes longer is killed, and has failed; default: 30s"),
            Option("--health-retries", "NUMBER", "failures in a row until it is unhealthy; default: 3"),
            Option("--health-start-period", "TIME", "until then failures do not count, if none succeeded before"),
            Option("--health-start-interval", "TIME", "time between two checks meanwhile; default: 5s"),
            Option("--no-healthcheck", "", "do not check, whatever the image says"),
            Option("--platform", "OS/ARCH", "choose among the platforms of an image; default: this machine's"),
            Option(
                "--copy-up",
                "PATH",
                "copy a file or tree of the image to the R/W layer before the command runs, not at the first write",
                repeat=True,
            ),
            Option("--plan", "", "print what would be done, step by step, and start nothing"),
            Option("--trace", "", "say at the end where the time of the start went, on standard error"),
        ),
    ),
    Group(
        "The process",
        (
            Option("-i, --interactive", "", "pass standard input on; without it the container reads /dev/null"),
            Option("-t, --tty", "", "give the container a terminal"),
            Option("-e, --env", "VAR[=VALUE]", "set a variable; without =VALUE pass your own on", repeat=True),
            Option("--env-file", "FILE", "set the variables of a file, one a line, # starts a comment", repeat=True),
            Option("-w, --workdir", "DIR", "start in DIR"),
            Option("-u, --user", "USER[:GROUP]", "run as this user, by name or number"),
            Option("--group-add", "GROUP", "be a member of one more group", repeat=True),
            Option("--entrypoint", "PROGRAM", 'run this instead of the image\'s entry point; "" clears it'),
            Option("--init", "", "run a small process 1 that passes signals on and reaps orphans"),
            Option(
                "--stop-signal", "SIGNAL", "the signal that asks the container to end; default: the image's, or TERM"
            ),
            Option("--stop-timeout", "TIME", "wait this long after it before killing; default: 10 s"),
            Option("--timeout", "TIME", "kill the container after this time: 30, 1m30s, 500ms; 0: never, the default"),
            Option(
                "--sig-proxy",
                "",
                "pass on the signals that pyrtc gets, the default; with =false they kill the container",
            ),
        ),
    ),
    Group(
        "Files",
        (
            Option(
                "-v, --volume",
                "SOURCE:TARGET[:ro]",
                "mount a directory or file of the host, or a named volume; TARGET alone makes an anonymous volume. "
                "More options: rw, nocopy, idmap, bind, rbind",
                repeat=True,
            ),
            Option(
                "--mount",
                "KEY=VALUE,...",
                "the same in words: type=bind|volume|tmpfs, source=, target=, readonly, bind-recursive=, "
                "bind-create-src, idmap, volume-nocopy, tmpfs-size=, tmpfs-mode=",
                repeat=True,
            ),
            Option(
                "--tmpfs",
                "TARGET[:OPTIONS]",
                "mount memory as a file system: size=64m,mode=1777,ro,exec",
                repeat=True,
            ),
            Option("--read-only", "", "make the root file system read-only"),
            Option("--device", "DEVICE[:TARGET][:rwm]", "let the container use a device of the host", repeat=True),
            Option("--shm-size", "SIZE", "size of /dev/shm; default: 64m"),
            Option("--driver", "overlay|copy", "how the root is made: layers stacked, or a full copy of its own"),
            Option("--rw-layer", "disk|memory", "where what the container writes is kept"),
        ),
    ),
    Group(
        "Names and network",
        (
            Option(
                "--network, --net",
                "NETWORK",
                "none, the default: nothing but loopback; host; container:NAME, that of another container; a network: "
                "its name, or name=NAME,ip=,ip6=,mac-address=,alias=",
                repeat=True,
            ),
            Option("--ip", "ADDRESS", "the IPv4 address in the first network"),
            Option("--ip6", "ADDRESS", "the IPv6 address in the first network"),
            Option("--mac-address", "MAC", "the MAC address in the first network"),
            Option("--network-alias, --net-alias", "NAME", "one more name in the first network", repeat=True),
            Option(
                "-p, --publish",
                "[[ADDRESS:]PORT:]PORT[/udp]",
                "let a port of this machine lead to one of the container; ranges: 8000-8010:80-90; without a network "
                "named the container is in the network bridge",
                repeat=True,
            ),
            Option("-P, --publish-all", "", "let any free port lead to each that the image, or --expose, names"),
            Option("--expose", "PORT[/udp]", "name a port that the container listens on", repeat=True),
            Option(
                "--egress",
                "none|LIST",
                "let it connect to these only: 10.0.0.0/8,192.0.2.7,example.com,*.example.com; local: its own networks",
                repeat=True,
            ),
            Option("-h, --hostname", "NAME", "the container's host name; default: its id"),
            Option("--domainname", "NAME", "the container's NIS domain name"),
            Option("--add-host", "NAME:ADDRESS", "add a line to /etc/hosts; host-gateway: this machine", repeat=True),
            Option("--dns", "ADDRESS", "a name server", repeat=True),
            Option("--dns-search", "DOMAIN", "a domain to search names in; . for none", repeat=True),
            Option("--dns-option, --dns-opt", "OPTION", "an option of resolv.conf", repeat=True),
        ),
    ),
    Group(
        "Limits",
        (
            Option("-m, --memory", "SIZE", "memory: 512m, 1.5g"),
            Option("--memory-swap", "SIZE", "memory and swap together; -1: unlimited swap; default: twice the memory"),
            Option("--memory-reservation", "SIZE", "memory to leave alone while others have some to give"),
            Option("--cpus", "NUMBER", "CPUs' worth of time: 0.5, 2"),
            Option("-c, --cpu-shares", "NUMBER", "weight when CPUs are short; default: 1024"),
            Option("--cpuset-cpus", "LIST", "run on these CPUs only: 0-2,5"),
            Option("--cpuset-mems", "LIST", "take memory from these nodes only"),
            Option("--pids-limit", "NUMBER", "processes and threads; -1: unlimited"),
            Option("--blkio-weight", "NUMBER", "weight when a disk is busy, 10 to 1000"),
            Option("--device-read-bps", "DEVICE:RATE", "bytes read per second: /dev/sda:10mb", repeat=True),
            Option("--device-write-bps", "DEVICE:RATE", "bytes written per second", repeat=True),
            Option("--device-read-iops", "DEVICE:RATE", "reads per second: /dev/sda:1000", repeat=True),
            Option("--device-write-iops", "DEVICE:RATE", "writes per second", repeat=True),
            Option("--network-rate-in", "RATE", "bits per second received over each network device: 10mbit, 1gbit"),
            Option("--network-rate-out", "RATE", "bits per second sent over each network device"),
            Option(
                "--ulimit", "NAME=SOFT[:HARD]", "a limit of setrlimit(2): nofile=1024:2048; -1: unlimited", repeat=True
            ),
            Option("--oom-score-adj", "NUMBER", "how gladly the kernel kills it when memory runs out, -1000 to 1000"),
            Option(
                "--best-effort", "", "warn about a limit that this machine cannot set, instead of refusing to start"
            ),
        ),
    ),
    Group(
        "Isolation",
        (
            Option("--cap-add", "CAPABILITY", "allow one more capability: NET_ADMIN; ALL", repeat=True),
            Option("--cap-drop", "CAPABILITY", "take a capability away; ALL takes all but those added", repeat=True),
            Option("--privileged", "", "no isolation worth the name: every capability, every device, no filter"),
            Option(
                "--security-opt",
                "OPTION",
                "seccomp=FILE|unconfined|builtin, no-new-privileges[=false], systempaths=unconfined, "
                "mask=PATH[:PATH...], unmask=ALL|PATH[:PATH...]",
                repeat=True,
            ),
            Option("--sysctl", "NAME=VALUE", "set a kernel parameter of the container's namespaces", repeat=True),
            Option("--userns", "host|auto|keep-id", "user ids: the host's, a range of its own, or you as you"),
            Option("--pid", "private|host", "see the container's processes only, or the host's"),
            Option("--ipc", "private|host", "System V and POSIX IPC, and /dev/shm"),
            Option("--uts", "private|host", "host name"),
            Option("--cgroupns", "private|host", "view of the control groups"),
        ),
    ),
    Group("More", (Option("--help", "", "print this"),)),
)

# What Docker has and this version has not, so that nobody searches for a misspelling.
NO_ATTACH = "what is not detached is attached; pyrtc start --attach does so later"
NO_LINK = "containers of one network find each other by name: pyrtc network create, --network"
NO_PULL = "what is started is an image of the store: pyrtc pull brings one"
CPU_TIME = {
    **dict.fromkeys(("--cpu-quota", "--cpu-period"), "say it as --cpus, quota divided by period"),
    **dict.fromkeys(("--cpu-rt-runtime", "--cpu-rt-period"), "real-time scheduling is not shared out"),
}
UNAVAILABLE = {
    **dict.fromkeys(("--detach-keys", "-a", "--attach"), NO_ATTACH),
    "--link": NO_LINK,
    "--link-local-ip": "the kernel picks link-local addresses",
    **dict.fromkeys(("--pull", "-q", "--quiet", "--disable-content-trust"), NO_PULL),
    **CPU_TIME,
    "--volumes-from": "name the volumes with -v",
    "--volume-driver": "volumes are directories in the store",
    "--runtime": "pyrtc is the runtime",
    "--gpus": "name the device nodes with --device",
    "--cgroup-parent": "the control groups of pyrtc's containers are below its own",
    "--device-cgroup-rule": "name the device nodes with --device",
    "--blkio-weight-device": "say it for all devices: --blkio-weight",
    "--kernel-memory": "--memory counts what the kernel keeps for the container",
    "--memory-swappiness": "--memory-swap says how much may be swapped",
    "--oom-kill-disable": "a container beyond its memory would stand still for ever; raise --memory",
    "--storage-opt": "what is written is on the file system of the store: --root, or --rw-layer memory",
    "--annotation": "say it as a --label",
}
