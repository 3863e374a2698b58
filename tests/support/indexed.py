"""Given objects, as the controller finds them."""

from controller.intent.consent import View
from controller.observe.index import ObjectIndex
from controller.store.protocol import Batch
from tests.support.objects import KubeObject


def index_of(*objects: KubeObject) -> ObjectIndex:
    """An index that holds them."""
    index = ObjectIndex()
    index.apply(Batch(changed=tuple(one.stored() for one in objects), complete=True))
    return index


def view_of(*objects: KubeObject) -> View:
    """What the namespace `default` may refer to of them, where nobody is asked for consent: all."""
    return View(index_of(*objects), "default", needed=False)
