"""An `ObjectIndex` that holds given objects."""

from controller.observe.index import ObjectIndex
from controller.store.protocol import Batch
from tests.support.objects import KubeObject


def index_of(*objects: KubeObject) -> ObjectIndex:
    index = ObjectIndex()
    index.apply(Batch(changed=tuple(one.stored() for one in objects), complete=True))
    return index
