"""Files of --albumentations that are none: told before the package sees them."""

import pytest

from utils.data import albument
from utils.errors import UserError


class Package:
    """Albumentations, as far as files are read with it: it makes of a mapping what its registry knows."""

    __version__ = "2.0.8"

    class Compose:
        def set_random_seed(self, seed):
            raise AssertionError("no pipeline is run here")

    @staticmethod
    def from_dict(saved):
        raise KeyError(saved["transform"]["__class_fullname__"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("deep.json", "[" * 100_000, "deep.json: not JSON: maximum recursion depth"),
        ("half.json", '{"transform": ', "half.json: not JSON: Expecting value"),
        ("call.yaml", "a: !!python/object/apply:os.system [ls]", "line 1: not valid YAML: the tag"),
        (
            "laughs.yaml",
            f"a: &a [{'1, ' * 999}]\nb: [{'*a, ' * 999}]",
            "line 2: not valid YAML: more than 100,000 values",
        ),
        ("other.yaml", "transform: {__class_fullname__: os.system}", "other.yaml: KeyError: 'os.system'"),
        ("other.json", '{"transform": {"__class_fullname__": "os.system"}}', "other.json: KeyError: 'os.system'"),
        ("none.yaml", None, "none.yaml: no such pipeline of --albumentations"),
    ],
)
def test_a_pipeline_that_cannot_be_read(name, text, words, tmp_path, monkeypatch):
    monkeypatch.setattr(albument, "load_extra", lambda *_: Package)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        albument.make_transform(str(tmp_path / name))
    assert words in str(caught.value)
