"""Takes a picture of what the page of the archive Orthanc shows of a study with its results.

    python experiments/archive_page.py --url http://localhost:8042 --patient ID --out page.png

The picture has the study with all its series at the left, and at the right one of its previews,
enlarged. Without --patient it is of any study with a preview. Needs Chromium and Playwright
(``pip install -e ".[browser]"``).
"""

import io
import json
import shutil
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command_line import Parser, call
from PIL import Image

from msa_flax.files import UserError, write_atomically

_VIEW = {"width": 860, "height": 640}  # pixels of the page
_FRAME = 10  # pixels around what is enlarged
_COLOURS = 128  # of the picture: enough for the map over a slice, and a third of the bytes


def take(page: Any, url: str, patient: str = "") -> bytes:
    """Returns the picture as a PNG file.

    Args:
        page: of a browser of Playwright.
        url: of the archive, which asks for no password.
        patient: number of a patient; "": any.

    Raises:
        UserError: the archive has no preview of this package.
    """
    preview = _preview(url, patient)
    page.set_viewport_size(_VIEW)
    page.goto(f"{url}/app/explorer.html#study?uuid={preview['ParentStudy']}")
    page.wait_for_selector("text=msa_flax: report")
    left = _picture(page.screenshot())
    page.goto(f"{url}/app/explorer.html#series?uuid={preview['ID']}")
    page.click("text=Preview this series")
    page.wait_for_selector("#lbImage", state="visible")
    page.wait_for_selector("#lbCaption", state="visible")  # the last that appears
    page.mouse.move(0, 0)  # over the picture it would show buttons
    page.wait_for_timeout(1000)  # ms, until it has faded in
    right = _picture(page.locator("#lbImage").screenshot())
    right = right.crop((_FRAME, _FRAME, right.width - _FRAME, right.height - _FRAME))
    right = right.resize((round(right.width * left.height / right.height), left.height))
    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    buffer = io.BytesIO()
    both.quantize(_COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def _preview(url: str, patient: str) -> dict[str, Any]:
    """Returns what the archive says of a series of previews."""
    wanted = {"SeriesDescription": "msa_flax: preview*", "PatientID": patient or "*"}
    query = json.dumps({"Level": "Series", "Expand": True, "Query": wanted}).encode()
    try:
        with urllib.request.urlopen(f"{url}/tools/find", query, 30) as answer:
            found = json.load(answer)
    except OSError as error:
        raise UserError(f"--url: expected an archive that answers at {url}") from error
    if not found:
        raise UserError(f"--url: {url} has no preview of msa_flax")
    return dict(found[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Takes the picture that the command line asks for."""
    parser = Parser(__doc__)
    parser.add_argument("--url", required=True, help="of the archive")
    parser.add_argument("--patient", default="", help="number of a patient")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    parser.add_argument("--browser", default="chromium", help="Chromium or Chrome")
    options = parser.parse_args(arguments)
    found = shutil.which(options.browser)
    if not found:
        raise UserError(f"--browser: {options.browser} is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root in a container a browser has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        write_atomically(
            options.out, take(browser.new_page(), options.url.rstrip("/"), options.patient)
        )
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
