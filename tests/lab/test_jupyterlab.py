"""JupyterLab as a reader meets it: `./run_all.sh --lab`, a notebook run to its end, a slider moved."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request

import pytest

from paperlab.lab.paths import repo_root

NOTEBOOK = "40_tempo_idea.ipynb"
SETTINGS = """\
c.ServerApp.port = {port}
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True
c.IdentityProvider.token = ""
c.LabApp.expose_app_in_browser = True
"""
PANEL = ".jp-OutputArea-output:has(.noUi-handle) img"  # the figure that stands under sliders
RUN_ALL = """
const done = arguments[arguments.length - 1];
window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => done('run'), error => done(String(error)));
"""
ERRORS = "return [...document.querySelectorAll('.jp-OutputArea-output[data-mime-type*=error]')].map(x => x.innerText)"


@pytest.fixture
def lab_url(tmp_path):
    """JupyterLab, started by a copy of `run_all.sh` on a copy of one notebook, so that nothing here is saved over."""
    (tmp_path / "notebooks").mkdir()
    shutil.copy(repo_root() / "run_all.sh", tmp_path)
    shutil.copy(repo_root() / "notebooks" / NOTEBOOK, tmp_path / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "jupyter_lab_config.py").write_text(SETTINGS.format(port=port))
    environment = {
        **os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "PAPERLAB_RESULTS": str(tmp_path / "results"),
    }  # fmt: skip
    server = subprocess.Popen([str(tmp_path / "run_all.sh"), "--lab"], env=environment)
    try:
        yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}"
    finally:
        server.terminate()
        server.wait(90)


def patiently(browser, question, seconds=60):
    """Return the first truthy answer to `question(browser)`."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, ignored_exceptions=[WebDriverException, OSError]).until(question)


@pytest.mark.browser
def test_a_reader_runs_a_notebook_and_moves_a_slider(browser, lab_url):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    patiently(browser, lambda _: urllib.request.urlopen(lab_url.partition("/lab/")[0] + "/api").status == 200 or None)
    browser.get(lab_url)
    patiently(browser, lambda opened: opened.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-CodeCell"))
    browser.set_script_timeout(240)

    def sliders(opened):
        """Run all cells; nothing happens while the kernel is still connecting, so this may be asked again."""
        assert opened.execute_async_script(RUN_ALL) == "run"
        assert opened.execute_script(ERRORS) == []
        return opened.find_elements(By.CSS_SELECTOR, ".noUi-handle")

    handle = patiently(browser, sliders, 240)[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)

    def figure(opened):
        found = opened.find_elements(By.CSS_SELECTOR, PANEL)
        return found and found[-1].get_attribute("src")

    before = patiently(browser, figure)
    handle.send_keys(Keys.ARROW_RIGHT)
    after = patiently(browser, lambda opened: (figure(opened) or before) != before and figure(opened))
    assert after.startswith("data:image/png")
