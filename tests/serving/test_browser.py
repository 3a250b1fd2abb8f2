"""The page in Debian's chromium."""

import base64
import os
import shutil
import signal

import pytest
from PIL import ExifTags, Image
from playwright.sync_api import expect, sync_playwright
from servers import ADDRESS, begun, encoded, serving

from pit_keras.data.preprocessing import decode
from pit_keras.export.tflite import export_tflite

BY = "\N{MULTIPLICATION SIGN}"
# What a visitor does who drags a file from a folder onto the page.
DROP = """
([text, name, type]) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const events = ["dragenter", "dragover", "drop"];
  for (const event of events) {
    document.getElementById("drop").dispatchEvent(
      new DragEvent(event, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}
"""
# The same, from the clipboard.
PASTE = """
(text) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "image.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
}
"""
# How many different colours the map has.
COLOURS = """
(canvas) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.width, canvas.height, new Set(new Uint32Array(data.buffer)).size];
}
"""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(model_folder):
    options = [f"--classes={model_folder / 'classes.txt'}", "--max_request_mb=1"]
    with serving(model_folder / "model.keras", *options) as server:
        yield server


@pytest.fixture
def page(browser, server):
    """The page, and what it complains of in `page.complaints`."""
    page = browser.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(server.url)
    yield page
    page.close()


def drop(page, contents, name="photo.jpg", kind="image/jpeg"):
    page.evaluate(DROP, [base64.b64encode(contents).decode(), name, kind])


def test_a_dropped_picture_is_named_and_its_attention_drawn(page, server, trained, files):
    drop(page, files[0])
    items = page.locator("#predictions li")
    expect(items).to_have_count(5)
    (prediction,) = server.predict(files[0]).json()["predictions"]
    for item, name, share in zip(
        items.all(), prediction["top_classes"], prediction["top_probabilities"], strict=True
    ):
        assert item.inner_text().strip() == f"{name} {share:.1%}"
        bar = item.locator("progress").evaluate("(bar) => bar.value")
        assert bar == pytest.approx(share, abs=1e-6)

    canvas = page.locator("#map")
    expect(canvas).to_be_visible()
    columns, rows, colours = canvas.evaluate(COLOURS)
    assert (columns, rows) == (5, 4)
    assert colours > 2
    (explanation,) = server.explain(files[0]).json()["explanations"]
    picture, frame = page.locator("#picture").bounding_box(), canvas.bounding_box()
    scale = picture["width"] / 640
    for side, start in (("x", "left"), ("y", "top")):
        assert frame[side] - picture[side] == pytest.approx(
            explanation["crop"][start] * scale, abs=1
        )
    assert frame["height"] == pytest.approx(explanation["crop"]["height"] * scale, abs=1)
    assert f"of the picture's 640 {BY} 427 pixels" in page.inner_text("#caption")

    before = canvas.evaluate("(canvas) => canvas.toDataURL()")
    page.select_option("#head", "1")
    assert canvas.evaluate("(canvas) => canvas.toDataURL()") != before
    page.select_option("#stage", "1")
    expect(page.locator("#share")).to_contain_text("stage1_block1")
    assert canvas.evaluate(COLOURS)[:2] == [19, 15]
    page.uncheck("#shown")
    expect(canvas).to_be_hidden()
    assert page.complaints == []


def test_pictures_can_be_chosen_and_pasted(page, files):
    page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": files[1]})
    expect(page.locator("#caption")).to_contain_text(f"427 {BY} 427 pixels")
    page.evaluate(PASTE, base64.b64encode(files[3]).decode())
    expect(page.locator("#caption")).to_contain_text(f"163 {BY} 110 pixels")
    assert page.complaints == []


def test_a_photograph_is_shown_as_it_is_stored(page, photographs):
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    contents = encoded(photographs[0], "JPEG", exif=turned)
    assert decode(contents).shape == (427, 640, 3)
    drop(page, contents)
    expect(page.locator("#caption")).to_contain_text(f"640 {BY} 427 pixels")
    # Only the style tells: its frame gives the picture its shape either way.
    style = "getComputedStyle(document.getElementById('image')).imageOrientation"
    assert page.evaluate(style) == "none"


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"plain text", "This file is not a JPEG or PNG image."),
        (b"", "The file is empty."),
        (bytes(900_000), "The file is too large: the server takes 0.75 MB at most."),
    ],
)
def test_what_is_no_picture_is_told_in_words(page, files, contents, words):
    drop(page, files[0])
    expect(page.locator("#predictions li")).to_have_count(5)
    drop(page, contents, "notes.txt", "text/plain")
    expect(page.locator("#status")).to_have_text(words)
    # Nothing of the picture before is left to be taken for this one's.
    expect(page.locator("#output")).to_be_hidden()
    expect(page.locator("#figure")).to_be_hidden()


def test_a_picture_that_is_slow_to_decode_does_not_come_back(page, files):
    page.evaluate(
        "() => { HTMLImageElement.prototype.decode ="
        " () => new Promise(done => { window.decoded = done; }); }"
    )
    drop(page, files[0])
    expect(page.locator("#predictions li")).to_have_count(5)
    drop(page, b"", "notes.txt", "text/plain")
    expect(page.locator("#status")).to_have_text("The file is empty.")
    page.evaluate("async () => { decoded(); await new Promise(done => setTimeout(done, 100)); }")
    expect(page.locator("#status")).to_have_text("The file is empty.")
    expect(page.locator("#figure")).to_be_hidden()


def test_what_was_dropped_without_a_file_is_told_in_words(page):
    page.evaluate("document.dispatchEvent(new DragEvent('drop', {cancelable: true}))")
    expect(page.locator("#status")).to_have_text("That was no file; drop a picture from a folder.")


def test_a_narrow_window_needs_no_scrolling_to_the_side(page, files):
    page.set_viewport_size({"width": 320, "height": 640})
    drop(page, files[0])
    expect(page.locator("#predictions li")).to_have_count(5)
    expect(page.locator("#map")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_the_page_is_dark_where_the_visitor_wants_it(page):
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(251, 250, 247)", "rgb(21, 23, 26)"]


def test_a_busy_server_and_one_that_is_gone_are_told_in_words(browser, model_folder, files):
    with serving(model_folder / "model.keras", "--max_queue=1") as server:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#about")).to_contain_text(f"10 classes, images of 40 {BY} 32 pixels")
        place, _ = begun(server, files[0])
        drop(page, files[0])
        expect(page.locator("#status")).to_have_text("The server is busy; try again in a moment.")
        place.close()
        os.kill(server.process.pid, signal.SIGTERM)
        server.process.join(60)
        drop(page, files[0])
        words = "The server does not answer. Is it still running?"
        expect(page.locator("#status")).to_have_text(words)
        page.close()


def test_a_model_without_attention_says_so(browser, trained, tmp_path, files):
    export_tflite(trained, tmp_path / "model.tflite")
    with serving(tmp_path / "model.tflite") as server:
        page = browser.new_page()
        page.goto(server.url)
        drop(page, files[0])
        expect(page.locator("#predictions li")).to_have_count(5)
        expect(page.locator("#no-attention")).to_be_visible()
        expect(page.locator("#attention")).to_be_hidden()
        expect(page.locator("#map")).to_be_hidden()
        expect(page.locator("#crop")).to_be_visible()
        page.close()
        assert server.explain(files[0], stage=1).json() == {
            "error": "pictures has no stage 1; it has no attention."
        }
        assert server.client.get(f"{ADDRESS}/metadata").json()["model"]["attention"] == []
