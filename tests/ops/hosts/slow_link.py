"""`slow_link.py DEVICE DEVICE SECONDS LOSS`: carry frames between two devices, each one late, and lose some.

Runs by itself inside the namespace of the switch, so it imports nothing of ours. Frames keep their virtio header: it says
which checksums and segments the kernel has left to the hardware.
"""

import heapq
import random
import selectors
import socket
import sys
import time

_SOL_PACKET, _PACKET_VNET_HDR, _OUTGOING, _ALL_PROTOCOLS = 263, 15, 4, 3
_LARGEST = 70_000
_WAITING = 20_000  # frames; more are lost, as in a full queue


def _open(device: str) -> socket.socket:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    link.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000_000)
    link.bind((device, _ALL_PROTOCOLS))
    link.setblocking(False)
    return link


def main() -> None:
    """Carry frames until the process is ended."""
    first, second = _open(sys.argv[1]), _open(sys.argv[2])
    delay, loss = float(sys.argv[3]), float(sys.argv[4])
    chance = random.Random(7)
    waiting: list[tuple[float, int, socket.socket, bytes]] = []
    number = 0
    ready = selectors.DefaultSelector()
    for link, other in ((first, second), (second, first)):
        ready.register(link, selectors.EVENT_READ, other)
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in ready.select(pause):
            for frame in _frames(key.fileobj):  # type: ignore[arg-type] # only sockets are registered
                if chance.random() >= loss and len(waiting) < _WAITING:
                    number += 1
                    heapq.heappush(waiting, (time.monotonic() + delay, number, key.data, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(waiting)
            try:
                target.send(frame)
            except OSError as error:
                print(f"lost a frame of {len(frame)} bytes: {error}", file=sys.stderr)


def _frames(link: socket.socket) -> list[bytes]:
    """What has arrived, without what we sent ourselves."""
    found: list[bytes] = []
    while len(found) < 256:
        try:
            frame, source = link.recvfrom(_LARGEST)
        except BlockingIOError:
            break
        if source[2] != _OUTGOING:
            found.append(frame)
    return found


if __name__ == "__main__":
    main()
