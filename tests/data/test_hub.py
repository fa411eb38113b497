"""A hub that does not answer is told apart from a dataset that does not exist, and never waited for long."""

from __future__ import annotations

import http.server
import logging
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import lerobot_samples as samples
import pytest
from fake_hub import Hub, serving

from hil_rllib.data import hub
from hil_rllib.data.demos import load_demos
from hil_rllib.data.hub import HubUnreachable
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset

NAME = "somebody/some-demos"


@pytest.fixture
def black_hole(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub's address accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


def nobodys_address() -> str:
    """Where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens at the hub's address."""
    monkeypatch.setenv("HF_ENDPOINT", nobodys_address())


@pytest.fixture
def not_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that knows no such dataset."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class's name
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def test_silent_hub_is_given_up_within_the_time_out(black_hole: None, tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(HubUnreachable, match=r"somebody/some-demos.*TimeoutError|Timeout"):
        open_dataset(NAME, cache_dir=tmp_path, hub_timeout_s=3.0)
    assert time.monotonic() - began < 3.0
    assert hub.DEFAULT_TIMEOUT_S <= 15


def test_refusing_hub_is_given_up_at_once(refused: None, tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(HubUnreachable, match=r"HF_ENDPOINT.*or give a local folder instead\.$"):
        open_dataset(NAME, cache_dir=tmp_path)
    assert time.monotonic() - began < 5.0


def test_unreachable_hub_gives_the_cached_copy_and_says_so(
    refused: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    repository = tmp_path / "datasets--somebody--some-demos"
    samples.write_v21(tmp_path / "set")
    shutil.copytree(tmp_path / "set", repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert len(open_dataset(NAME, cache_dir=tmp_path)) == 2
    assert "using the cached copy" in caplog.text


def test_a_folder_has_no_revisions(tmp_path: Path) -> None:
    samples.write_v21(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"no revision 'v2'.*demos\.revision=null"):
        open_dataset(str(tmp_path / "set"), revision="v2")


@pytest.mark.parametrize("revision", [None, "main", "v2.1", "a" * 40])
def test_what_was_downloaded_once_is_there_without_the_hub(
    revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "set"
    samples.write_v21(folder)
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    online = Hub(token="hf_secret")
    online.refs[NAME], online.commits["a" * 40] = {"main": "a" * 40, "v2.1": "a" * 40}, files
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with serving(online) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert len(open_dataset(NAME, cache_dir=tmp_path / "cache", revision=revision)) == 2
    monkeypatch.setenv("HF_ENDPOINT", nobodys_address())
    assert len(open_dataset(NAME, cache_dir=tmp_path / "cache", revision=revision)) == 2
    assert "using the cached copy" in caplog.text


def test_unknown_dataset_is_no_reason_to_fall_back(not_found: None, tmp_path: Path):
    with pytest.raises(DatasetError, match="neither a local folder nor a dataset"):
        load_demos(
            NAME, env={"id": "hil/PandaPickCube-v0"}, image_obs=False, fallback="scripted", cache_dir=tmp_path
        )


def test_fallback_happens_only_where_allowed_and_is_announced(
    refused: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    options = {"env": {"id": "hil/PandaPickCube-v0"}, "image_obs": False, "cache_dir": tmp_path}
    with pytest.raises(HubUnreachable, match=r"local folder instead\. Or set demos\.fallback=scripted"):
        load_demos(NAME, **options, fallback="none")
    assert not list(tmp_path.rglob("*.parquet"))

    demos = load_demos(NAME, **options, fallback="scripted", fallback_episodes=2)
    assert demos.scripted
    assert len(demos.demos) == 2
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("Recording 2 scripted demonstrations instead" in w and NAME in w for w in warnings)
