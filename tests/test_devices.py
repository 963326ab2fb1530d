"""A model is priced on any device and spread over as many as it needs; the anchors are published."""

import json
import subprocess
import sys

import pytest

from mae_lib.cli.main import main
from mae_lib.cost import cost_of_sizes
from mae_lib.devices import DEVICES, USABLE, devices_for, hours, spread


@pytest.fixture
def mae(monkeypatch, capsys):
    """Run the command; return its exit code and what it said."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["mae", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code or 0, (said.err or said.out).strip()

    return run


def test_the_522_billion_model_needs_60_h200_for_states_and_128_to_train():
    cost, h200 = cost_of_sizes("vit_522b", pixels=4096, patch_size=16), DEVICES["h200"]
    assert devices_for(2 * cost.params_total, h200) == 8
    assert devices_for(cost.state_bytes, h200) == 60
    plan = spread(cost, h200)
    assert (plan.devices, plan.tensor_parallel, plan.fsdp, plan.recompute) == (128, 8, 16, True)
    assert str(plan).startswith("TP 8 x FSDP 16 = 128 devices")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("model", ["vit_tiny", "vit_large", "vit_100b", "vit_522b"])
def test_every_plan_fits_and_half_as_many_devices_do_not(model, device):
    cost, machine = cost_of_sizes(model, pixels=1024, patch_size=16), DEVICES[device]
    plan = spread(cost, machine)
    assert plan.bytes_per_device <= USABLE * machine.memory_bytes
    assert plan.devices == plan.tensor_parallel * plan.fsdp
    assert plan.micro_batch >= 1
    if plan.devices > 1:
        assert cost.state_bytes / (plan.devices / 2) > 0.4 * machine.memory_bytes


@pytest.mark.parametrize(
    ("model", "device", "images_per_s"),
    [("vit_large", "v100", 106), ("vit_base", "a100", 1_980), ("vit_base", "a6000", 313)],
)
def test_published_speeds_are_met_within_a_tenth(model, device, images_per_s):
    cost = cost_of_sizes(model, pixels=224, patch_size=16, mask_ratio=0.75)
    predicted = 1 / hours(cost, DEVICES[device], 1) / 3600
    assert predicted == pytest.approx(images_per_s, rel=0.1)


def test_the_command_prints_lines_and_the_same_as_json(mae):
    arguments = ("cost", "--model", "vit_522b", "--resolution", 4096, "--images-seen", "1.6e8")
    code, lines = mae(*arguments)
    assert code == 0
    for part in ("523.1 billion", "13,107 of 65,536", "4.61e+16", "8.37 TB (60)",
                 "TP 8 x FSDP 16", "62.4 GB", "5.18e+06 device-hours"):  # fmt: skip
        assert part in lines
    values = json.loads(mae(*arguments, "--json")[1])
    assert values["format"] == 1
    assert values["device_hours"] == pytest.approx(5.2e6, rel=0.01)
    assert values["parallelism"]["tensor_parallel"] == 8


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--model", "vit_lage"), "did you mean 'vit_large'?"),
        (("--device", "h2000"), "did you mean 'h200'?"),
        (("--patch-size", 0), "patch_size: from 1"),
        (("--resolution", 8), "patch_size: at most the resolution of 8 pixels, got 16"),
        (("--patch-size", 999), "patch_size: at most the resolution of 256 pixels, got 999"),
        (("--resolution", 16), "mask_ratio: at least one of 1 patches"),
        (("--mask-ratio", 1.5), "mask_ratio: at least one"),
        (("--mask-ratio", "nan"), "mask_ratio: at least one"),
        (("--images-seen", "nan"), "images_seen: more than 0"),
        (("--images-seen", -1), "images_seen: more than 0"),
        (("--decoder-dim", 0), "decoder_dim: from 1"),
        (
            ("--decoder-dim", 7),
            "of its 16 heads and of 4 (the sines and cosines of a position), got 7; 16 would do",
        ),
        (("--decoder-dim", 500), "got 500; 496 or 512 would do"),
        (("--model", "vit_hybrid", "--patch-size", 8), "patches of 16 pixels"),
    ],
)
def test_bad_input_ends_in_one_line_with_code_2(mae, arguments, part):
    code, said = mae("cost", *arguments)
    assert code == 2
    assert part in said
    assert "\n" not in said


def test_pricing_needs_no_torch_and_counting_no_pydantic():
    for code in (
        "for name in ('torch', 'timm'):\n sys.modules[name] = None\n"
        "sys.argv = ['mae', 'cost', '--model', 'vit_522b', '--json']\n"
        "from mae_lib.cli.main import main\nmain()",
        "for name in ('torch', 'timm', 'pydantic'):\n sys.modules[name] = None\n"
        "from mae_lib.cost import cost_of_sizes\nfrom mae_lib.devices import spread",
    ):
        found = subprocess.run(
            [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, check=False
        )
        assert found.returncode == 0, found.stderr
