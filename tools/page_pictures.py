"""Export the starter as a web page, write a poem on it in Chromium, and take the pictures of the documentation.

`python tools/page_pictures.py docs/images` writes `page-light.png`, `page-dark.png` and `page-phone.png`. It needs
Node.js, Chromium and `npm install @litertjs/core@2.5.3 playwright-core@1.64.1`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import kerasgen as kg

ROOT = Path(__file__).parents[1]
BROWSE = ROOT / "tests" / "support" / "browse.mjs"


def keep(picture: Path, path: Path) -> None:
    """Copy a picture without the empty rows below what it shows."""
    from PIL import Image, ImageChops

    shot = Image.open(picture).convert("RGB")
    empty = Image.new("RGB", shot.size, shot.getpixel((1, shot.height - 10)))
    bottom = ImageChops.difference(shot, empty).crop((0, 0, shot.width, shot.height - 5)).getbbox()[3]
    shot.crop((0, 0, shot.width, min(bottom + 24, shot.height))).save(path, optimize=True)


def main() -> None:
    """Export, open the page, and keep the three pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--page", type=Path, help="a page that was exported before, instead of a new one")
    parser.add_argument("--typed", default="春", help="the prompt (default: 春)")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = asked.page
        if page is None:
            page = Path(folder, "poet_web")
            forms = ("verse_form:form=五言絕句", "verse_form:form=七言絕句")
            kg.Pipeline(model="starter").export(page, forms=forms, prompts=("春", "夜雨"), title="Tang poems")
        job = {
            "folder": str(page.resolve()),
            "chromium": shutil.which("chromium") or shutil.which("google-chrome"),
            "pictures": folder,
            "locale": "en-GB",
            "form": "五言絕句",
            "requests": [["春", {"sampler": "greedy", "max_new_tokens": 8}]],
            "typed": asked.typed,
            "files": 1,
        }
        done = subprocess.run(
            ["node", str(BROWSE)], input=json.dumps(job), capture_output=True, encoding="utf-8", cwd=ROOT, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        seen = json.loads(done.stdout)
        print(f"{seen['shown']}\n{seen['speed']}")
        for name in ("light", "dark", "phone"):
            keep(Path(folder, f"{name}.png"), asked.folder / f"page-{name}.png")


if __name__ == "__main__":
    main()
