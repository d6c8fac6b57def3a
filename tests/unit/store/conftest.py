"""An open store in a temporary directory."""

import pytest

from orlop.base.clock import ManualClock
from orlop.store.blobs import BlobStore
from orlop.store.db import Database
from orlop.store.leases import Leases


class Store:
    def __init__(self, root):
        self.root = root
        self.clock = ManualClock()
        self.open()

    def open(self):
        self.db = Database.open(str(self.root / "state.db"))
        self.leases = Leases(self.db, self.clock, boot_id="boot-1")
        self.blobs = BlobStore(str(self.root), self.db, self.clock)

    def reopen(self):
        self.db.close()
        self.open()


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path)
    yield opened
    opened.db.close()
