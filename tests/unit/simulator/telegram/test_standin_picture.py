import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

from cluster.simulator.telegram.picture import LINES_MAX, WIDTH, draw
from cluster.simulator.telegram.transcript import Line

SVG = "{http://www.w3.org/2000/svg}"
COMMAND = {"type": "bot_command", "offset": 0, "length": 6}
CHAT = (
    Line(who="Ada", from_bot=False, kind="text", text="/start", entities=(COMMAND,)),
    Line(
        who="Bot",
        from_bot=True,
        kind="text",
        text="😀 Shall I <build> & ship?\nIt costs 12 credits.",
        entities=({"type": "bold", "offset": 3, "length": 5},),
        rows=(("✅ Build it", "Change"), ("A label that is much too long for one button of a phone, is it not?",)),
        edited=True,
    ),
    Line(who="Ada", from_bot=False, kind="press", text="✅ Build it"),
    Line(who="Bot", from_bot=True, kind="document", text="Done.", file_name="shop.zip", size_bytes=1_500_000),
    Line(who="Bot", from_bot=True, kind="photo", text="The page"),
    Line(who="Bot", from_bot=True, kind="service", text="Message pinned"),
)  # fmt: skip


def read(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in read(svg).iter(f"{SVG}text")]


def rects(svg: str, side: str) -> list[dict[str, float]]:
    found = [one for one in read(svg).iter(f"{SVG}rect") if one.get("class") == side]
    return [{name: float(one.get(name, "0")) for name in ("x", "y", "width", "height")} for one in found]


def test_picture__shows_all_that_was_said() -> None:
    shown = texts(draw(CHAT))

    for text in ("/start", "😀 Shall I <build> & ship?", "It costs 12 credits.", "edited", "✅ Build it", "Change"):
        assert text in shown
    for text in ("Ada pressed “✅ Build it”", "shop.zip", "1.4 MB", "Done.", "The page", "Message pinned"):
        assert text in shown
    assert any(text.startswith("A label that is") and text.endswith("…") for text in shown)


def test_picture__has_the_bot_left_and_people_right() -> None:
    svg = draw(CHAT)
    bot, me = rects(svg, "bot"), rects(svg, "me")

    assert (len(bot), len(me)) == (3, 1)
    assert all(bubble["x"] < WIDTH / 4 for bubble in bot)
    assert all(bubble["x"] + bubble["width"] > WIDTH * 3 / 4 for bubble in me)


def test_picture__is_one_column_without_overlaps_inside_its_edges() -> None:
    svg = draw(CHAT * 3)
    height = float(read(svg).get("height", "0"))
    blocks = sorted((*rects(svg, "bot"), *rects(svg, "me"), *rects(svg, "pill")), key=lambda one: one["y"])

    assert all(above["y"] + above["height"] <= below["y"] for above, below in pairwise(blocks))
    assert all(one["x"] >= 0 and one["x"] + one["width"] <= WIDTH for one in (*blocks, *rects(svg, "btn")))
    assert blocks[-1]["y"] + blocks[-1]["height"] <= height


def test_picture__breaks_long_lines_and_long_words() -> None:
    long = Line(who="Bot", from_bot=True, kind="text", text="word " * 40 + "x" * 200)
    lines = [text for text in texts(draw([long])) if text.startswith(("word", "x"))]

    assert len(lines) > 8
    assert "".join(lines).replace(" ", "") == long.text.replace(" ", "")
    assert all(len(line) < 60 for line in lines)


def test_picture__cuts_a_message_without_end() -> None:
    long = Line(who="Bot", from_bot=True, kind="text", text="line\n" * 500)

    assert texts(draw([long])).count("line") == LINES_MAX - 1


def test_picture__is_the_same_again_and_needs_nothing_from_elsewhere() -> None:
    svg = draw(CHAT)

    assert draw(CHAT) == svg
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@font-face|<script|href", svg)
    assert "prefers-color-scheme:dark" in svg


def test_picture__holds_what_xml_cannot() -> None:
    odd = Line(who="A<d>a", from_bot=False, kind="text", text="a\x00b\ud800c\td")

    assert "a\ufffdb\ufffdc    d" in texts(draw([odd]))


def test_picture__marks_what_is_bold_at_its_place() -> None:
    spans = [(one.get("class"), one.text) for one in read(draw(CHAT)).iter(f"{SVG}tspan")]

    assert ("b", "Shall") in spans
    assert ("a", "/start") in spans


def test_picture__names_people_where_there_are_several() -> None:
    chat = [Line(who=who, from_bot=False, kind="text", text="hello") for who in ("Ada", "Bob")]

    assert {"Ada", "Bob"} <= set(texts(draw(chat)))
    assert "Ada" not in texts(draw(chat[:1]))


def test_picture__can_be_written_as_utf8(tmp_path: Path) -> None:
    file = tmp_path / "chat.svg"
    file.write_text(draw(CHAT), encoding="utf-8")

    assert ElementTree.parse(file).getroot().get("width") == str(WIDTH)
