"""What a registry has under a name, without bringing it here."""

from pyrtc.errors import ImageNotFound
from pyrtc.image.reference import Reference
from pyrtc.image.registry.client import ManifestBytes, NotThere, Repository
from pyrtc.image.registry.patience import Patience
from pyrtc.image.registry.settings import Settings
from pyrtc.image.registry.transport import Transport

__all__ = ["inspect_manifest"]


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
