"""`pyrtc pull`, `push`, `login`, `logout` and `manifest`, printing what Docker prints."""

import sys
from typing import TYPE_CHECKING

from pyrtc.cli.each import try_each
from pyrtc.cli.image_command import HELP, image_command, open_images, parse_options
from pyrtc.cli.nouns import run_noun
from pyrtc.cli.option_table import Group, Option
from pyrtc.errors import ImageNotFound, UsageError

if TYPE_CHECKING:
    from pyrtc.image.registry.credentials import Credentials

__all__ = ["login", "logout", "manifest", "manifest_inspect", "pull", "push"]

PULL_OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --all-tags", "", "every tag that the repository has; one that cannot be had does not end it"),
            Option("--platform", "OS/ARCH", "which image to take where there are several, for example linux/arm64"),
            Option("-q, --quiet", "", "print the name only"),
            HELP,
        ),
    ),
)
PUSH_OPTIONS = (Group("Options", (Option("-q, --quiet", "", "print the name only"), HELP)),)
LOGIN_OPTIONS = (
    Group(
        "Options",
        (
            Option("-u, --username", "NAME", "the user's name"),
            Option("-p, --password", "PASSWORD", "the password; others see it in the list of processes"),
            Option("--password-stdin", "", "read the password from standard input"),
            HELP,
        ),
    ),
)
LOGOUT_OPTIONS = (Group("Options", (HELP,)),)
INSPECT_OPTIONS = (Group("Options", (Option("--raw", "", "print it byte for byte as the registry has it"), HELP)),)
HUB = "docker.io"
MAX_PASSWORD = 64 << 10
ABOUT_SETTINGS = """\
Mirrors, blocked registries and those without TLS come from /etc/containers/registries.conf (registries.conf(5)),
certificates from /etc/containers/certs.d and /etc/docker/certs.d, proxies from HTTPS_PROXY and NO_PROXY."""


@image_command
def pull(argv: list[str]) -> int:
    """Run `pyrtc pull`: each image is tried, whatever happens to the others."""
    usage = "pyrtc pull [OPTIONS] NAME[:TAG|@DIGEST]..."
    summary = "Fetch images from registries: only the layers that are missing."
    parsed = parse_options(argv, PULL_OPTIONS, usage, summary, ABOUT_SETTINGS)
    if parsed is None:
        return 0
    if not parsed.arguments:
        raise UsageError(f"the image is missing: {usage}")
    platform, quiet = parsed.word("--platform"), parsed.flag("--quiet")
    if parsed.flag("--all-tags"):
        return max(_pull_all(name, platform, quiet=quiet) for name in parsed.arguments)
    if len(parsed.arguments) == 1:
        _pull(parsed.arguments[0], platform, quiet=quiet)
        return 0
    return try_each(parsed.arguments, lambda name: _pull(name, platform, quiet=quiet))


def _pull_all(repository: str, platform: str | None, *, quiet: bool) -> int:
    from pyrtc.image.reference import Reference

    reference = Reference.parse(repository)
    if reference.tag or reference.digest:
        raise UsageError(f"tag can't be used with --all-tags/-a: {repository}")
    with open_images() as images:
        tags = images.tags(repository)
    if not tags:
        raise ImageNotFound(f"{reference.familiar} has no tags")
    return try_each([f"{reference.canonical}:{tag}" for tag in tags], lambda name: _pull(name, platform, quiet=quiet))


def _pull(name: str, platform: str | None, *, quiet: bool) -> None:
    from pyrtc.cli.transfers import showing
    from pyrtc.image.reference import Reference

    reference = Reference.parse(name)
    if not quiet:
        if reference.tag is None and reference.digest is None:
            print("Using default tag: latest")
        what = reference.digest or reference.tag or "latest"
        print(f"{what}: Pulling from {reference.path}", flush=True)
    with open_images() as images, showing(quiet=quiet) as on_event:
        result = images.pull(name, platform=platform, on_event=on_event)
    whole = Reference.parse(result.name)
    if quiet:
        print(whole.canonical)
        return
    print(f"Digest: {result.digest}")
    if result.up_to_date or not result.bytes_fetched:
        print(f"Status: Image is up to date for {result.name}")
    else:
        print(f"Status: Downloaded newer image for {result.name}")
    if result.layers:
        parts = (
            (result.bytes_fetched, "fetched"),
            (result.bytes_resumed, "left by an interrupted pull"),
            (result.bytes_reused, "reused"),
            (result.bytes_shared, "shared"),
        )
        said = ", ".join(f"{_megabytes(size)} {word}" for size, word in parts if size or word == "fetched")
        print(f"Layers: {said}")
    print(whole.canonical)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"


@image_command
def push(argv: list[str]) -> int:
    """Run `pyrtc push`."""
    usage = "pyrtc push [OPTIONS] NAME[:TAG]"
    summary = "Send an image to the registry that its name says: only what that lacks."
    parsed = parse_options(argv, PUSH_OPTIONS, usage, summary, ABOUT_SETTINGS)
    if parsed is None:
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"one image at a time: {usage}")
    from pyrtc.cli.transfers import showing
    from pyrtc.image.reference import Reference

    name = parsed.arguments[0]
    quiet = parsed.flag("--quiet")
    reference = Reference.parse(name)
    if not quiet:
        if reference.tag is None and reference.digest is None:
            print("Using default tag: latest")
        print(f"The push refers to repository [{reference.repository}]", flush=True)
    with open_images() as images, showing(quiet=quiet) as on_event:
        result = images.push(name, on_event=on_event)
    if quiet:
        print(Reference.parse(result.name).canonical)
        return 0
    print(f"{Reference.parse(result.name).tag}: digest: {result.digest} size: {result.size}")
    if result.changed:
        which = "id" if result.changed == "config" else "digest"
        print(
            f"pyrtc: {result.name} has another {which} there than it came with: a layer was not kept in the form it "
            "came in",
            file=sys.stderr,
        )
    return 0


