"""The book is built from what has run: chapters, claims, alternative texts; and a browser reads it."""

from __future__ import annotations

import re

import nbformat
import pytest

from paperlab.lab.book import write_book
from paperlab.lab.cli import main
from paperlab.lab.execute import execute

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
QUIET = "return [...document.querySelectorAll('img')].map(image => [image.alt, image.naturalWidth])"


@pytest.fixture
def book(lab_root):
    execute("41_demo", "smoke")
    return write_book("smoke")


def test_the_book_is_what_has_run(book, lab_root):
    assert book == lab_root / "results" / "book" / "html" / "index.html"
    assert "A demo" in book.read_text()
    claims = (book.parent / "claims_tempo.html").read_text()
    assert "X-01: reproduced" in claims
    assert "X-02: pending-gpu" in claims
    assert 'href="41_demo.html"' in claims
    chapter = (book.parent / "41_demo.html").read_text()
    assert 'alt="The same multiples."' in chapter
    assert re.search(r'src="_static/mathjax/[^"]*\.js', chapter)
    for page in book.parent.glob("*.html"):
        assert not re.search(r'<(script|img|iframe)[^>]* src="https?:', page.read_text()), "works offline"
        assert not re.search(r'<link[^>]* rel="stylesheet"[^>]*https?:', page.read_text())

    executed = lab_root / "results" / "smoke" / "41_demo" / "executed.ipynb"
    node = nbformat.read(executed, as_version=4)
    node.cells[0].source += "\n\n[nowhere](42_missing.ipynb)"
    nbformat.write(node, executed)
    with pytest.raises(RuntimeError, match="42_missing"):
        write_book("smoke")


def test_what_has_not_run_is_told(lab_root, capsys):
    assert main(["book", "--profile", "smoke"]) == 2
    assert "./run_all.sh --profile smoke" in capsys.readouterr().err


@pytest.mark.browser
def test_a_browser_reads_the_book(book, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    pages = sorted(book.parent.glob("*.html"))
    assert {"index.html", "41_demo.html", "claims_tempo.html"} <= {page.name for page in pages}
    for page in pages:
        browser.get(page.as_uri())
        severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert not severe, page.name
        for text, width in browser.execute_script(QUIET):
            assert text, page.name
            assert width > 0, page.name
    browser.get((book.parent / "search.html").as_uri() + "?q=multiples")
    found = WebDriverWait(browser, 20).until(lambda opened: opened.find_elements(By.CSS_SELECTOR, "ul.search li a"))
    assert any("A demo" in link.text for link in found)

    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    for page in pages:
        browser.get(page.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), page.name
