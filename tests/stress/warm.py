"""Imported by the process from which workers fork: does once what each would do at its start.

That is half a second of imports and of preparing statements. Killing workers is then a matter of
killing, not of starting them.
"""

import gc
import tempfile
import threading
import time
from pathlib import Path

import sqlalchemy

from . import adapters
from .worker import adapter_of, open_search, scored

sqlalchemy.create_engine("postgresql+psycopg2://").dispose()
with tempfile.TemporaryDirectory() as folder:
    search = open_search(Path(folder, "run"), None)
    for record in search.run(scored, 2):
        adapters.save(record.config, *adapter_of(search.folder.path, record.config))
del search, record
# what forks must have one thread; that of the signs of life ends soon after the last trial
while threading.active_count() > 1:
    time.sleep(0.01)
# and shares its memory with them as long as nobody writes to it, which collecting garbage does
gc.collect()
gc.freeze()
