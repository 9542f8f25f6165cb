"""Run CUBA in Brian2, for ``population_speed.py``, in Brian2's own environment, compiled by Cython.

Standard input: the neuron's parameters in NEST's names, the lengths of parts, ms, and a seed; the last line of standard
output is the seconds that each part took, less those of a run of one step, which are what Brian2 prepares in every run,
and the rate of the excitatory neurons in the last part, Hz.
"""

import json
import sys
import time

from brian2 import Network, NeuronGroup, SpikeMonitor, Synapses, defaultclock, ms, mV, prefs
from brian2 import seed as set_seed

EQUATIONS = """
dv/dt = (E_L - v + exc + inh) / tau_m : volt (unless refractory)
dexc/dt = -exc / tau_exc : volt
dinh/dt = -inh / tau_inh : volt
"""


def main(asked):
    prefs.codegen.target = "cython"
    defaultclock.dt = 0.1 * ms
    set_seed(asked["seed"])
    names = {"E_L": asked["E_L"] * mV, "V_th": asked["V_th"] * mV, "V_reset": asked["V_reset"] * mV}
    times = {"tau_m": asked["tau_m"], "tau_exc": asked["tau_syn_ex"], "tau_inh": asked["tau_syn_in"]}
    names |= {name: value * ms for name, value in times.items()}
    rules = {"threshold": "v > V_th", "reset": "v = V_reset", "refractory": asked["t_ref"] * ms, "method": "exact"}
    neurons = NeuronGroup(4000, EQUATIONS, namespace=names, **rules)
    neurons.v = "-60*mV + 10*mV*rand()"
    excitatory = Synapses(neurons[:3200], neurons, on_pre="exc += 1.62*mV")
    inhibitory = Synapses(neurons[3200:], neurons, on_pre="inh -= 9*mV")
    excitatory.connect(p=0.02)
    inhibitory.connect(p=0.02)
    monitor = SpikeMonitor(neurons)
    network, seconds = Network(neurons, excitatory, inhibitory, monitor), []
    for part in asked["parts"]:
        start = time.perf_counter()
        network.run(defaultclock.dt)
        step = time.perf_counter()
        network.run(part * ms)
        seconds.append(time.perf_counter() - step - (step - start))
    late = (monitor.t / ms > sum(asked["parts"][:-1])) & (monitor.i[:] < 3200)
    print(json.dumps({"seconds": seconds, "rate": 1e3 * late.sum() / (3200 * asked["parts"][-1])}))


if __name__ == "__main__":
    main(json.load(sys.stdin))
