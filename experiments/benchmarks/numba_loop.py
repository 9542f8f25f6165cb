"""The compiled loop that ``neuron.py`` compares with: plain loops over time and neurons, by numba, in one thread.

It is run by the Python of an environment of its own, which has numba and NumPy and no JAX, and takes its orders as
lines: ``load file.npz`` answers ready, ``run`` answers the seconds of one run, ``save file.npy`` answers saved. The
arithmetic is that of ``jaxlif.LIF`` in float32; the decay and the refractory steps come computed. ``contract`` lets the
compiler fuse a product and a sum, as XLA does.
"""

import sys
import time

import numba
import numpy as np

ONE, ZERO = np.float32(1.0), np.float32(0.0)


@numba.njit(fastmath={"contract"}, error_model="numpy")
def run_scalars(current, decay, r_m, v_rest, v_th, v_reset, refractory_steps):
    steps, size = current.shape
    spikes, voltages = np.empty((steps, size), np.float32), np.empty((steps, size), np.float32)
    v, waiting = np.full(size, v_rest, np.float32), np.zeros(size, np.int32)
    for n in range(steps):
        for i in range(size):
            # No branches, so that the compiler can take several neurons in one instruction.
            held = waiting[i] > 0
            free = v[i] - (v_rest + r_m * current[n, i] - v[i]) * decay
            before = v[i] if held else free
            fires = (not held) & (before >= v_th)
            v[i] = v_reset if fires else before
            waiting[i] = refractory_steps if fires else max(waiting[i] - 1, 0)
            spikes[n, i], voltages[n, i] = ONE if fires else ZERO, v[i]
    return spikes, voltages


@numba.njit(fastmath={"contract"}, error_model="numpy")
def run_arrays(current, decay, r_m, v_rest, v_th, v_reset, refractory_steps):
    steps, size = current.shape
    spikes, voltages = np.empty((steps, size), np.float32), np.empty((steps, size), np.float32)
    v, waiting = v_rest.copy(), np.zeros(size, np.int32)
    for n in range(steps):
        for i in range(size):
            # No branches, so that the compiler can take several neurons in one instruction.
            held = waiting[i] > 0
            free = v[i] - (v_rest[i] + r_m[i] * current[n, i] - v[i]) * decay[i]
            before = v[i] if held else free
            fires = (not held) & (before >= v_th[i])
            v[i] = v_reset[i] if fires else before
            waiting[i] = refractory_steps[i] if fires else max(waiting[i] - 1, 0)
            spikes[n, i], voltages[n, i] = ONE if fires else ZERO, v[i]
    return spikes, voltages


def load(path):
    """Return the loop for scalar parameters or for arrays [N], and its arguments."""
    file = np.load(path)
    names = ("current", "decay", "r_m", "v_rest", "v_th", "v_reset", "refractory_steps")
    arguments = [file[name][()] for name in names]
    return run_arrays if np.ndim(arguments[1]) else run_scalars, arguments


def main():
    print(numba.__version__, flush=True)
    for line in sys.stdin:
        order, _, path = line.strip().partition(" ")
        if order == "load":
            loop, arguments = load(path)
            answer = "ready"
        elif order == "run":
            start = time.perf_counter()
            spikes, _ = loop(*arguments)
            answer = repr(time.perf_counter() - start)
        else:
            np.save(path, spikes.astype(bool))
            answer = "saved"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
