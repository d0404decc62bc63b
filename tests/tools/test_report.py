"""The report of a run: well-formed, whole in one file, and readable in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.made_histories import Made, made
from tools.chaos_lab.charts import spread_chart
from tools.chaos_lab.report import report_of, write_report
from tools.chaos_lab.verdict import check, check_history

VOID = {"meta", "input", "link", "br", "img", "hr"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Checker(HTMLParser):
    """Holds that every element ends where it must, and gathers ids and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids)), "an id twice"
    for name, value in checker.attributes:
        if name.startswith("aria-labelledby"):
            assert value in checker.ids
    return checker


def page_of(run: Made) -> str:
    history = run.history()
    return report_of(history, check_history(history))


def data_of(page: str) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    table: dict[str, list[dict[str, object]]] = json.loads(found[1])
    return table


@pytest.mark.parametrize("rounds", [0, 1, 30])
def test_the_page_is_well_formed_and_needs_nothing_from_outside(rounds: int) -> None:
    page = page_of(made(1, rounds))
    checker = checked(page)
    assert "every guarantee held" in checker.text
    assert not [one for one in checker.attributes if one[0] in ("src", "href", "srcset", "action", "data")]
    for word in ("://", "url(", "@import", "fetch(", "XMLHttpRequest", "WebSocket", "import("):
        assert word not in page
    assert "default-src 'none'" in page


def test_each_round_has_its_row_and_its_trace() -> None:
    page = page_of(made(2, 20, fault=lambda run, number: "kill" if number == 17 else "redis_killed"))
    checked(page)
    rows = re.findall(r'<tr id="row-(\d+)" data-round="\1"', page)
    assert [int(row) for row in rows] == list(range(20))
    trace = str(data_of(page)["rounds"][17]["words"])
    assert re.fullmatch(
        r"round 17: kill of node 1; node 2 active after \d+\.\d ms \(term 2\); settled \d+ ms after the healing",
        trace,
    )
    assert "somebody was active all the time" in str(data_of(page)["rounds"][16]["words"])


def test_the_data_is_sorted_for_the_window() -> None:
    data = data_of(page_of(made(3, 25)))
    for name in ("lives", "leaderships", "struck", "elections", "rounds", "wrong", "log"):
        begins = [one["from"] for one in data[name]]
        assert begins == sorted(begins), name  # type: ignore[type-var]
    assert {one["look"] for one in data["struck"]} >= {"frozen", "cut", "redis"}


def test_a_violation_stands_at_the_top_with_its_slice() -> None:
    run = made(4, 5, fault=lambda run, number: "kill")
    elected = run.history().facts("elected")[1]
    run.files["node3.jsonl"].append(
        {"us": elected.us + 5, "node": 3, "incarnation": 7, "term": elected.term, "event": "elected", "votes": 2}
    )
    page = page_of(run)
    checker = checked(page)
    assert "1 violation" in checker.text
    assert f"S1: nodes {elected.node} and 3 were both elected in term {elected.term}" in checker.text
    assert "verdict broken" in page
    assert data_of(page)["wrong"]


def test_what_a_history_says_is_text_and_never_markup() -> None:
    run = made(5, 2)
    evil = "</script><script>alert(1)</script><b a='\"&"
    run.strike(1, evil, 1, note=evil)
    run.chaos("skipped", fault=evil, reason=evil)
    page = page_of(run)
    checked(page)
    assert "<script>alert" not in page
    assert evil in [one["fault"] for one in data_of(page)["struck"]]


def test_the_report_of_a_directory(tmp_path: Path) -> None:
    made(6, 3).write(tmp_path / "history")
    write_report(tmp_path, check(tmp_path), tmp_path / "report.html")
    checked((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_a_thousand_rounds_stay_small() -> None:
    page = page_of(made(7, 1000))
    checked(page)
    assert len(page) < 3_000_000


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0], [0.003, 99_999.0], [-5.0, 3.0], list(map(float, range(1, 999)))])
@pytest.mark.parametrize("log", [True, False])
def test_charts_hold_any_values(values: list[float], log: bool) -> None:
    chart = spread_chart({"kill": values, "empty": []}, "gap", log)
    checked(chart)
    places = [float(x) for x in re.findall(r'c?x[12]?="([-\d.]+)"', chart)]
    assert all(0 <= x <= 1100 for x in places)
    assert "empty" not in chart
    assert f"max {max(values):.1f} ms" in chart


def _browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")


@pytest.mark.parametrize(("scheme", "number"), [("light", "1"), ("dark", "0")])
def test_a_real_browser_draws_it_and_goes_to_round_17(tmp_path: Path, scheme: str, number: str) -> None:
    browser = _browser()
    path = tmp_path / "report.html"
    path.write_text(page_of(made(8, 20, fault=lambda run, at: "kill" if at == 17 else "leave")), encoding="utf-8")
    done = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={number}",
            *("--window-size=1300,900", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom"),
            f"{path.as_uri()}#round-17",
        ],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    page = done.stdout
    assert f'data-drawn="{scheme}"' in page, done.stderr[-2000:]
    assert re.search(r'<span id="where"[^>]*>round 17: kill of node \d; node \d active after', page)
    assert re.search(r'<tr id="row-17"[^>]*class="current"', page)
    log = page.partition('<table id="log">')[2].partition("</table>")[0]
    assert re.search(r"<td>chaos</td><td>kill of node \d</td>", log)
    assert re.search(r"<td>node \d</td><td>is elected in term \d+ by 2 votes</td>", log)
    assert "Uncaught" not in done.stderr
    assert "Content Security Policy" not in done.stderr
