"""Names of devices that this machine doesn't have, or that are none."""

import pytest

from utils.device import select_device
from utils.errors import UserError


@pytest.mark.parametrize("name", ["²", "9" * 4000, "cuda:x", ",", "cuda:0,", "-1", "meta"])
def test_what_is_no_device_is_one_line(name):
    with pytest.raises(UserError, match="--device "):
        select_device(name)
