"""The page of a prediction in a browser, the network off: what it draws, and for whom."""

import pytest
from prediction_pages import page_of_two

axe_core = pytest.importorskip(
    "axe_core_python.sync_playwright", reason='pip install -e ".[browser]"'
)
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(PHONE, "dark"), (DESK, "light")], ids=["phone-dark", "desk-light"]
)
def test_it_draws_every_curve_asks_for_nothing_and_is_accessible(
    viewport, scheme, browser, tmp_path
):
    file = tmp_path / "report.html"
    file.write_text(page_of_two(), encoding="utf-8")
    context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
    tab, said, requests = context.new_page(), [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(file.as_uri())
    tab.wait_for_selector(".plot .main-svg")
    assert tab.locator(".plot .main-svg").count() >= 2
    assert tab.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth === 60)")
    tab.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
    found = axe_core.Axe().run(tab)["violations"]
    wrong = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in wrong] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert said == []
    assert [url for url in requests if url != file.as_uri() and url[:5] != "data:"] == []
    context.close()
