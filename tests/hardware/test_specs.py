"""The shipped figures against arithmetic on clocks and standards, and strict loading."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from paperlab import hardware
from paperlab.lab.paths import data_dir

# Of fp16 tensor cores accumulating in fp32: the boost clock (MHz) behind the vendor's peak, and dense FLOPs per
# SM and clock; then the same of fp32 CUDA cores. The architecture whitepapers' own arithmetic.
_ARITHMETIC = {
    "V100-SXM2-16GB": (1530, 1024, 1530, 128),
    "T4": (1590, 1024, 1590, 128),
    "RTX-2080-Ti": (1545, 512, 1545, 128),
    "A100-SXM-40GB": (1410, 2048, 1410, 128),
    "A100-PCIe-40GB": (1410, 2048, 1410, 128),
    "A100-SXM-80GB": (1410, 2048, 1410, 128),
    "A100-PCIe-80GB": (1410, 2048, 1410, 128),
    "V100-SXM2-32GB": (1530, 1024, 1530, 128),
    "RTX-3090": (1695, 512, 1695, 256),
    "A10": (1695, 1024, 1695, 256),
    "A10G": (1710, 512, 1710, 256),
    "L4": (2040, 1024, 2040, 256),
    "L20": (2520, 512, 2520, 256),
    "L40S": (2520, 1024, 2520, 256),
    "RTX-4090": (2520, 512, 2520, 256),
    "H100-SXM": (1830, 4096, 1980, 256),
    "H100-PCIe": (1620, 4096, 1755, 256),
    "H200-SXM": (1830, 4096, 1980, 256),
}


def test_every_device_is_covered_by_the_arithmetic():
    assert set(_ARITHMETIC) == set(hardware.devices())


@pytest.mark.parametrize("name", _ARITHMETIC)
def test_peaks_follow_from_sm_count_and_clock(name):
    spec = hardware.device(name)
    tensor_MHz, tensor_per_clock, fp32_MHz, fp32_per_clock = _ARITHMETIC[name]
    assert spec.peak("fp16") == pytest.approx(spec.sm_count * tensor_MHz * 1e6 * tensor_per_clock, rel=0.02)
    assert spec.peak("fp32") == pytest.approx(spec.sm_count * fp32_MHz * 1e6 * fp32_per_clock, rel=0.02)


@pytest.mark.parametrize("spec", hardware.devices().values(), ids=lambda spec: spec.name)
def test_dtypes_keep_their_order(spec):
    peak = spec.peak_flops_per_s
    if "bf16" in peak:  # Ampere and later: tf32 runs at half the 16-bit rate, int8 at twice it or more
        assert peak["bf16"] == peak["fp16"]
        assert peak["tf32"] == pytest.approx(peak["fp16"] / 2, rel=0.02)
        assert peak["int8"] >= 1.99 * peak["fp16"]
    assert ("bf16" in peak) == (float(spec.compute_capability) >= 8)
    assert ("fp8" in peak) == (float(spec.compute_capability) >= 8.9)


def test_links_and_devices_that_are_named_exist():
    for spec in hardware.devices().values():
        assert spec.host_link in hardware.links()
        assert spec.peer_link is None or spec.peer_link in hardware.links()
    for spec in hardware.hosts().values():
        assert spec.device in hardware.devices()
        assert spec.network in hardware.links()


@pytest.mark.parametrize(("name", "gigatransfers", "lanes"), [
    ("pcie3-x16", 8, 16), ("pcie4-x8", 16, 8), ("pcie4-x16", 16, 16), ("pcie5-x16", 32, 16),
])  # fmt: skip
def test_pcie_bandwidth_follows_from_the_signaling_rate(name, gigatransfers, lanes):
    expected_Bps = gigatransfers * 1e9 * lanes * 128 / 130 / 8
    assert hardware.link(name).bandwidth_Bps == pytest.approx(expected_Bps, rel=1e-4)


def test_units_are_converted():
    spec = hardware.device("L4")
    assert spec.memory_bytes == 24 * 2**30
    assert spec.bandwidth_Bps == 300e9
    assert spec.l2_bytes == 48 * 2**20
    assert hardware.link("infiniband-hdr").time_s(25e9) == pytest.approx(1 + 2e-6)


def test_devices_are_found_by_cuda_name_and_specs_are_hashable():
    assert hardware.device("NVIDIA H200") is hardware.device("H200-SXM")
    names = [spec.cuda_name for spec in hardware.devices().values()]
    assert len(names) == len(set(names))
    assert len(set(hardware.devices().values())) == len(names)


def test_provenance_of_single_figures():
    spec = hardware.device("T4")
    assert spec.provenance("bandwidth_Bps").confidence == "recalled"
    assert spec.provenance("memory_bytes").confidence == "datasheet"
    assert hardware.device("L20").provenance("peak_flops_per_s").confidence == "recalled"
    assert hardware.link("pcie4-x16").provenance("latency_s").confidence == "recalled"
    with pytest.raises(ValueError, match="no figure 'color'"):
        spec.provenance("color")


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Return a function that loads devices.yaml after changing the entry of the L4."""

    def load(**changes):
        entries = yaml.safe_load((data_dir() / "hardware" / "devices.yaml").read_text())
        entry = {key: value for key, value in (entries["L4"] | changes).items() if value != "drop"}
        target = tmp_path / "hardware" / "devices.yaml"
        target.parent.mkdir(exist_ok=True)
        target.write_text(yaml.safe_dump({"L4": entry}))
        with monkeypatch.context() as patch:
            patch.setenv("PAPERLAB_DATA", str(tmp_path))
            return hardware.device("L4")

    return load


