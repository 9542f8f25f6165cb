"""The command that looks at a recording before any fit: inspect."""

from contextlib import nullcontext
from pathlib import Path

import click

from jaxlif.commands import options
from jaxlif.commands.errors import clear_errors, with_options
from jaxlif.commands.files import keywords_of
from jaxlif.inspection import Inspection, inspect_recording
from jaxlif.recordings import Recording, SpikeRule
from jaxlif.tables import text_table
from jaxlif.writing import require_folder, staged


@click.command("inspect")
@options.recording
@click.option("--out", type=click.Path(path_type=Path), help="Folder for a figure, inspection.png.")
@options.reading
@options.spikes
@clear_errors
def inspect(file, out, reading, spike_rule) -> None:
    """Say what is in a recording, before any fit, and what a fit would do with it.

    Prints clamp, channels and units, ranges, the rest and its drift, and for each sweep its current, the command beside
    a recorded one, where it rests and how often it fires. What cannot be fitted is inspected too, and says why.
    """
    if out:
        require_folder(out)
    with staged(out) if out else nullcontext() as folder:
        found = inspect_recording(file, spike_rule=SpikeRule(**spike_rule), **keywords_of(reading))
        if folder and found.recording is not None:
            _draw(found, found.recording, folder)
    width = max(len(label) for label in (*found.facts, "a fit"))
    lines = [f"{label:{width}}  {text}" for label, text in found.facts.items()]
    lines += ["", text_table(list(found.sweeps)), ""] if found.sweeps else []
    lines += [f"note: {note}" for note in found.notes] + [f"{'a fit':{width}}  {found.verdict}"]
    click.echo(with_options("\n".join(lines)))
    if out and found.recording is not None:
        click.echo(f"figure: {out / 'inspection.png'}")


def _draw(found: Inspection, recording: Recording, folder: Path) -> None:
    import matplotlib.pyplot as plt

    from jaxlif import pictures, plotting  # they load matplotlib, which only figures need

    with plt.rc_context(plotting.STYLE):
        figure = pictures.all_sweeps(found, recording)
        figure.savefig(folder / "inspection.png", dpi=150)
    plt.close(figure)
