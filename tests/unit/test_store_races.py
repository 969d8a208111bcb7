"""Many processes at one store: what is loaded and removed at the same moment is whole or not there."""

import random
import subprocess
import sys
import time
from pathlib import Path

from image_builder import DEEP, HELLO, IMPLIED, WORLD, config, docker_archive, layer
from tar_builder import directory, file

from pyrtc.engine import Engine

WORKER = """
import random, sys, time
from pyrtc.engine import Engine
from pyrtc.errors import ContainerNotFound, ImageError, ImageNotFound
root, seed, seconds, *archives = sys.argv[1:]
dice = random.Random(int(seed))
until = time.monotonic() + float(seconds)
done = 0
with Engine(root) as engine:
    # On a busy machine it takes longer until enough has met.
    while time.monotonic() < until or (done < 12 and time.monotonic() < until + 60):
        number = dice.randrange(len(archives))
        act = dice.randrange(10)
        try:
            if act < 5:
                image = engine.images.load(archives[number])[0]
            elif act < 7:
                engine.images.remove(f"app{number}")
            elif act < 8:
                engine.images.prune(all_unused=True)
            elif act < 9:
                engine.system.prune(all_images=True)
            else:
                found = engine.images.get(f"app{number}")
                container = engine.store.containers.allocate(
                    name=None, image_id=found.id, options_json=b"{}", directory=False
                )
                # An image on which a container stands stays, with all its layers.
                import os
                for _ in range(20):
                    assert all(os.path.isdir(path) for path in engine.images.get(found.id).layers)
                engine.store.containers.remove(container.id)
        except (ImageNotFound, ContainerNotFound):
            pass
        except ImageError as error:
            if "conflict" not in str(error) and "keep removing" not in str(error):
                raise
        done += 1
print(done)
"""


def test_loads_and_removals_at_once(tmp_path) -> None:
    dice = random.Random(5)
    big = layer(directory("big"), *(file(f"big/{number}", dice.randbytes(3000)) for number in range(40)))
    stacks = [[HELLO, WORLD], [HELLO, DEEP, IMPLIED], [WORLD, big], [big, HELLO]]
    archives = []
    for number, layers in enumerate(stacks):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(docker_archive(([f"app{number}"], config(*layers), layers)))
        archives.append(str(path))
    root = tmp_path / "store"
    Engine(root).close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), str(seed), "5", *archives],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    with Engine(root) as engine:
        while any(process.poll() is None for process in processes):
            _no_image_lacks_a_layer(engine)
            time.sleep(0.01)
        for process in processes:
            said, errors = process.communicate()
            assert process.returncode == 0, errors
            assert int(said) >= 12
        report = engine.system.check(deep=True)
        assert [problem for problem in report.problems if problem.kind != "leftover"] == []
        engine.system.prune(all_images=True)
        assert engine.system.check().problems == ()
        assert engine.store.layers.all() == ()
        assert list(Path(root, "layers").iterdir()) == []
        assert engine.store.blobs.list() == ()


def _no_image_lacks_a_layer(engine: Engine) -> None:
    def generation() -> int:
        return int(engine.store.database.row("SELECT value FROM settings WHERE name = 'generation'")[0])

    before = generation()
    missing = [path for image in engine.images.list() for path in image.layers if not Path(path).is_dir()]
    # When no image came or went between the two looks, what is missing is missing from an image that is there.
    assert not missing or generation() != before
