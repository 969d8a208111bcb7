"""Images, networks, clusters, snapshots, volumes and the store as a whole, for asyncio."""

from pyrtc.aio.threads import in_thread
from pyrtc.api import default_engine
from pyrtc.engine import Engine

__all__ = ["Cluster", "Images", "Networks", "Snapshots", "System", "Volumes"]


class Images:
    """The twin of `pyrtc.Engine.images`: the same methods with the same parameters, to be awaited.

    Events of a load come from threads, as they do there.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        images = (engine or default_engine()).images
        self.load = in_thread(images.load)
        self.import_ = in_thread(images.import_)
        self.save = in_thread(images.save)
        self.list = in_thread(images.list)
        self.get = in_thread(images.get)
        self.documents = in_thread(images.documents)
        self.tag = in_thread(images.tag)
        self.remove = in_thread(images.remove)
        self.prune = in_thread(images.prune)
        self.tags = in_thread(images.tags)


class Networks:
    """The twin of `pyrtc.Engine.networks`: the same methods with the same parameters, to be awaited."""

    def __init__(self, engine: Engine | None = None) -> None:
        networks = (engine or default_engine()).networks
        self.create = in_thread(networks.create)
        self.get = in_thread(networks.get)
        self.list = in_thread(networks.list)
        self.inspect = in_thread(networks.inspect)
        self.obstacles = in_thread(networks.obstacles)
        self.connect = in_thread(networks.connect)
        self.disconnect = in_thread(networks.disconnect)
        self.remove = in_thread(networks.remove)
        self.prune = in_thread(networks.prune)


class Cluster:
    """The twin of `pyrtc.Engine.cluster`: the same methods with the same parameters, to be awaited."""

    def __init__(self, engine: Engine | None = None) -> None:
        cluster = (engine or default_engine()).cluster
        self.join = in_thread(cluster.join)
        self.leave = in_thread(cluster.leave)
        self.list = in_thread(cluster.list)
        self.inspect = in_thread(cluster.inspect)
        self.remove_host = in_thread(cluster.remove_host)


class System:
    """The twin of `pyrtc.Engine.system`: the same methods with the same parameters, to be awaited."""

    def __init__(self, engine: Engine | None = None) -> None:
        system = (engine or default_engine()).system
        self.df = in_thread(system.df)
        self.check = in_thread(system.check)
        self.prune = in_thread(system.prune)
        self.prune_containers = in_thread(system.prune_containers)
        self.prune_images = in_thread(system.prune_images)
        self.prune_networks = in_thread(system.prune_networks)
        self.prune_volumes = in_thread(system.prune_volumes)


class Snapshots:
    """The twin of `pyrtc.Engine.snapshots`: the same methods with the same parameters, to be awaited."""

    def __init__(self, engine: Engine | None = None) -> None:
        snapshots = (engine or default_engine()).snapshots
        self.list = in_thread(snapshots.list)
        self.get = in_thread(snapshots.get)
        self.size = in_thread(snapshots.size)
        self.remove = in_thread(snapshots.remove)


class Volumes:
    """The twin of `pyrtc.Engine.volumes`: the same methods with the same parameters, to be awaited."""

    def __init__(self, engine: Engine | None = None) -> None:
        volumes = (engine or default_engine()).volumes
        self.create = in_thread(volumes.create)
        self.get = in_thread(volumes.get)
        self.list = in_thread(volumes.list)
        self.users = in_thread(volumes.users)
        self.remove = in_thread(volumes.remove)
