"""A `ObjectIndex` that holds given objects."""

from controller.observe.index import ObjectIndex
from controller.store.protocol import Batch
from tests.support.objects import KubeObject


def index_of(*objects: KubeObject) -> ObjectIndex:
    world = ObjectIndex()
    world.apply(Batch(changed=tuple(one.stored() for one in objects), complete=True))
    return world
