"""A `World` that holds given objects."""

from controller.observe.index import World
from controller.store.protocol import Batch
from tests.support.objects import KubeObject


def world_of(*objects: KubeObject) -> World:
    world = World()
    world.apply(Batch(changed=tuple(one.stored() for one in objects), complete=True))
    return world
