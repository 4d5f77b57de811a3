"""Draw pytest-benchmark's results of test_sizes.py, test_latency.py and test_growth.py.

python benches/pictures.py RESULTS.json FOLDER [--format png]
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from curves import GROWTH, PEERS, Curves, amount, datapoints_per_second, milliseconds, percentiles_of

INK = "#7a7f87"
"""Readable on white and on black, because the pictures have a transparent background."""
LOOKS = {"native": ("#1a9e8f", "o"), "by hand": ("#d9822b", "s")}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 16,
    "axes.labelpad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 7,
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
    # Makes the picture depend only on the numbers.
    "svg.hashsalt": "tb-mqtt-client",
}
MEDIAN, NEARLY_ALL = "-", ":"


def line(axes, peer, x, y, style=MEDIAN):
    colour, marker = LOOKS[peer]
    axes.plot(x, y, style, color=colour, marker=marker, clip_on=False, zorder=3)


def logarithmic(axis, ticks, scale, write=amount):
    """Make an axis logarithmic with exactly these ticks; ``scale`` is the method that sets it."""
    scale("log")
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))


def ticks_around(numbers):
    """Return 1, 2 and 5 times the powers of ten around the numbers, or only the powers if there are many."""
    steps = [factor * 10**power for power in range(-6, 10) for factor in (1, 2, 5)]
    first = max(step for step in steps if step <= min(numbers))
    last = min(step for step in steps if step >= max(numbers))
    between = [step for step in steps if first <= step <= last]
    return between if len(between) <= 8 else [step for step in between if f"{step:e}".startswith("1")]


def vertical(axes, numbers, write=amount):
    ticks = ticks_around(numbers)
    logarithmic(axes.yaxis, ticks, axes.set_yscale, write)
    axes.set_ylim(min(ticks[0], *numbers) * 0.85, max(ticks[-1], *numbers) * 1.15)


def finish(figure, note, *styles):
    """Add a legend of peers and line styles above the panels, and a note below."""
    handles = [Line2D([], [], color=LOOKS[peer][0], marker=LOOKS[peer][1], label=label) for peer, label in PEERS.items()]
    handles += [Line2D([], [], color=INK, linestyle=style, label=label) for style, label in styles]
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False, fontsize=11.5, handlelength=2.5)
    figure.text(0.5, 0.012, note, ha="center", va="bottom", fontsize=10)
    figure.tight_layout(rect=(0, 0.06, 1, 0.92), w_pad=3)


def throughput(results):
    figure = Figure(figsize=(11, 5.2))
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"device": "Device", "gateway": "Gateway with 100 sub-devices"}
    drawn = []
    for axes, (kind, title) in zip(panels, titles.items(), strict=True):
        for peer, points in results.of(f"throughput, {kind}", "size").items():
            rates = [datapoints_per_second(one) for one in points.values()]
            line(axes, peer, list(points), rates)
            drawn += rates
        logarithmic(axes.xaxis, list(points), axes.set_xscale)
        axes.set_title(title)
        axes.set_xlabel("datapoints per send")
    panels[0].set_ylabel("datapoints per second")
    for axes in panels:
        vertical(axes, drawn)
    finish(
        figure,
        "From the first send to the last PUBACK from Mosquitto on the same machine; QoS 1, not awaited. Higher is better.",
    )
    return figure


def latency(results):
    figure = Figure(figsize=(11, 5.2))
    idle, loaded = figure.subplots(1, 2)
    draw_percentiles(idle, results.of("latency, one send at a time"))
    draw_rates(loaded, results.of("latency at a rate", "rate"))
    finish(
        figure,
        "From a send to its result after the PUBACK from Mosquitto on the same machine; QoS 1. Lower is better.",
        (MEDIAN, "median"),
        (NEARLY_ALL, "99th percentile"),
    )
    return figure


def draw_percentiles(axes, curves):
    """Draw percentiles at equal distances, so that the last tenths of a percent take as much space as the first half."""
    drawn = []
    for peer, points in curves.items():
        [one] = points.values()
        percentiles = percentiles_of(one)
        taken = [milliseconds(one, percentile) for percentile in percentiles]
        line(axes, peer, range(len(taken)), taken)
        drawn += taken
    vertical(axes, drawn, "{:g}".format)
    axes.set_xticks(range(len(percentiles)), [f"{percentile:g} %" for percentile in percentiles])
    axes.set_title("One send at a time")
    axes.set_xlabel("percentile of sends")
    axes.set_ylabel("milliseconds")


def draw_rates(axes, curves):
    drawn = []
    for peer, points in curves.items():
        for style, percentile in ((MEDIAN, 50), (NEARLY_ALL, 99)):
            taken = [milliseconds(one, percentile) for one in points.values()]
            line(axes, peer, list(points), taken, style)
            drawn += taken
    logarithmic(axes.xaxis, list(points), axes.set_xscale)
    vertical(axes, drawn, "{:g}".format)
    axes.set_title("At a steady rate")
    axes.set_xlabel("sends per second, ten datapoints each")
    axes.set_ylabel("milliseconds")


def growth(results):
    """Draw the time of a datapoint while one size grows: a horizontal line is linear growth of the whole."""
    figure = Figure(figsize=(11, 7.4))
    panels = figure.subplots(2, 3).flat
    drawn = []
    for axes, (case, grows) in zip(panels, GROWTH.items(), strict=False):
        points = results.points(case)
        sizes, taken = [size for size, _ in points], [1e9 * seconds for _, seconds in points]
        line(axes, "native", sizes, taken)
        logarithmic(axes.xaxis, sizes, axes.set_xscale)
        axes.set_title(case.partition(" ")[0])
        axes.set_xlabel(grows)
        axes.set_ylabel("ns of a datapoint")
        axes.set_ylim(0, 1.25 * max(taken))
        drawn.append(axes)
    for axes in figure.axes:
        if axes not in drawn:
            axes.set_visible(False)
    note = "CPU time of a datapoint from dicts to payloads, or to the queue, while one size grows. Lower is better."
    figure.text(0.5, 0.012, note, ha="center", va="bottom", fontsize=10)
    figure.tight_layout(rect=(0, 0.04, 1, 1), w_pad=2, h_pad=2.5)
    return figure


PICTURES = {"throughput": throughput, "latency": latency, "growth": growth}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results = Curves(arguments.results)
    with mpl.rc_context(STYLE):
        for name, make in PICTURES.items():
            path = arguments.folder / f"{name}.{arguments.format}"
            metadata = {"Date": None} if arguments.format == "svg" else None
            make(results).savefig(path, transparent=True, dpi=110, metadata=metadata)
            print(path)


if __name__ == "__main__":
    main()
