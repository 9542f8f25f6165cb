"""Write the README's tables of results from the files under ``results/``.

Command: python experiments/tables.py [--check]
With --check nothing is written; the exit status says whether the README is up to date.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
MARK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """Return the claims of one experiment as a Markdown table, with the command that made them."""
    record = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
    # A benchmark has a number for every size: the README shows those with a target.
    claims = [c for c in record["claims"] if c["target"] or not name.startswith("benchmark_")]
    rows = ["| | value | target | |", "|---|---|---|---|", *(row(c) for c in claims)]
    jax = record["versions"]["jax"]
    return "\n".join([*rows, "", f"`{record['command']}`, {record['device']}, jax {jax}", ""])


def row(c: dict) -> str:
    spread = "" if c["sd"] is None else f" ± {c['sd']:.2g}"
    unit = f" {c['unit']}" if c["unit"] else ""
    seeds = f" ({c['seeds']} seeds)" if c["seeds"] else ""
    verdict = {True: "reached", False: "not reached", None: ""}[c["reached"]]
    return f"| {c['metric']} | {c['value']:.3g}{spread}{unit}{seeds} | {c['target'] or ''} | {verdict} |"


def main(check: bool) -> int:
    old = README.read_text(encoding="utf-8")
    new = MARK.sub(lambda m: m[1] + table(m[2]) + m[3], old)
    if check:
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