# ---- login and logout -----------------------------------------------------------------------------------------------


@image_command
def login(argv: list[str]) -> int:
    """Run `pyrtc login`."""
    usage = "pyrtc login [OPTIONS] [REGISTRY]"
    ending = (
        "The password goes to the credential helper that ~/.docker/config.json names (credsStore, credHelpers), and\n"
        "without one into that file, readable by you alone; $REGISTRY_AUTH_FILE names another file."
    )
    parsed = parse_options(argv, LOGIN_OPTIONS, usage, "Prove to a registry who you are, and remember it.", ending)
    if parsed is None:
        return 0
    domain = _domain(parsed.arguments)
    from pyrtc.image.registry import credentials
    from pyrtc.image.registry.client import Repository
    from pyrtc.image.registry.settings import Settings
    from pyrtc.image.registry.transport import Transport

    given = _given(
        domain,
        parsed.word("--username"),
        parsed.word("--password"),
        from_stdin=parsed.flag("--password-stdin"),
    )
    transport = Transport()
    try:
        registry = Repository(transport, Settings.load().registry(domain))
        registry.use(given)
        registry.ping()
    finally:
        transport.close()
    where = credentials.store(domain, given)
    print("Login Succeeded")
    print(f"The credentials for {domain} are kept in {where}", file=sys.stderr)
    return 0


def _given(domain: str, username: str | None, password: str | None, *, from_stdin: bool) -> "Credentials":
    """Return what the user says, asked for where it is missing."""
    from pyrtc.image.registry import credentials

    if from_stdin:
        if password is not None:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not username:
            raise UsageError("--password-stdin needs --username")
        text = sys.stdin.buffer.read(MAX_PASSWORD + 1) if sys.stdin is not None else b""
        if len(text) > MAX_PASSWORD:
            raise UsageError(f"the password has more than {MAX_PASSWORD} bytes")
        password = text.decode(errors="surrogateescape").rstrip("\r\n")
    elif username is None and password is None:
        known = credentials.find(domain)
        if known is not None:
            print("Authenticating with existing credentials...")
            return known
    if username is None:
        username = _ask("Username: ")
    if password is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError("the password is missing: send it to standard input with --password-stdin")
        import getpass

        password = getpass.getpass()
    if not username or not password:
        raise UsageError("user name and password must not be empty")
    if ":" in username:
        raise UsageError("a user name cannot have a colon")
    return credentials.Credentials(username, password)


def _ask(prompt: str) -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("the user name is missing: give it with --username")
    return input(prompt).strip()


@image_command
def logout(argv: list[str]) -> int:
    """Run `pyrtc logout`."""
    parsed = parse_options(argv, LOGOUT_OPTIONS, "pyrtc logout [REGISTRY]", "Forget the password for a registry.")
    if parsed is None:
        return 0
    domain = _domain(parsed.arguments)
    from pyrtc.image.registry import credentials

    if credentials.forget(domain):
        print(f"Removing login credentials for {domain}")
    else:
        print(f"Not logged in to {domain}")
    return 0


def _domain(words: list[str]) -> str:
    """Return the registry that is meant: a host with its port, a URL of it, or Docker Hub."""
    from pyrtc.errors import ImageError
    from pyrtc.image.reference import Reference

    if len(words) > 1:
        raise UsageError(f"one registry at a time: {' '.join(words)}")
    if not words:
        return HUB
    host = words[0].removeprefix("https://").removeprefix("http://").partition("/")[0]
    try:
        reference = Reference.parse(f"{host}/name")
    except ImageError:
        reference = None
    if reference is None or (reference.domain != host and host != "index.docker.io"):
        raise UsageError(f"{words[0]} is no registry: give host or host:port")
    return reference.domain


# ---- manifests ------------------------------------------------------------------------------------------------------


def manifest_inspect(argv: list[str]) -> int:
    """Run `pyrtc manifest inspect`."""
    usage = "pyrtc manifest inspect [OPTIONS] NAME[:TAG|@DIGEST]"
    parsed = parse_options(argv, INSPECT_OPTIONS, usage, "Print what a registry has under a name, without pulling it.")
    if parsed is None:
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"one name at a time: {usage}")
    from pyrtc.image.reference import Reference
    from pyrtc.image.registry.inspect import inspect_manifest

    document = inspect_manifest(Reference.parse(parsed.arguments[0]))
    if parsed.flag("--raw"):
        sys.stdout.flush()
        sys.stdout.buffer.write(document.content)
        return 0
    import json

    # ASCII only: what strangers wrote there cannot steer the terminal.
    print(json.dumps(json.loads(document.content), indent=4))
    return 0


MANIFEST = {"inspect": ("pyrtc.cli.registry", "manifest_inspect", "Print a manifest or index")}


@image_command
def manifest(argv: list[str]) -> int:
    """Run `pyrtc manifest SUBCOMMAND`."""
    return run_noun("manifest", "More about what registries have.", MANIFEST, argv)
