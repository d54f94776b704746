"""Drawing on images: what lies where, in which colour, in any language."""

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from tests.helpers.pictures import extent, grey, near, read
from utils.errors import UserError
from utils.plots.draw import PALETTE, class_color, draw_boxes, draw_tag, save_image
from utils.plots.evaluation import plot_metric_curve
from utils.plots.figure import new_figure, save_figure
from utils.plots.text import font_of, fonts_for, open_font, printable, text_mask

NAMES = {0: "person", 1: "红细胞", 2: "cost $x_1$"}


def test_palette_colors_are_far_apart_and_cyclic():
    colors = np.array(PALETTE, int)
    distance = np.abs(colors[:, None] - colors).sum(-1) + 1000 * np.eye(len(colors), dtype=int)
    assert len(colors) >= 20
    assert distance.min() > 40
    assert class_color(3) == class_color(3 + len(PALETTE)) != class_color(4)


# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB
EYES = {
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


@pytest.mark.parametrize("eyes", EYES)
def test_colors_differ_for_eyes_that_confuse_red_and_green(eyes):
    channels = np.array(PALETTE) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(EYES[eyes]).T).clip(0, 1)
    # OKLab
    cones = np.cbrt(seen @ np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]).T)
    lab = cones @ np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]).T
    distances = np.linalg.norm(lab[:, None] - lab, axis=2) + np.eye(len(lab))
    assert distances[:8, :8].min() > 0.07 and distances.min() > 0.05


@pytest.mark.parametrize("line_width", [1, 2, 5])
def test_box_lies_on_its_edges_in_its_color(line_width):
    image = grey(200, 300)
    drawn = draw_boxes(image, np.array([[50, 60, 150, 120]]), np.array([1]), NAMES, line_width=line_width, labels=[""])
    mask = near(drawn, class_color(1))
    before, after = line_width // 2, line_width - line_width // 2
    assert extent(mask) == (50 - before, 60 - before, 150 + before - 1, 120 + before - 1)
    assert mask[60:120, 50].all()
    assert mask[60, 50:150].all()
    assert not mask[60 + after : 120 - after, 50 + after : 150 - after].any()
    assert (drawn[~mask] == 114).all()
    assert (image == 114).all(), "the caller's image is left alone"


