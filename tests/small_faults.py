"""A room of the fuzzing campaign in which everything goes wrong; alone, as its processes import little."""

import os
import time
from pathlib import Path
from random import Random

from fuzzing.campaign import Wrong
from preceptor.errors import DataError


class Faulty:
    """A room in which everything goes wrong once."""

    count = 7

    def __init__(self, folder: Path) -> None:
        self.held = bytearray()

    def case(self, chance: Random, number: int) -> str:
        match number:
            case 1:
                raise DataError("no")
            case 2:
                raise Wrong("lost")
            case 3:
                return str(1 / 0)
            case 4:
                os._exit(3)
            case 5:
                time.sleep(60)
            case 6:
                self.held = bytearray(os.urandom(1)) * (900 << 20)
                time.sleep(60)
        return "fine"
