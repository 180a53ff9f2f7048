"""A small laboratory of its own: two notebooks, one ledger, results in a folder with a space in its name."""

import shutil
import textwrap

import pytest

from paperlab.lab import claims, notebooks

LEDGER = """\
claim_id,paper_ref,arxiv_version,statement,value_low,value_high,unit,comparison,tolerance,source,evidence,note
X-01,abstract,v1,twice as fast,2,,x,at_least,0.05,read,measured-cpu,
X-02,Table 1,v1,sixteen percent faster on a GPU,16,,%,at_least,0.1,read,measured-gpu,
X-03,Table 2,v1,a number that nobody could read,,,x,at_least,0,unknown,measured-cpu,the table was not available
X-04,§3,v1,the order holds,,,,holds,0,read,measured-cpu,
"""

DEMO = '''\
# %% [markdown]
# # A demo
#
# Multiples of $x_i$.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run
seed: int = 0  # seeds everything
scale: float = 2.0  # what the table multiplies by

# %%
import matplotlib.pyplot as plt
import pandas as pd

from paperlab.lab import start

run = start("41_demo", profile, seed)
frame = pd.DataFrame({"x": [1, 2, 3], "y": [scale * 0.1, scale * 0.2, scale * 0.3]})

# %% tags=["solution"]
def double(x):
    """Return twice x."""
    return 2 * x

# %%
run.save_table(frame, "table_1", evidence="measured-cpu", caption="Multiples of a tenth.")
figure, axes = plt.subplots()
axes.plot(frame.x, frame.y)
run.save_figure(figure, "figure_1", frame, evidence="measured-cpu", caption="The same multiples.")
run.record_claim("X-01", double(1.0), evidence="measured-cpu", artifact="table_1")
'''


@pytest.fixture
def lab_root(tmp_path, monkeypatch):
    """A repository root with the notebook 41_demo and the ledger data/claims/tempo.csv."""
    root = tmp_path / "a lab"
    (root / "notebooks" / "py").mkdir(parents=True)
    (root / "data" / "claims").mkdir(parents=True)
    (root / "data" / "claims" / "tempo.csv").write_text(LEDGER)
    monkeypatch.setenv("PAPERLAB_ROOT", str(root))
    for name in ("PAPERLAB_DATA", "PAPERLAB_RESULTS", "PAPERLAB_STAGING"):
        monkeypatch.delenv(name, raising=False)
    claims._ledgers.cache_clear()
    write_notebook(root, "41_demo", DEMO)
    yield root
    claims._ledgers.cache_clear()


def write_notebook(root, name, source):
    """Add a notebook and its script to the laboratory at `root`."""
    (root / "notebooks" / "py" / f"{name}.py").write_text(textwrap.dedent(source))
    notebooks.sync()


@pytest.fixture
def browser():
    """A headless Chromium, driven by selenium; the test is skipped where there is none."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver on the PATH")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    opened.command_executor.client_config.timeout = 300  # seconds; a busy machine runs a notebook slowly
    yield opened
    opened.quit()
