"""Build a network in NEST and run it, for ``populations.py`` and ``population_speed.py``, in NEST's own environment.

Standard input: a network as ``populations.for_nest`` writes it, with seeds, parts, dt and a file. All spikes of all
seeds go into the file, by seed and population; the last line of standard output is the seconds that each part took, by
seed. NEST has one thread; recording is timed with the rest, building and preparing are not.
"""

import json
import sys
import time

import nest
import numpy as np


def value(given):
    """Return a number, or what draws numbers in NEST."""
    if not isinstance(given, dict):
        return given
    if "low" in given:
        return nest.random.uniform(given["low"], given["high"])
    return nest.math.redraw(nest.random.normal(given["mean"], given["sd"]), min=given["least"], max=given["most"])


def make(asked, seed):
    """Build the network; return its populations and their recorders."""
    nest.ResetKernel()
    nest.set(resolution=asked["dt"], rng_seed=seed + 1, local_num_threads=1)
    model, params = asked["neuron"]
    made, recorders = {}, {}
    for name, own in asked["populations"].items():
        made[name] = nest.Create(model, own["size"], params=params)
        made[name].set(**{key: value(given) for key, given in own.items() if key != "size"})
        recorders[name] = nest.Create("spike_recorder")
        nest.Connect(made[name], recorders[name])
    for p in asked["projections"]:
        for target in p["target"]:
            synapse = {"weight": value(p["weight"]), "delay": value(p["delay"])}
            nest.Connect(made[p["source"]], made[target], p["rule"], synapse)
    for drive in asked["drives"]:
        ends = {} if drive["stop"] is None else {"stop": drive["stop"]}
        generator = nest.Create("poisson_generator", params={"rate": drive["rate"]} | ends)
        nest.Connect(generator, made[drive["target"]], syn_spec={"weight": drive["weight"], "delay": asked["dt"]})
    return made, recorders


def main(asked):
    spikes, seconds = {}, []
    for seed in asked["seeds"]:
        made, recorders = make(asked, seed)
        nest.Prepare()
        seconds.append([])
        for part in asked["parts"]:
            start = time.perf_counter()
            nest.Run(part)
            seconds[-1].append(time.perf_counter() - start)
        nest.Cleanup()
        for name, recorder in recorders.items():
            events = recorder.get("events")
            spikes[f"{seed} times {name}"] = events["times"]
            spikes[f"{seed} neurons {name}"] = events["senders"] - made[name][0].global_id
    np.savez(asked["file"], **spikes)
    print(json.dumps(seconds))


if __name__ == "__main__":
    nest.set_verbosity("M_ERROR")
    main(json.load(sys.stdin))
