import asyncio
import threading

import pytest
from image_builder import HELLO, config, docker_archive

from pyrtc import aio
from pyrtc.aio.threads import in_thread
from pyrtc.engine import Engine
from pyrtc.errors import ImageNotFound


def test_images_and_the_store(tmp_path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_archive((["app"], config(HELLO), [HELLO])))

    async def work(engine: Engine) -> None:
        images, system = aio.Images(engine), aio.System(engine)
        (image,) = await images.load(tmp_path / "a.tar")
        await images.tag("app", "again")
        (saved,) = await images.save(["again"], tmp_path / "b.tar", format="oci-archive")
        assert saved.image_id == image.id
        assert (await images.get("again")).names == ("again:latest", "app:latest")
        assert (await system.check()).problems == ()
        assert (await system.df()).images.total == 1
        assert (await system.prune(all_images=True)).deleted[0] == image.id
        with pytest.raises(ImageNotFound):
            await images.get("app")

    with Engine(tmp_path / "store") as engine:
        asyncio.run(work(engine))


def test_cancelled(tmp_path) -> None:
    """What was begun has ended when the task has."""
    entered, ended = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        threading.Event().wait(0.2)
        ended.set()

    async def work() -> None:
        task = asyncio.ensure_future(in_thread(slow)())
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(work())
