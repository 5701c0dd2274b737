"""Whether a call is quick, of which no busy machine decides."""

import time
from collections.abc import Callable


def soon(seconds: float, check: Callable[..., object], *given: object) -> bool:
    """Tell whether a call takes less of the processor; what is too long by its nature is so each time."""

    def spent() -> float:
        start = time.process_time()
        check(*given)
        return time.process_time() - start

    return any(spent() < seconds for _ in range(3))
