"""The HTML report in a headless Chromium, on a phone, a desk and paper; skipped where no Chromium is found."""

import re
import subprocess

import pytest
from report.chromium import PROGRAM, Chromium

from medistill.report.html import render

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium: install Debian's chromium to run this test")

SCREENS = {"phone": (360, 800), "tablet": (768, 1024), "desk": (1280, 900)}

# Each text's colour on the ground under it, by WCAG 2.2, where it is below 4.5; figures are pictures of their own.
FAINT = """(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  let seen = 0;
  for (let text; text = texts.nextNode();) {
    if (!text.data.trim()) continue;
    seen++;
    const over = text.parentElement, [a, b] = [light(getComputedStyle(over).color), light(ground(over))];
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) found.push(text.data);
  }
  return [seen, found];
})()"""


@pytest.fixture(scope="module")
def chromium():
    browser = Chromium()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def file(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(content))
    return path


@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_without_a_word_of_complaint(chromium, file, screen):
    chromium.open(file, *SCREENS[screen])
    width = chromium.ask("document.scrollingElement.scrollWidth")
    assert width <= SCREENS[screen][0] == chromium.ask("innerWidth")
    methods = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed"}
    assert [event for event in chromium.events if event.get("method") in methods] == []
    asked = [e["params"]["request"]["url"] for e in chromium.events if e.get("method") == "Network.requestWillBeSent"]
    assert asked.count(file.as_uri()) == 1
    assert all(address.startswith("data:") for address in asked if address != file.as_uri())
    assert chromium.ask("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    # what is wider than the screen can be scrolled to, with a keyboard too
    beyond = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    assert chromium.ask(f"{beyond}.every(e => e.tabIndex === 0 && getComputedStyle(e).overflowX === 'auto')")
    if screen == "desk":
        assert chromium.ask(f"{beyond}.map(e => e.textContent)") == []
    if screen == "phone":
        assert chromium.ask(f"{beyond}.length") > 3
        assert chromium.ask("parseFloat(getComputedStyle(document.body).fontSize)") >= 16
    assert chromium.ask("document.querySelector('.gallery img').getBoundingClientRect().width") > 80
    assert chromium.ask("getComputedStyle(document.querySelector('.gallery img')).imageRendering") == "pixelated"


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(chromium, file, dark):
    chromium.open(file, *SCREENS["desk"], dark=dark)
    ground = chromium.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == dark
    seen, faint = chromium.ask(FAINT)
    assert seen > 500 and faint == []
    chromium.ask(f"document.querySelector('.lead').style.color = '{'#666' if dark else '#888'}'")
    assert len(chromium.ask(FAINT)[1]) > 0


def test_the_keyboard_finds_the_way(chromium, file):
    chromium.open(file, *SCREENS["desk"])

    def press(key):
        for kind in ("rawKeyDown", "keyUp"):
            chromium("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    press("Tab")
    assert chromium.ask("document.activeElement.className") == "skip"
    assert chromium.ask("document.activeElement.getBoundingClientRect().left") == 0
    chromium("Input.dispatchKeyEvent", type="char", text="\r", key="Enter")
    chromium("Input.dispatchKeyEvent", type="keyDown", text="\r", key="Enter", code="Enter", windowsVirtualKeyCode=13)
    assert chromium.ask("location.hash + document.activeElement.id") == "#mainmain"
    press("Tab")
    assert chromium.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert chromium.ask("document.activeElement.textContent") == "limits"


KEYS = {"Tab": 9, "Enter": 13}


def test_a_screen_reader_is_told_of_landmarks_tables_and_pictures(chromium, file):
    chromium.open(file, *SCREENS["desk"])
    nodes = [node for node in chromium("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    names = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    roles = [role for role, _ in names]
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert roles.count(landmark) == 1
    regions = [name for role, name in names if role == "region"]
    assert len(regions) > 15 and all(regions) and "Limits" in regions
    tables = [name for role, name in names if role == "table"]
    assert len(tables) >= 10 and all(tables) and "By sex" in tables
    assert all(name for role, name in names if role in ("image", "link", "DisclosureTriangle"))
    assert ("rowheader", "distilled") in names and ("columnheader", "balanced accuracy") in names


def test_on_paper_nothing_is_folded_away(chromium, file, tmp_path):
    chromium.open(file, *SCREENS["desk"])
    folded = "[...document.querySelectorAll('details > *:not(summary)')].map(e => e.checkVisibility())"
    assert not any(chromium.ask(folded))
    chromium("Emulation.setEmulatedMedia", media="print")
    chromium("Emulation.setDeviceMetricsOverride", width=688, height=1000, deviceScaleFactor=1, mobile=False)
    assert chromium.ask("document.scrollingElement.scrollWidth") <= 688
    assert len(chromium.ask(folded)) == 4 and all(chromium.ask(folded))
    assert chromium.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    beyond = (
        "[...document.querySelectorAll('table, img')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    )
    assert chromium.ask(f"{beyond}.map(e => e.textContent || e.alt)") == []
    chromium("Emulation.setEmulatedMedia", media="")
    chromium.paper(tmp_path / "report.pdf")
    head = (tmp_path / "report.pdf").read_bytes()
    assert head.startswith(b"%PDF") and 5 < len(re.findall(rb"/Type\s*/Page\b", head)) < 25


def test_the_browser_ends_with_its_test():
    browser = Chromium()
    number = browser._process.pid
    browser.close()
    assert subprocess.run(["ps", "-p", str(number)], capture_output=True, check=False).returncode == 1
