"""What a registry has under a name, without bringing it here."""

from pyrtc.errors import ImageNotFound, UsageError
from pyrtc.image.reference import Reference
from pyrtc.image.registry.client import ManifestBytes, NotThere, Repository
from pyrtc.image.registry.patience import Patience
from pyrtc.image.registry.settings import Settings
from pyrtc.image.registry.transport import Transport

__all__ = ["inspect_manifest", "list_tags"]


def inspect_manifest(
    reference: Reference, *, settings: Settings | None = None, patience: Patience | None = None
) -> ManifestBytes:
    """Fetch a manifest or index, verified; mirrors are not asked.

    Raises
    ------
    ImageNotFound: there is none. RegistryError: see `pyrtc.image.images.Images.pull`.
    """
    name = reference.with_default_tag()
    transport = Transport(patience)
    try:
        repository = Repository(transport, (settings or Settings.load()).to_pull(name)[-1])
        return repository.manifest(name.digest or name.tag or "")
    except NotThere as error:
        raise ImageNotFound(f"{name.familiar}: no such image at the registry: {error}") from None
    finally:
        transport.close()


def list_tags(
    reference: Reference, *, settings: Settings | None = None, patience: Patience | None = None
) -> tuple[str, ...]:
    """Return the tags of a repository, as its registry lists them; mirrors are not asked.

    Raises
    ------
    UsageError: the name has a tag or a digest. ImageNotFound: there is no such repository. RegistryError: as for
    `inspect_manifest`.
    """
    if reference.tag or reference.digest:
        raise UsageError(f"{reference.familiar}: all tags of a repository, or one of them")
    transport = Transport(patience)
    try:
        return Repository(transport, (settings or Settings.load()).to_pull(reference)[-1]).tags()
    except NotThere as error:
        raise ImageNotFound(f"{reference.familiar}: no such repository at the registry: {error}") from None
    finally:
        transport.close()