def test_default_line_width_grows_with_the_image():
    def border_pixels(height, width):
        box = np.array([[width * 0.2, height * 0.2, width * 0.8, height * 0.8]])
        drawn = draw_boxes(grey(height, width), box, np.array([0]), NAMES, labels=[""])
        return near(drawn, class_color(0))[height // 2].sum() / 2

    assert border_pixels(480, 640) == 2
    assert border_pixels(1080, 1920) == 5
    assert border_pixels(40, 40) == 1


@pytest.mark.parametrize("box", [(0, 0, 20, 20), (280, 0, 300, 20), (0, 180, 20, 200), (280, 180, 300, 200)])
def test_tag_stays_inside_the_image_in_every_corner(box):
    args = (np.array([box]), np.array([0]), NAMES, np.array([0.87]))
    plain = draw_boxes(grey(200, 300), *args, labels=[""])
    drawn = draw_boxes(grey(200, 300), *args)
    assert (drawn != plain).any()

    alone = grey(100, 200)  # the same tag with room on all sides
    draw_tag(alone, "person 0.87", 40, 40, 10, class_color(0))
    x1, y1, x2, y2 = extent(~near(alone, (114, 114, 114)))
    tag = alone[y1 : y2 + 1, x1 : x2 + 1]
    x = 0 if box[0] == 0 else 300 - tag.shape[1]
    y = 20 if box[1] == 0 else 180 - tag.shape[0]
    assert np.array_equal(drawn[y : y + tag.shape[0], x : x + tag.shape[1]], tag)


def test_tag_stands_above_the_box_where_there_is_room():
    drawn = draw_boxes(grey(200, 300), np.array([[100, 100, 200, 180]]), np.array([0]), NAMES, line_width=2)
    x1, y1, _, y2 = extent(near(drawn, class_color(0)))
    assert (x1, y2) == (99, 180)
    assert 100 - 25 < y1 < 100 - 10
    assert not near(drawn[102:170, 102:190], class_color(0)).any()


def test_a_tag_leaves_small_boxes_to_be_seen():
    """Where the usual place holds another box the tag goes below or beside its own, and two tags never lie on each other."""
    boxes = np.array([[100, 100, 200, 180], [105, 80, 125, 95], [100, 185, 115, 200]])
    drawn = draw_boxes(grey(300, 400), boxes, np.array([0, 1, 2]), NAMES, line_width=2)
    plain = draw_boxes(grey(300, 400), boxes, np.array([0, 1, 2]), NAMES, line_width=2, labels=["", "", ""])
    for x1, y1, x2, y2 in boxes[1:]:
        assert np.array_equal(drawn[y1:y2, x1:x2], plain[y1:y2, x1:x2])
    assert (drawn != plain).any()


def test_two_tags_never_lie_on_each_other():
    crowd = np.array([[10 * i, 50, 10 * i + 8, 58] for i in range(1, 8)])

    def colored(tagged):
        labels = ["a" if i in tagged else "" for i in range(7)]
        return near(draw_boxes(grey(120, 120), crowd, np.full(7, 3), {}, labels=labels), class_color(3)).sum()

    frames = colored([])
    assert colored([0, 1]) - frames == (colored([0]) - frames) + (colored([1]) - frames) > 0


def test_text_color_contrasts_with_the_tag():
    dark, light = grey(40, 200), grey(40, 200)
    draw_tag(dark, "label", 5, 5, 16, (10, 10, 120))
    draw_tag(light, "label", 5, 5, 16, (250, 240, 90))
    assert near(dark, (255, 255, 255)).any()
    assert near(light, (0, 0, 0)).any()


def test_tag_wider_and_taller_than_the_image_is_cut():
    image = grey(8, 30)
    draw_tag(image, "a name of many letters", 0, 0, 20, (10, 10, 120))
    assert not near(image, (114, 114, 114)).any()


def test_the_most_confident_box_is_on_top():
    boxes = np.array([[50, 50, 150, 150], [50, 50, 150, 150]])
    for scores, winner in (([0.9, 0.3], 0), ([0.3, 0.9], 1)):
        drawn = draw_boxes(grey(200, 200), boxes, np.array([0, 1]), {}, np.array(scores), labels=["", ""])
        assert near(drawn, class_color(winner)).any()
        assert not near(drawn, class_color(1 - winner)).any()


def test_labels_replace_names_and_unknown_classes_show_their_number():
    def drawn(**kwargs):
        return draw_boxes(grey(100, 200), np.array([[20, 40, 150, 90]]), np.array([7]), NAMES, **kwargs)

    assert np.array_equal(drawn(), drawn(labels=["7"]))
    assert np.array_equal(drawn(scores=np.array([0.5])), drawn(labels=["7 0.50"]))
    assert not np.array_equal(drawn(), drawn(labels=["x"]))


def test_boxes_beyond_the_image_and_no_boxes():
    outside = draw_boxes(grey(100, 100), np.array([[-500, -40, 1e6, 300]]), np.array([0]), NAMES, labels=[""])
    assert extent(near(outside, class_color(0))) == (0, 0, 99, 99)
    nothing = draw_boxes(grey(100, 100), np.zeros((0, 4)), np.zeros(0), NAMES, np.zeros(0))
    assert (nothing == 114).all()


def test_text_of_any_language_has_ink_and_no_warning(capfd):
    empty = grey(60, 400)
    draw_tag(empty, "", 0, 0, 20, (10, 10, 120))
    for name in ("红细胞", "血小板 0.87", "ネコ", "고양이", "кошка", "größe", "قط", "a\nb", "🐈"):
        image = grey(60, 400)
        draw_tag(image, name, 0, 0, 20, (10, 10, 120))
        assert (image.astype(int).sum(-1) > 3 * 200).sum() > 20, name
    assert (empty.astype(int).sum(-1) > 3 * 200).sum() == 0
    said, errors = capfd.readouterr()
    assert not errors and all(line.startswith("warning: no installed font has") for line in said.splitlines())


def test_font_lookup_prefers_dejavu_and_never_fails(capfd):
    assert [path.endswith("DejaVuSans.ttf") for path in fonts_for("person 0.87 кошка")] == [True]
    for text in ("红细胞", "\U0010fffd", ""):
        assert len(printable(text)) == len(text)
    assert printable("a\tb\n c") == "a b c"
    capfd.readouterr()
    assert printable("b\U0010fffe") == printable("b\U0010fffe") == "b□"
    assert capfd.readouterr().out.count("no installed font has \\U0010fffe") == 1
    for text in ("红 é \U0010fffd", "🐈 ж 고", "\x00\x07"):
        fonts = [open_font(path) for path in fonts_for(printable(text))]
        assert all(any(font.get_char_index(ord(c)) for font in fonts) for c in printable(text) if not c.isspace())


def test_a_font_without_latin_letters_serves_for_the_characters_that_it_has(tmp_path, capfd):
    """A name of two scripts is drawn by two fonts, in boxes and in figures."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({0x2A6A5: "cat"})
    pens = {".notdef": TTGlyphPen(None), "cat": TTGlyphPen(None)}
    for corner, draw in zip([(0, 0), (0, 800), (800, 800), (800, 0)], ["moveTo"] + ["lineTo"] * 3, strict=True):
        getattr(pens["cat"], draw)(corner)
    pens["cat"].closePath()
    builder.setupGlyf({name: pen.glyph() for name, pen in pens.items()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupOS2()
    builder.setupPost()
    builder.setupNameTable({"familyName": "Cats Only", "styleName": "Regular"})
    builder.save(tmp_path / "cats.ttf")
    fontManager.addfont(tmp_path / "cats.ttf")
    try:
        name = "\U0002a6a5 a"
        assert [open_font(path).family_name for path in fonts_for(name)] == ["DejaVu Sans", "Cats Only"]
        assert printable(name) == name
        mask = text_mask(name, 20)
        # the square of the one font, 16 pixels wide, and the letter of the other behind it
        assert (mask[:16, 3:14] == 255).any(0).all() and mask[:, 22:].any()
        plot_metric_curve(np.linspace(0, 1, 3), np.full((1, 3), 0.5), tmp_path / "a.png", {0: name}, [0], "P")
        assert capfd.readouterr() == ("", "")
    finally:
        fontManager.ttflist = [entry for entry in fontManager.ttflist if entry.name != "Cats Only"]
        font_of.cache_clear()
        text_mask.cache_clear()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_save_image_keeps_rgb_and_takes_non_ascii_paths(tmp_path, suffix):
    image = np.full((20, 30, 3), (200, 30, 60), np.uint8)
    path = save_image(tmp_path / f"检测 结果é{suffix}", image)
    assert near(read(path), (200, 30, 60), 4).all()


def test_a_chart_is_small_and_has_every_pixel(tmp_path):
    figure = new_figure(4, 3)
    figure.subplots().plot([1, 3, 2, 5, 4], label="a line")
    small = save_figure(figure, tmp_path / "small.png")
    pixels = cv2.imread(str(small))
    fast = save_image(tmp_path / "fast.png", pixels[..., ::-1].copy())
    assert (cv2.imread(str(fast)) == pixels).all() and len(np.unique(pixels)) > 9
    assert small.stat().st_size < 0.8 * fast.stat().st_size


def test_save_image_says_why_it_cannot_write(tmp_path):
    image = grey(4, 4)
    with pytest.raises(UserError, match=r"a\.xyz: cannot write an image as '\.xyz'"):
        save_image(tmp_path / "a.xyz", image)
    with pytest.raises(UserError, match="noext: cannot write an image as ''"):
        save_image(tmp_path / "noext", image)
    with pytest.raises(UserError, match="No such file or directory"):
        save_image(tmp_path / "missing" / "a.png", image)
