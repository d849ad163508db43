"""The fault table, for a terminal and as Markdown."""

from __future__ import annotations

from vinegrape_loadtests.chaos.row import FAILED, Report, Result

_NAME_WIDTH = 22


def terminal_header() -> str:
    """Return the header of the lines of `terminal_line`."""
    return (
        f"{'fault':{_NAME_WIDTH}}{'verdict':>8}{'right':>7}{'refused':>8}{'lost':>6}{'wrong':>6}{'p99 ms':>8}"
        f"{'readyz s':>9}{'back s':>8}{'took s':>8}"
    )


def terminal_line(result: Result) -> str:
    """Format one result as a line, followed by its problems."""
    line = (
        f"{result.name:{_NAME_WIDTH}}{result.verdict:>8}{result.right:>7}{result.refused:>8}{result.lost:>6}"
        f"{result.wrong:>6}{_number(result.p99_ms, 0):>8}{_number(result.not_ready_s, 1):>9}"
        f"{_number(result.recovery_s, 1):>8}{result.seconds:>8.1f}"
    )
    return "\n".join([line, *(f"    {problem}" for problem in result.problems)])


def terminal_details(result: Result) -> str:
    """Format what the fault's own requests got, and further figures, as indented lines; empty if there is nothing."""
    outcomes = ", ".join(f"{count} x {outcome}" for outcome, count in result.outcomes.items())
    memory = ", ".join(f"{kind} {mib:.0f}" for kind, mib in result.peak_mib.items())
    lines = [outcomes, *result.notes, f"peak memory, MiB: {memory}" if memory else ""]
    return "\n".join(f"    {line}" for line in lines if line)


def markdown(report: Report) -> str:
    """Format a report as a Markdown table, with the command of each row."""
    option = "--edge" if report.edge else "--no-edge"
    size = " --long" if report.form == "long" else ""
    rates = ", ".join(f"{rate:.0f} {transport}" for transport, rate in report.rates.items())
    lines = [
        f"Machine: {report.machine}. {'With' if report.edge else 'Without'} the edge, the {report.form} form. "
        f"Peak before the first fault: {report.peak:.0f} right answers per second; good clients send per second: "
        f"{rates}.",
        "",
        "| # | fault | expected | fault's own requests | others: right / 429 / lost / wrong | p99, ms | /readyz 503 "
        "after, s | back after, s | verdict | command |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in report.results:
        cells = [
            str(result.attack or ""),
            result.fault,
            result.claim,
            _own(result),
            f"{result.right} / {result.refused} / {result.lost} / {result.wrong}" if result.right else "",
            _number(result.p99_ms, 0),
            _number(result.not_ready_s, 1),
            _number(result.recovery_s, 1),
            _verdict(result),
            f"`vinegrape chaos {result.name} {option}{size}`",
        ]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _own(result: Result) -> str:
    outcomes = [f"{count} x {outcome}" for outcome, count in list(result.outcomes.items())[:8]]
    return "; ".join([*outcomes, *result.notes])


def _verdict(result: Result) -> str:
    verdict = f"**{result.verdict}**" if result.verdict == FAILED else result.verdict
    return ": ".join([verdict, *(["; ".join(result.problems)] if result.problems else [])])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
