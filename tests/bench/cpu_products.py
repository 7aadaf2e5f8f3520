"""Seconds that the matrix products of one step take at the least, on a given number of cores.

Run as a process of its own, so that threads and affinity are set before any library starts:
`python cpu_products.py THREADS CORES LAYERS ROWS:HEAD_ROWS...` prints one JSON object {"ROWS:HEAD_ROWS": seconds} for a
step of ROWS tokens of which HEAD_ROWS are sampled from. Each product is timed at its own M, N, K, by paddle.matmul
and numpy.matmul; the best of all timings counts. A step takes no less than reading the weights once at the
bandwidth measured.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from random_checkpoint import HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, VOCABULARY

REPEATS = 5
READ_BYTES = 1 << 29


def layer_shapes() -> list[tuple[int, int]]:
    """(K, N) of the products of one layer, neighbours merged: fewer, larger products take less time."""
    attention = HEADS * HEAD_DIM
    return [
        (HIDDEN, attention + 2 * KV_HEADS * HEAD_DIM),
        (attention, HIDDEN),
        (HIDDEN, 2 * INTERMEDIATE),
        (INTERMEDIATE, HIDDEN),
    ]


def best(run: Callable[[], object]) -> float:
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def product_seconds(rows: int, k: int, n: int) -> float:
    import numpy as np
    import paddle

    x, weight = np.full((rows, k), 0.5, np.float32), np.full((k, n), 0.5, np.float32)
    out = np.empty((rows, n), np.float32)
    by_numpy = best(lambda: np.matmul(x, weight, out=out))
    tensor_x, tensor_weight = paddle.to_tensor(x), paddle.to_tensor(weight)
    return min(by_numpy, best(lambda: paddle.matmul(tensor_x, tensor_weight)))


def read_bandwidth(threads: int) -> float:
    """Bytes/s of summing memory far larger than any cache."""
    import numpy as np

    parts = np.array_split(np.ones(READ_BYTES // 4, np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:
        return READ_BYTES / best(lambda: list(pool.map(np.max, parts)))


def weight_bytes(layers: int) -> int:
    return 4 * (layers * sum(k * n for k, n in layer_shapes()) + HIDDEN * VOCABULARY)


def step_seconds(rows: int, head_rows: int, layers: int, bandwidth: float) -> float:
    products = layers * sum(product_seconds(rows, k, n) for k, n in layer_shapes())
    head = product_seconds(head_rows, HIDDEN, VOCABULARY) if head_rows else 0.0
    return max(products + head, weight_bytes(layers) / bandwidth)


def main(threads: int, cores: str, layers: int, steps: list[str]) -> None:
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    from pdcluster_worker.executor.paddle_environment import prepare

    prepare(threads)
    bandwidth = read_bandwidth(threads)
    seconds = {}
    for step in steps:
        rows, head_rows = (int(part) for part in step.split(":"))
        seconds[step] = step_seconds(rows, head_rows, layers, bandwidth)
    print(json.dumps({"bandwidth": bandwidth, "seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