@pytest.mark.parametrize(("change", "message"), [
    ({"memory": 24}, r"unknown keys \['memory'\]"),
    ({"source": "drop"}, r"missing keys \['source'\]"),
    ({"source": " "}, "source is ' '"),
    ({"confidence": "sure"}, "confidence is 'sure'"),
    ({"bandwidth_GBps": 0}, "bandwidth_Bps is 0"),
    ({"bandwidth_GBps": -300}, "bandwidth_Bps is -300"),
    ({"bandwidth_GBps": "fast"}, "bandwidth_GBps is 'fast'"),
    ({"bandwidth_GBps": float("nan")}, "bandwidth_Bps is nan"),
    ({"sm_count": 58.5}, "sm_count is 58.5; write int"),
    ({"sm_count": True}, "sm_count is True; write int"),
    ({"cuda_name": None}, "cuda_name is None"),
    ({"peak_TFLOP_per_s": {"fp16": -1}}, "peak_flops_per_s.fp16 is -1"),
    ({"peak_TFLOP_per_s": {"fp12": 1}}, "known: fp32"),
    ({"peak_TFLOP_per_s": {}}, "peak has dtypes"),
    ({"exceptions": {"color": {"source": "x", "confidence": "recalled"}}}, "exceptions name"),
    ({"exceptions": {"sm_count": {"source": "x"}}}, "confidence"),
    ({"exceptions": "none"}, "exceptions is 'none'"),
])  # fmt: skip
def test_bad_entries_are_one_line_errors(edit, change, message):
    with pytest.raises(ValueError, match=message) as error:
        edit(**change)
    assert "devices.yaml: L4" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unchanged_copy_loads(edit):
    assert edit() == hardware.device("L4")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: {b: ]\n", "!!python/object/apply:os.getcwd []\n"])
def test_files_that_are_no_mapping_are_refused(tmp_path, monkeypatch, text):
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "links.yaml").write_text(text)
    monkeypatch.setenv("PAPERLAB_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"links\.yaml") as error:
        hardware.links()
    assert "\n" not in str(error.value)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown device 'A11'; known: A10, "):
        hardware.device("A11")
    with pytest.raises(ValueError, match="has no peak for dtype 'bf16'"):
        hardware.device("T4").peak("bf16")


def test_hardware_and_model_arithmetic_import_without_torch():
    code = "import sys, paperlab.hardware, paperlab.transformer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "found"), [("l20", "L20"), ("H200", "H200-SXM"), ("l4", "L4"), ("L40s", "L40S")])
def test_devices_are_found_as_people_write_them(name, found):
    assert hardware.device(name).name == found


def test_an_ambiguous_name_is_refused():
    with pytest.raises(ValueError, match="ambiguous device 'a100'"):
        hardware.device("a100")
