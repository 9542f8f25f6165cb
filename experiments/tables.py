"""Write the tables of ``RESULTS.md`` and the short one of the README from the files under ``results/``.

Command: python experiments/tables.py [--check]
With --check nothing is written; the exit status says whether both pages are up to date.
"""

import json
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGES = (HERE / "RESULTS.md", HERE.parent / "README.md")
MARK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEADLINES_MARK = re.compile(r"(<!-- headlines -->\n).*?(<!-- end -->)", re.DOTALL)

# What the README shows: the words there, the experiment, its metric. Every target that is missed by a job's main number
# belongs here too.
HEADLINES = (
    ("tau_m recovered from the model's own noisy data", "synthetic_recovery", "tau_m, own start: largest error"),
    ("f-I curve of an interneuron, RMSE", "fsi_steps", "f-I curve, closed form: RMSE"),
    ("layer 5 cell, gif: Md* at 4 ms on held-out time", "l5_gif", "gif: Md* at 4 ms"),
    ("the same, time of the command", "l5_gif", "gif: the whole command, compiled code kept from before"),
    (
        "worst coverage of a 95 % interval, of gif's parameters and kernels",
        "gif_coverage",
        "lowest share of 95 % intervals that contain the truth",
    ),
    ("f-I curves of 40 cells, RMSE at held-out currents", "fi_population", "median RMSE at held-out currents"),
    ("electrocardiograms, accuracy of test steps", "ecg", "accuracy of test steps"),
    ("spoken digits, official test", "spoken_digits_official", "accuracy, official test"),
    ("arrays that differ after five kills", "kill_and_resume", "arrays that differ from the undisturbed run"),
    (
        "layer of 512, time of snnTorch over jaxlif",
        "benchmark_layer",
        "512 to 512, feed-forward: time of snntorch 1.0.0 over jaxlif",
    ),
)

OF_A_GPU = (
    "cells of the contract suite*",
    "LIF, * neurons, unroll 1, with gradient: a step",
    "LIF, * neurons, unroll 16, with gradient: a step",
    "layer of *: forward and gradient*",
    "epoch of *, width ??",
    "epoch of *, width ???",
    "likelihood*",
    "gif: *",
    "network of *: one second of it",
)


def record_of(name: str) -> dict[str, Any]:
    """Return what one experiment wrote."""
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))


def table(name: str) -> str:
    """Return the claims of one experiment as a Markdown table, with the command that made them."""
    record = record_of(name)
    # A benchmark has a number for every size: the page shows those with a target, and some that a GPU gave.
    claims = [c for c in record["claims"] if c["target"] or not name.startswith("benchmark_")]
    if name.startswith("gpu_"):
        claims = [c for c in claims if any(fnmatchcase(c["metric"], pattern) for pattern in OF_A_GPU)]
    jax = record["versions"]["jax"]
    return "\n".join([*rows(claims), "", f"`{record['command']}`, {record['device']}, jax {jax}", ""])


def headlines() -> str:
    """Return the README's table: one line for each main number."""
    return "\n".join([*rows([headline(*entry) for entry in HEADLINES]), ""])


def headline(words: str, name: str, metric: str) -> dict[str, Any]:
    """Return one claim of an experiment under the README's words for it."""
    found = [c for c in record_of(name)["claims"] if c["metric"] == metric]
    if len(found) != 1:
        raise SystemExit(f"{name}.json has {len(found)} claims called {metric!r}: HEADLINES must name one")
    return found[0] | {"metric": words}


def rows(claims: list[dict[str, Any]]) -> list[str]:
    """Return claims as the lines of a Markdown table."""
    return ["| | value | target | |", "|---|---|---|---|", *(row(c) for c in claims)]


def row(c: dict[str, Any]) -> str:
    """Return one claim as a line of a Markdown table."""
    spread = "" if c["sd"] is None else f" ± {c['sd']:.2g}"
    unit = f" {c['unit']}" if c["unit"] else ""
    seeds = f" ({c['seeds']} seeds)" if c["seeds"] else ""
    verdict = {True: "reached", False: "not reached", None: ""}[c["reached"]]
    return f"| {c['metric']} | {c['value']:.3g}{spread}{unit}{seeds} | {c['target'] or ''} | {verdict} |"


def filled(page: str) -> str:
    """Return a page with its tables made anew."""
    page = MARK.sub(lambda m: m[1] + table(m[2]) + m[3], page)
    return HEADLINES_MARK.sub(lambda m: m[1] + headlines() + m[2], page)


def main(check: bool) -> int:
    """Bring both pages up to date, or say whether they are."""
    stale = 0
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = filled(old)
        stale |= new != old
        if not check:
            path.write_text(new, encoding="utf-8")
    return int(stale and check)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
