"""Pages without the internet: what they load is in the package, unchanged, and nothing else is asked for."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib import resources

import pytest

from capibara_agents.http.app import build_app
from capibara_agents.http.pages import ASSETS
from tests.asgi import get
from tests.fakes import FakeHouse

# sha256 of the files as their packages hold them: npm mermaid 11.17.2 and swagger-ui-dist 5.35.0.
SUMS = {
    "mermaid.min.js": "581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8",
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}


@pytest.mark.parametrize("path", ["/docs", "/graph"])
async def test_a_page_loads_only_from_here(house: FakeHouse, path: str) -> None:
    """Every script, style and link is a file of the service, and the policy lets in no other."""
    app = build_app(house)
    page = await get(app, path, accept="text/html").done()
    markup = page.body.decode()
    named = re.findall(r'(?:src|href)="([^"]+)"', markup)
    assert any(name.startswith("assets/") for name in named)
    for name in named:
        if name != "data:,":
            assert (await get(app, f"/{name}").done()).status == 200, name
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "<script>" not in markup


@pytest.mark.parametrize("name", sorted(SUMS))
async def test_what_others_wrote_is_unchanged(house: FakeHouse, name: str) -> None:
    """Packed for those who take it so, unpacked for others; the bytes are the package's."""
    app = build_app(house)
    plain = await get(app, f"/assets/{name}").done()
    packed = await get(app, f"/assets/{name}", accept_encoding="gzip, br").done()
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body
    assert hashlib.sha256(plain.body).hexdigest() == SUMS[name]
    assert len(plain.body) == int(plain.headers["content-length"])


async def test_no_other_file_is_given(house: FakeHouse) -> None:
    """A name that is not on the list is not found, however it is written."""
    app = build_app(house)
    for name in ("playground.html", "..%2Fapp.py", "vendor/README.md"):
        assert (await get(app, f"/assets/{name}").done()).status == 404


async def test_the_graph_has_a_drawing_without_scripts_too(house: FakeHouse) -> None:
    """Where no script runs, the page's own drawing is seen; its source is mermaid's."""
    markup = (await get(build_app(house), "/graph", accept="text/html").done()).body.decode()
    assert "<svg" in markup
    assert "classify --&gt; route" in markup


def test_the_licences_are_with_them() -> None:
    """Whoever gets the files gets their licences."""
    vendor = resources.files("capibara_agents.http").joinpath("vendor")
    assert "MIT" in vendor.joinpath("mermaid.LICENSE").read_text()
    assert "Apache License" in vendor.joinpath("swagger-ui.LICENSE").read_text()
    assert {file.split("/")[-1] for file, _ in ASSETS.values() if "/" in file} <= {f.name for f in vendor.iterdir()}
