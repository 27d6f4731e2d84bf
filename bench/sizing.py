#!/usr/bin/env python3
"""Prints the two tables of docs/sizing.md: what a number of devices takes, and how evenly
workspaces of different load lie on servers. --check fails if the page has anything else.
"""

import heapq
import math
import random
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sizing.md"

# The app: change these to yours.
ONLINE = 0.2  # of the devices, at the peak
DEVICES = 10  # of a workspace
POLL_EVERY = 60  # seconds, of an online device
PUSH_EVERY = 600
OPS = 3  # of a push
ACKNOWLEDGE_EVERY = 300
RECORDS = 500  # live ones of a workspace
PAYLOAD = 190  # bytes of an op
RETENTION = 30  # days
MEAN = 1 / 3  # of the ops at the peak, over the retention

# Microseconds of a whole call, client included: bench/README.md.
POLL = 61.64
POLL_WITH_NEWS = 61.45
PUSH_OF_1, PUSH_OF_10 = 171.8, 10 * 64.84
PUSH = PUSH_OF_1 + (OPS - 1) / 9 * (PUSH_OF_10 - PUSH_OF_1)
# There is no figure of its own. It writes less than a push of one op.
ACKNOWLEDGEMENT = PUSH_OF_1
# Bytes: docs/operations.md.
ENTRY, RECORD, DEVICE, WAL = 330 + PAYLOAD, 430, 240, 1150

# A server, of which each resource is used by half.
COMMITS = 7261  # a second: 8 clients, 8 workspaces, on two cores
CORES = 16
DISK = 8e12
USED = 0.5


def amounts(devices):
    online, workspaces = devices * ONLINE, devices / DEVICES
    polls, pushes = online / POLL_EVERY, online / PUSH_EVERY
    acknowledgements = online / ACKNOWLEDGE_EVERY
    # A push is news for the other devices of its workspace that are online.
    news = pushes * max(DEVICES * ONLINE - 1, 0)
    cpu = (polls - news) * POLL + news * POLL_WITH_NEWS + pushes * PUSH + acknowledgements * ACKNOWLEDGEMENT
    commits = pushes + acknowledgements
    records = workspaces * RECORDS * (ENTRY + RECORD) + devices * DEVICE
    log = pushes * OPS * MEAN * RETENTION * 86400 * ENTRY
    servers = {
        "commits": commits / COMMITS,
        "CPU": cpu / 1e6 / CORES,
        "disk": (records + log) / DISK,
    }
    limit = max(servers, key=servers.get)
    return [
        f"10^{round(math.log10(devices))}", number(polls), number(pushes), number(acknowledgements),
        f"{cpu / 1e6:.2f}", number(commits), size(pushes * OPS * WAL) + "/s", size(records), size(log),
        str(math.ceil(servers[limit] / USED)), limit,
    ]


def number(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def size(count):
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000


BUCKETS, WORKSPACES, NAMED, SEED = 1024, 1_000_000, 100, 7
SERVERS = (4, 16, 64)


def lognormal(sigma):
    def loads(uniform):
        # Two at a time, by Box and Muller.
        for _ in range(WORKSPACES // 2):
            radius, angle = math.sqrt(-2 * math.log(1 - uniform())), 2 * math.pi * uniform()
            yield math.exp(sigma * radius * math.cos(angle))
            yield math.exp(sigma * radius * math.sin(angle))

    return loads


def zipf(exponent):
    return lambda uniform: (rank**-exponent for rank in range(1, WORKSPACES + 1))


def placed(loads, servers):
    """The largest load of a server if each goes to that which has the least, the largest first."""
    heap = [0.0] * servers
    for load in sorted(loads, reverse=True):
        heapq.heapreplace(heap, heap[0] + load)
    return max(heap)


def balance(name, distribution):
    uniform = random.Random(SEED).random
    buckets, largest = [0.0] * BUCKETS, []
    for load in distribution(uniform):
        bucket = int(uniform() * BUCKETS)
        buckets[bucket] += load
        if len(largest) < NAMED:
            heapq.heappush(largest, (load, bucket))
        elif load > largest[0][0]:
            heapq.heapreplace(largest, (load, bucket))
    rest = buckets.copy()
    for load, bucket in largest:
        rest[bucket] -= load
    named = [load for load, _ in largest]
    total = sum(buckets)
    row = [name, f"{max(named) / total:.2%}"]
    for servers in SERVERS:
        mean, width = total / servers, BUCKETS // servers
        by_hash = max(sum(buckets[first : first + width]) for first in range(0, BUCKETS, width))
        for most in (by_hash, placed(buckets, servers), placed(rest + named, servers)):
            row.append(f"{most / mean:.2f}")
    return row


def table(head, rows):
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = (" ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in [head, *rows])
    return "\n".join(lines) + "\n"


def main():
    first = table(
        ["devices", "polls/s", "pushes/s", "acks/s", "cores", "commits/s", "WAL", "records", "log", "servers", "by"],
        [amounts(10**power) for power in range(4, 9)],
    )
    shapes = [(f"lognormal {sigma}", lognormal(sigma)) for sigma in (1, 2, 3)]
    shapes += [(f"Zipf {exponent}", zipf(exponent)) for exponent in (0.8, 0.9, 1.0, 1.1)]
    head = ["load", "largest"]
    head += [f"{servers} {how}" for servers in SERVERS for how in ("hash", "placed", "named")]
    second = table(head, [balance(*shape) for shape in shapes])
    if sys.argv[1:] == ["--check"]:
        page = PAGE.read_text()
        if first not in page or second not in page:
            sys.exit(f"error: {PAGE.name} does not have what bench/sizing.py prints: make sizing")
    else:
        print(first, second, sep="\n", end="")


main()
