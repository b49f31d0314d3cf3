import os

import pytest

from simtune.errors import OptionError
from simtune.train.tuning import use_devices


def test_devices_are_shown_to_cuda(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    use_devices("0, 1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    monkeypatch.undo()


def test_a_schedulers_choice_of_gpus_wins(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    use_devices("0")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


@pytest.mark.parametrize("devices", ["", "cuda:0", "0;1", "-1"])
def test_devices_that_cannot_be_read_are_an_error(devices):
    with pytest.raises(OptionError, match="--devices cannot be read"):
        use_devices(devices)
