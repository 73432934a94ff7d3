"""Wires that are long: frames really take their time, and some never arrive. For kernels without ``netem``.

    python longwire.py SECONDS JITTER LOSS NAME OTHER [NAME OTHER]...

Makes the devices (TAP, as of a virtual machine) and says so with an empty line; they may be moved into other
network namespaces then. What goes into one comes out of the other after SECONDS, give or take JITTER, but for a
share of LOSS. Ends with its standard input.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

_SET_NAME = 0x400454CA
"""``TUNSETIFF``"""
_TAP, _BARE = 0x0002, 0x1000
_LONGEST = 1 << 16


def device(name: str) -> int:
    """A new network device; what is read is what the kernel sends into it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _SET_NAME, struct.pack("16sH22x", name.encode(), _TAP | _BARE))
    return descriptor


def carry(pairs: list[tuple[int, int]], seconds: float, jitter: float, loss: float) -> None:
    """Carry frames between the ends of each wire until nobody waits for it any more."""
    other = {end: to for here, there in pairs for end, to in ((here, there), (there, here))}
    draw = random.Random(1)
    way: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        wait = max(0.0, way[0][0] - time.monotonic()) if way else None
        ready, _, _ = select.select([0, *other], [], [], wait)
        for end in ready:
            if end == 0:
                return
            with contextlib.suppress(OSError):  # all of it is on its way; or that end is down
                while frame := os.read(end, _LONGEST):
                    if draw.random() >= loss:
                        number += 1
                        due = time.monotonic() + seconds + draw.uniform(-jitter, jitter)
                        heapq.heappush(way, (due, number, other[end], frame))
        while way and way[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(way)
            with contextlib.suppress(OSError):  # as on any wire
                os.write(to, frame)


if __name__ == "__main__":
    ends = [device(name) for name in sys.argv[4:]]
    print(flush=True)
    carry(list(zip(ends[::2], ends[1::2], strict=True)), *map(float, sys.argv[1:4]))
