"""What the terminal shows of a data set that was written."""

from __future__ import annotations

from maskwright.terminal import console

from .writing import RewriteReport


def tell(report: RewriteReport, data: str, *, classes: bool = False) -> None:
    """Show what was written, what is lost and what to know.

    Args:
        report: of the writing.
        data: what was read.
        classes: list the images of each class as well.
    """
    console.table(
        f"{data} as {report.format}",
        ["split", "images", "objects", "written"],
        [
            [split, report.images[split], report.objects[split], str(file)]
            for split, file in report.written.items()
        ],
    )
    names = dict.fromkeys(name for own in report.classes.values() for name in own)
    if classes and names:
        rows = [
            [console.short(name), *(own.get(name, 0) for own in report.classes.values())]
            for name in names
        ]
        console.table("Images by class", ["class", *report.classes], rows)
    lost = [[split, n, what] for split, own in report.lost.items() for what, n in own.items()]
    if lost:
        console.table("Lost", ["split", "objects", "what"], lost)
    else:
        console.note("Lost: nothing.")
    for note in report.notes:
        console.note(f"Note: {note}")
    if count := sum(sum(own.values()) for own in report.faults.values()):
        console.note(f"{count} fault(s) in what was read: `maskwright data check` lists them")
