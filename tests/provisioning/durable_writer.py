"""Writes bindings and dialogs as fast as it can, and prints each one's number once it is acknowledged."""

import asyncio
import os
import sys
from pathlib import Path

from protocols.records import Binding, StoredDialog
from provisioning.config import Config
from provisioning.store import Store


async def main(data_dir: Path) -> None:
    store = await Store.open(Config(data_dir=data_dir))

    async def write_on(worker: int) -> None:
        for count in range(1_000_000):
            aor = f"{worker}@x"
            contact = f"sip:{worker}@h;n={count % 3}"
            await store.location.replace(aor, [Binding(aor, contact, "c", count, 2e9)], [])
            await store.dialogs.save(StoredDialog(f"{worker}-{count}", "as", aor, "{}"))
            os.write(1, f"{worker} {count}\n".encode())

    await asyncio.gather(*(write_on(worker) for worker in range(50)))


asyncio.run(main(Path(sys.argv[1])))
