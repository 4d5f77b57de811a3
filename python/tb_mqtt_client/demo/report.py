"""The output of the demo: a progress bar while data is sent, and a table with the numbers of both sides at the end."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tb_mqtt_client.demo.traffic import Latencies, Results


@dataclass(frozen=True)
class Tally:
    """The client's counters at the end, in datapoints."""

    accepted: int
    acknowledged: int
    rejected: int
    dropped: int
    undelivered: int


@dataclass(frozen=True)
class Bulk:
    """The size and duration of the bulk of data that follows the live metrics."""

    datapoints: int
    messages: int
    payload_bytes: int
    limit_bytes: int
    """The sum of the size limits of its payloads."""
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """The numbers of one run."""

    results: Results
    tally: Tally
    platform_datapoints: int | None
    """The platform's own count; ``None`` for a real server, which does not report it."""
    bulk: Bulk
    live_latencies: Latencies
    bulk_latencies: Latencies

    def disagreements(self) -> list[str]:
        """Return the reasons why this run failed. Empty if every datapoint was acknowledged and counted on both sides."""
        sent, tally = self.results.sent, self.tally
        counts = {
            "accepted by the client": tally.accepted,
            "acknowledged": tally.acknowledged,
            "reported to the caller": self.results.resolved,
            "counted by the platform": self.platform_datapoints,
        }
        found = [
            f"{count:,} datapoints {what}, {sent:,} sent" for what, count in counts.items() if count is not None and count != sent
        ]
        if lost := tally.rejected + tally.dropped + tally.undelivered:
            found.append(f"{lost:,} datapoints rejected, dropped or undelivered")
        if self.results.failed_sends:
            found.append(f"{self.results.failed_sends:,} sends failed, the first with {self.results.first_failure}")
        return found


class Display:
    """The progress bar."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("datapoints"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, description: str, total: int | None, count: Callable[[], int]) -> Callable[[bool], None]:
        """Add a line to the progress bar.

        Args:
            description: The text of the line.
            total: The number of datapoints; ``None`` while live metrics are streamed.
            count: Returns the number of datapoints with a result, which only grows.

        Returns:
            A function that redraws the line; its argument says whether the phase is over.
        """
        before = count()
        task = self._progress.add_task(description, total=total)

        def draw(over: bool) -> None:
            counted = count() - before
            # Without a total the bar never stops moving, so the final count becomes the total.
            self._progress.update(task, completed=counted, total=counted if over and total is None else total)

        return draw


def show(console: Console, outcome: Outcome) -> None:
    """Print the table, and whether the numbers of both sides agree."""
    table = Table(title="Both sides, in datapoints", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in _rows(outcome):
        table.add_row(name, value, end_section=name in {"counted by the platform", "datapoints per second"})
    console.print(table)
    disagreements = outcome.disagreements()
    for line in disagreements:
        console.print(f"[bold red]✗[/] {line}")
    if disagreements:
        return
    if outcome.platform_datapoints is None:
        console.print("[bold green]✓[/] every datapoint was acknowledged; a real server does not report how many it stored")
    else:
        console.print("[bold green]✓[/] every datapoint was acknowledged and counted on both sides")


def _rows(outcome: Outcome) -> list[tuple[str, str]]:
    tally, bulk = outcome.tally, outcome.bulk
    platform = outcome.platform_datapoints
    rows = [
        ("accepted", f"{tally.accepted:,}"),
        ("acknowledged", f"{tally.acknowledged:,}"),
        ("rejected", f"{tally.rejected:,}"),
        ("dropped", f"{tally.dropped:,}"),
        ("undelivered", f"{tally.undelivered:,}"),
        ("counted by the platform", "not available from a real server" if platform is None else f"{platform:,}"),
    ]
    if bulk.messages:
        rows += [
            ("messages of the bulk", f"{bulk.messages:,}"),
            ("payload bytes of the bulk", f"{bulk.payload_bytes:,}"),
            ("mean payload fill", f"{bulk.payload_bytes / bulk.limit_bytes:.1%}"),
            ("datapoints per second", f"{bulk.datapoints / bulk.seconds:,.0f}"),
        ]
    for name, latencies in (("live metrics", outcome.live_latencies), ("bulk", outcome.bulk_latencies)):
        for percent in (50, 99):
            seconds = latencies.percentile(percent)
            if seconds is not None:
                rows.append((f"time to acknowledgement, {name}, p{percent}", f"{seconds * 1000:,.1f} ms"))
    return rows
