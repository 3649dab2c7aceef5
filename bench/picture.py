"""Draw the bars of bench/RESULTS.md: JSON on stdin, SVG on stdout. Runs in the pylab image, which has matplotlib."""

import io
import json
import sys

import matplotlib
import matplotlib.pyplot as plt

COLOURS = {"pyrlab": "#2563eb", "plain": "#cbd5e1", "floor": "#94a3b8"}


def main() -> None:
    """One panel a work, one bar a way."""
    matplotlib.rcParams.update({"svg.hashsalt": "pyrlab", "svg.fonttype": "none", "font.size": 9})
    panels = json.load(sys.stdin)  # [{title, unit, bars: {way: value}}]
    columns = 3
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(9, 1.35 * rows), layout="constrained")
    for axes, panel in zip(grid.flat, panels, strict=False):
        names = list(panel["bars"])[::-1]
        values = [panel["bars"][name] for name in names]
        bars = axes.barh(names, values, color=[COLOURS[name] for name in names], height=0.7)
        digits = 0 if max(values) >= 100 else 1
        axes.bar_label(bars, labels=[f"{value:,.{digits}f} {panel['unit']}" for value in values], padding=3)
        axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
        axes.set_xlim(0, max(values) * 1.35)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks([])
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None}, facecolor="white")
    print("\n".join(line.rstrip() for line in picture.getvalue().splitlines()))


main()
