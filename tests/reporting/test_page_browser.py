"""The page in a browser, the network off: what it shows, recomputes, filters, and for whom."""

import pathlib
import re

import pytest
from prediction_tables import mostly_right
from saved_runs import write_run

from msa_flax.evaluation.metrics import confusion, rates
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run
from msa_flax.reporting.text import shown

sync_api = pytest.importorskip("playwright.sync_api", reason='pip install -e ".[browser]"')
axe_core = pytest.importorskip(
    "axe_core_python.sync_playwright", reason='pip install -e ".[browser]"'
)
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    stamps = ["copies cross the split"]
    first = write_run(
        folder / "a", threshold=0.35, stamps=stamps, explained=range(0, 120, 3), audit=True
    )
    return [
        read_run(first, "test"),
        read_run(write_run(folder / "b", mostly_right(seed=1), name="other"), "test"),
    ]


@pytest.fixture(scope="module")
def file(runs):
    path = pathlib.Path(runs[0].workdir) / "report.html"
    path.write_text(render_page(runs[0], runs[1:]), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, file):
    """Opens the page; at the end nothing must have gone wrong, and nothing been asked for."""
    contexts, said, requests = [], [], []

    def open_page(viewport=DESK, scheme="light"):
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url[:80]))
        tab.goto(file)
        tab.wait_for_selector(".plot .main-svg")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in requests if url != file and not url.startswith("data:")] == []


def numbers_of(tab):
    cells = {c.get_attribute("data-count"): c.inner_text() for c in tab.locator(".cell").all()}
    numbers = tab.locator("[data-number]").all()
    return (
        {key: int(text) for key, text in cells.items()},
        {cell.get_attribute("data-number"): cell.inner_text() for cell in numbers},
    )


def expected(run, threshold):
    counts = confusion(run.predictions.label, run.predictions.probability, threshold)
    return counts, {key: shown(float(value)) for key, value in rates(**counts).items()}


def test_the_numbers_are_those_of_metrics_json(opened, runs):
    tab, metrics = opened(), runs[0].metrics
    counts, numbers = numbers_of(tab)
    assert counts == metrics["confusion"]
    assert len(numbers) == 7
    for name, number in numbers.items():
        assert number == shown(metrics["metrics"][name]["value"])
    # Moved by a key and back: now the script has computed them.
    slider = tab.locator("#threshold")
    slider.press("ArrowRight")
    assert tab.locator("#threshold-value").inner_text() == "0.351"
    tab.locator("#reset").click()
    assert numbers_of(tab) == (counts, numbers)
    assert tab.locator("#threshold-value").inner_text() == "0.35"
    assert tab.evaluate("document.activeElement.id") == "threshold"


@pytest.mark.parametrize("threshold", [0.0, 0.123, 0.5, 0.9, 1.0])
def test_the_slider_recomputes_every_number(opened, runs, threshold):
    tab = opened()
    tab.locator("#threshold").fill(str(threshold))
    assert numbers_of(tab) == expected(runs[0], threshold)
    live = tab.locator("#live")
    sync_api.expect(live).to_contain_text(f"At threshold {threshold:g}: accuracy")
    assert f"sensitivity {expected(runs[0], threshold)[1]['recall']}" in live.inner_text()


def test_the_slider_starts_at_the_runs_threshold_and_is_reached_by_keys(opened):
    tab = opened()
    slider = tab.locator("#threshold")
    assert slider.input_value() == "0.35"
    slider.focus()
    tab.keyboard.press("Home")
    assert tab.locator("#threshold-value").inner_text() == "0"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "reset"
    tab.keyboard.press("Enter")
    assert tab.locator("#threshold-value").inner_text() == "0.35"


def test_the_operating_point_moves_along_the_roc_curve(opened, runs):
    tab = opened()
    find = """() => {
        const plot = document.querySelector('[data-chart="curves-roc"]');
        const point = plot.data.find((trace) => trace.meta === "operating point");
        return [point.x[0], point.y[0]];
    }"""
    for threshold in (0.35, 0.8):
        tab.locator("#threshold").fill(str(threshold))
        values = rates(**expected(runs[0], threshold)[0])
        assert tab.evaluate(find) == pytest.approx(
            [1 - float(values["specificity"]), float(values["recall"])], abs=1e-6
        )


def test_the_filters_show_what_they_say(opened, runs):
    tab, run = opened(), runs[0]
    visible, status = tab.locator(".case:visible"), tab.locator("#shown")
    everything = visible.count()
    assert status.inner_text() == f"{everything} cases"
    tab.locator("#outcome").select_option("fn")
    missed = run.outcome == "fn"
    assert visible.count() == missed.sum() > 0
    group = str(run.predictions.group[missed][0])
    tab.locator("#group").select_option(label=group)
    both = missed & (run.predictions.group == group)
    assert visible.count() == int(both.sum())
    assert re.match(rf"{int(both.sum())} cases?$", status.inner_text())
    for select in ("#outcome", "#group"):
        tab.locator(select).select_option("")
    assert visible.count() == everything


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(PHONE, "dark"), (DESK, "light")], ids=["phone-dark", "desk-light"]
)
def test_nothing_is_wrong_with_its_accessibility_and_only_tables_scroll(opened, viewport, scheme):
    tab = opened(viewport, scheme)
    tab.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
    found = axe_core.Axe().run(tab)["violations"]
    serious = [
        (v["id"], v["nodes"][0]["html"][:200], v["nodes"][0].get("failureSummary"))
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []
    width = tab.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]


def test_the_charts_follow_the_colours_of_the_page(opened):
    tab = opened(scheme="light")
    text, title = tab.locator(".plot .xtick text").first, tab.locator("h1")
    colours = []
    for scheme in ("light", "dark", "light"):
        tab.emulate_media(color_scheme=scheme)
        colours.append(title.evaluate("(element) => getComputedStyle(element).color"))
        sync_api.expect(text).to_have_css("fill", colours[-1])
    assert colours[0] != colours[1]


def test_every_chart_is_drawn(opened, runs):
    tab = opened()
    assert tab.locator(".plot").count() == 2 + 4 + 4
    assert tab.locator(".plot .main-svg").count() >= 10
    pictures = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    assert tab.evaluate(pictures)


def test_it_is_readable_without_scripts_too(browser, file, runs):
    context = browser.new_context(java_script_enabled=False, offline=True)
    tab = context.new_page()
    tab.goto(file)
    assert numbers_of(tab) == expected(runs[0], 0.35)
    context.close()
